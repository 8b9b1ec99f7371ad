"""Run folders as training, evaluation and verification leave them, written without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from axtune.checkpoint import locate
from axtune.checkpoint.run_dir import EVALUATION, MERGED, describe
from axtune.config import loader
from axtune.evaluate.answers import Kept, open_answers
from axtune.evaluate.results import Estimate, Measured, Result
from support.tiny import recipe

# Stands in the rows' answers, and nowhere else.
CANARY = "카나리아-7f3a <script>alert(1)</script>"

STATS = {
    "rows_read": 20,
    "rows_used": 16,
    "rows_refused": 4,
    "rows_left_out": 0,
    "samples": 16,
    "tokens": 1600,
    "labelled_tokens": 400,
    "lengths": {"p50": 90, "p90": 140, "p99": 200, "max": 200},
    "histogram": [0, 3, 7, 4, 2],
    "refused": {"control-token": 3, "bad-role": 1},
    "warnings": {"near-duplicate": 2},
    "digests": {"rows.jsonl": "ab" * 32},
}


def events(steps: int = 40, every: int = 10) -> list[dict[str, Any]]:
    """A run's metrics: falling losses, evaluations among them."""
    found: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        found.append(
            {"step": step, "loss": 4 / step, "grad_norm": 1.5, "learning_rate": 1e-4 / step}
        )
        if step % every == 0:
            loss = 1 + abs(step - 30) / 100
            found.append({"step": step, "eval_loss": loss, "eval_tool_accuracy": step / 100})
    return found


def run_folder(folder: Path, **changes: Any) -> Path:
    """A finished run; `changes` are keys of its recipe."""
    run = folder / changes.pop("name", "run")
    run.mkdir(parents=True)
    job = recipe(folder, output_dir=str(run), **changes)
    (run / "recipe.yaml").write_text(loader.dump(job), encoding="utf-8")
    counts = {
        "samples": 16,
        "eval_samples": 4,
        "tokens": 1600,
        "labelled_tokens": 400,
        "parameters": 2_972_608,
        "trainable_parameters": 217_088,
        "effective_batch": 4,
        "steps": 40,
    }
    manifest = describe(
        job,
        locate.find("tiny-ax-4.0"),
        {"precision": "fp32", "counts": counts, "data": {"train": STATS, "eval": None}},
    )
    manifest |= {
        "status": "finished",
        "plan": {"peak": 118_000_000, "steps": 40},
        "measured": {"peak": 130_600_000, "steps": 40, "seconds": 50.3},
        "metrics": {
            "first_loss": 4.0,
            "last_loss": 0.1,
            "best_eval_loss": 1.0,
            "best_step": 30,
            "tokens_per_second": 1436.1,
        },
        "wall_seconds": 61.0,
    }
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    lines = "".join(json.dumps(event) + "\n" for event in events())
    (run / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return run


def result(model: str, *, against: str | None = "base") -> Result:
    """An evaluation that found the model better at calls, and nothing sure of text."""
    before = Estimate(0.2, 0.1, 0.3) if against else None
    difference = Estimate(0.5, 0.4, 0.6) if against else None
    unsure = Estimate(-1.0, -3.0, 1.0) if against else None
    return Result(
        model=model,
        against=against,
        settings={"backend": "transformers", "temperature": 0.0, "limit": None},
        data=[{"file": "test.jsonl", "questions": 149}],
        questions=149,
        left_out={"too-long": 2},
        measured=[
            Measured(
                "accuracy", "all", 149, Estimate(0.7, 0.62, 0.77), before, difference,
                "better" if against else None,
            ),
            Measured(
                "chrf", "text", 20, Estimate(31.0, 28.0, 35.0),
                Estimate(32.0, 29.0, 36.0) if against else None, unsure,
                "cannot be told" if against else None,
            ),
        ],
        reasons={"wrong-value": 9},
        reasons_before={"no-call": 100} if against else {},
        created="2026-11-27T10:00:00+00:00",
        versions={"axtune": "0.1.0"},
    )  # fmt: skip


def evaluated(run: Path, *, against: str | None = "base") -> Path:
    """Leave an evaluation, whose answers hold the canary, in a run."""
    found = result(str(run), against=against)
    folder = run / EVALUATION
    with open_answers(folder) as answers:
        for number in range(3):
            answers.add([kept("base", number, f"모릅니다 {CANARY}")])
            call = {"function": {"name": "find_order", "arguments": '{"order_id": "15"}'}}
            answers.add([kept(str(run), number, f"찾아볼게요 {CANARY}", [call])])
    found.write(folder)
    return run


def kept(model: str, number: int, text: str, calls: list[dict[str, Any]] | None = None) -> Kept:
    """An answer as an evaluation keeps it."""
    key, question = f"{model}{number}", f"test.jsonl:{number + 1}"
    return Kept(
        key, model, question, "call", "서울 날씨는?", "f({})", 0, text, calls or [], ended=True
    )


def certified(run: Path) -> Path:
    """Leave a certificate in a run."""
    check = {"part": "logits", "name": "base + adapter", "status": "pass", "found": "32 requests"}
    (run / MERGED).mkdir()
    text = json.dumps({"passed": True, "checks": [check]})
    (run / MERGED / "certificate.json").write_text(text, encoding="utf-8")
    return run
