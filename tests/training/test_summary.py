"""What a run says of itself before and after."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console
from support.events import EVENTS
from support.tiny import recipe, write_rows

from axtune.checkpoint.run_dir import RunDir
from axtune.errors import Fault
from axtune.training.progress import Report
from axtune.training.summary import (
    FaultLines,
    how_to_go_on,
    measured,
    outcome,
    rehearsed,
    summary,
)
from axtune.training.trainer import Rehearsal


def test_summary():
    assert summary(EVENTS) == {
        "first_loss": 8.0,
        "last_loss": 2.0,
        "best_eval_loss": 3.0,
        "best_step": 4,
        "tokens_per_second": 1003,
    }
    assert summary([]) == {}


def lines(faults: int) -> list[str]:
    said = io.StringIO()
    show = FaultLines(Report(Console(file=said, width=200)))
    for number in range(faults):
        show(Fault("rows.jsonl", number, "bad-role", "no such role."))
    show.close()
    return said.getvalue().splitlines()


def test_the_first_faults_are_shown_and_the_rest_counted() -> None:
    assert lines(0) == []
    assert len(lines(20)) == 20
    *shown, last = lines(1234)
    assert len(shown) == 20
    assert "1,214 more" in last
    assert "axtune data check" in last


def test_the_outcome_says_what_there_is(tmp_path: Path) -> None:
    job = recipe(tmp_path)
    metrics = summary(EVENTS)
    shown = dict(outcome(job, {"metrics": metrics, "wall_seconds": 200}))
    assert shown["loss"] == "8.0000 → 2.0000"
    assert shown["eval loss"].startswith("3.0000, best at step 4")
    assert shown["speed"] == "1,003 tokens/s; 3m 20s in all"
    assert shown["next"] == f"axtune chat {job.output_dir}"
    assert [name for name, _ in outcome(job, {})] == ["run", "next"]


def test_the_command_that_follows_is_quoted(tmp_path: Path) -> None:
    job = recipe(tmp_path, output_dir="-런 1's")
    assert shlex.split(dict(outcome(job, {}))["next"]) == ["axtune", "chat", "./-런 1's"]


def test_the_outcome_names_what_chose_the_adapter(tmp_path: Path) -> None:
    job = recipe(tmp_path, evaluate={"data": "q.jsonl", "best": "tool_accuracy"})
    events = [*EVENTS, {"step": 3, "eval_tool_accuracy": 0.5}, {"step": 4, "eval_exact": 1.0}]
    metrics = summary(events, "eval_tool_accuracy")
    assert (metrics["best_step"], metrics["best_eval_tool_accuracy"]) == (3, 0.5)
    shown = dict(outcome(job, {"metrics": metrics, "wall_seconds": 2}))
    assert shown["answers"] == "tool accuracy 50.0%, best at step 3, which the adapter is from"
    assert "eval loss" not in shown


def test_after_a_stop_it_says_how_to_go_on(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run", None)
    run_dir.begin(recipe(tmp_path), {})
    assert "the same command starts again" in how_to_go_on(run_dir)
    for step in (9, 10):
        folder = run_dir.checkpoints / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text("{}")
    said = how_to_go_on(run_dir)
    assert "step 10 is saved" in said
    assert said.endswith("resume=true")


def test_the_largest_step_that_fits() -> None:
    assert rehearsed(Rehearsal(tokens=4096, seconds=1.26, peak=12.34e9)) == (
        "The largest step fits: 4,096 tokens at once, 1.3 s, 12.3 GB."
    )
    assert rehearsed(Rehearsal(tokens=10, seconds=0.1, peak=None)).endswith("0.1 s.")


def test_a_resumed_run_does_not_say_how_long_all_steps_took(tmp_path: Path) -> None:
    def trainer(resumes_from: Path | None) -> Any:
        run = SimpleNamespace(run_dir=RunDir(tmp_path, resumes_from))
        return SimpleNamespace(run=run, state=SimpleNamespace(global_step=4))

    found = measured(trainer(None), 7, 0.0)
    assert (found["peak"], found["steps"]) == (7, 4)
    assert found["seconds"] > 0
    assert "seconds" not in measured(trainer(tmp_path), 7, 0.0)


def test_what_comes_next_is_named(tmp_path: Path) -> None:
    """Where rows were held out, they tell what was learned."""
    rows = str(write_rows(tmp_path / "rows.jsonl", 16))
    held = outcome(recipe(tmp_path, data={"train": rows, "eval": 0.5}), {})
    assert held[-1] == ("", f"axtune eval {tmp_path / 'run'} --against base")
