"""Preference runs end to end, on the embedded models; every one of them really trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from support.commands import losses, train_in_processes
from support.rows import write_jsonl
from support.tiny import IN_FLOAT32, LIBRARY_WARNINGS, RECIPES
from support.tool_pairs import CITIES, job, rows, train_dpo, train_sft

from axtune.checkpoint import locate
from axtune.checkpoint.run_dir import open_run, read_metrics
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.config import loader
from axtune.data.pipeline import render_row
from axtune.errors import AxtuneError
from axtune.model.load import load_model
from axtune.run import train

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def accuracy(folder: Path) -> list[float]:
    events = read_metrics(folder / "metrics.jsonl")
    return [e["eval_rewards/accuracies"] for e in events if "eval_rewards/accuracies" in e]


def prefers(model, tokenizer, pairs: list[dict]) -> float:
    """The share of pairs whose chosen answer is the more probable one."""
    right = 0
    for pair in pairs:
        (sample,) = render_row(pair, tokenizer)
        scores = []
        for answer in (sample.chosen_ids, sample.rejected_ids):
            ids = torch.tensor([[*sample.prompt_ids, *answer]])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, len(sample.prompt_ids) - 1 : -1]
            scores.append(logits.log_softmax(-1)[range(len(answer)), answer].sum().item())
        right += scores[0] > scores[1]
    return right / len(pairs)


@pytest.fixture(scope="module")
def sft(tmp_path_factory):
    return train_sft(tmp_path_factory.mktemp("sft"), rows(CITIES[:9]))


@pytest.mark.parametrize("mode", ["further", "merged"])
def test_dpo_from_an_sft_adapter_raises_held_out_accuracy(tmp_path, sft, mode):
    train_rows, held_out = rows(CITIES[:9]), rows(CITIES[9:])
    tokenizer = load_tokenizer("tiny-ax-4.0")

    def reloaded(folder: Path):
        base = load_model(locate.find("tiny-ax-4.0"), tokenizer, precision="fp32")
        return PeftModel.from_pretrained(base, str(folder / "adapter")).eval()

    before = prefers(reloaded(sft.path), tokenizer, held_out)
    merged = f"preference.start_merged={str(mode == 'merged').lower()}"
    dpo = train_dpo(tmp_path, sft, train_rows, held_out, merged)
    after = prefers(reloaded(dpo.path), tokenizer, held_out)
    assert before <= 0.7
    assert after >= before + 0.25
    assert accuracy(dpo.path)[-1] >= 0.9
    first = losses(dpo.path)[0]
    assert first == pytest.approx(0.6931, abs=1e-3)
    assert dpo.manifest["status"] == "finished"


@pytest.mark.parametrize("name", ["dpo_qlora", "kto_lora", "orpo_lora"])
def test_the_other_recipes_learn(tmp_path, name):
    made = rows(CITIES[:6])
    if name == "kto_lora":
        made = [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen",
             "tools": row["tools"]}
            for row in made for side in ("chosen", "rejected")
        ]  # fmt: skip
    write_jsonl(tmp_path / "rows.jsonl", made)
    run = train(job(tmp_path, name, "data.eval=null", "training.num_train_epochs=6",
                    "training.learning_rate=2e-3",
                    *([IN_FLOAT32] if name == "dpo_qlora" else [])))  # fmt: skip
    margins = [event["rewards/margins"] for event in read_metrics(run.path / "metrics.jsonl")
               if "rewards/margins" in event]  # fmt: skip
    assert len(margins) >= 10
    assert sum(margins[-3:]) / 3 > max(0.02, 2 * sum(margins[:3]) / 3)
    assert {file.name for file in run.path.iterdir()} == {
        "adapter", "checkpoints", "recipe.yaml", "manifest.json", "metrics.jsonl", "loss.png",
        "report.html",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["dpo_lora", "kto_lora", "orpo_lora"])
def test_runs_answer_questions_between_their_steps(tmp_path, name):
    made = rows(CITIES[:4])
    if name == "kto_lora":
        made = [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen",
             "tools": row["tools"]}
            for row in made for side in ("chosen", "rejected")
        ]  # fmt: skip
    write_jsonl(tmp_path / "rows.jsonl", made)
    evaluate = {"every": 1, "limit": 3, "max_new_tokens": 6, "best": "tool_accuracy"}
    more = ["data.eval=0.5", "training.max_steps=2", "training.eval_strategy=steps"]
    asking = train(job(tmp_path, name, *more, f"evaluate={json.dumps(evaluate)}"))
    events = read_metrics(asking.path / "metrics.jsonl")
    assert [event["step"] for event in events if "eval_tool_accuracy" in event] == [1, 2]
    silent = train(job(tmp_path, name, *more, f"output_dir={tmp_path / 'silent'}"))
    assert losses(asking.path) == losses(silent.path)


def test_two_processes_give_the_curve_of_one(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", rows(CITIES))
    curves = []
    for processes, accumulation in ((1, 4), (2, 2)):
        folder = tmp_path / f"on_{processes}"
        words = [
            "model=tiny-ax-4.0", f"data.train={tmp_path / 'rows.jsonl'}", "precision=fp32",
            f"output_dir={folder}", "data.eval=0.25", "training.per_device_train_batch_size=1",
            f"training.gradient_accumulation_steps={accumulation}", "training.max_steps=4",
            "training.eval_strategy=steps", "training.eval_steps=4", "training.warmup_steps=0",
            "training.learning_rate=1e-3", IN_FLOAT32,
        ]  # fmt: skip
        file = RECIPES / "dpo_qlora.yaml"  # without a quantised base: test_several_processes.py
        if processes == 1:
            train(loader.load(file, words))
        else:
            cache = str(tmp_path / "other_cache")
            done = train_in_processes(processes, file, words, XDG_CACHE_HOME=cache)
            assert done.status == 0, done.err
        assert (
            json.loads((folder / "manifest.json").read_text())["counts"]["processes"] == processes
        )
        curves.append(losses(folder) + losses(folder, "eval_loss"))
    assert len(curves[0]) == 5
    assert abs(curves[0][3] - curves[0][0]) > 0.02  # the weights have moved
    assert curves[1] == pytest.approx(curves[0], rel=2e-4)


def test_a_run_leaves_no_rows_and_no_reference_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "rows.jsonl", rows(CITIES[:3]))
    run = train(job(Path(), "dpo_lora", "data.eval=null", "data.train=rows.jsonl",
                    "output_dir=run", "training.max_steps=2"))  # fmt: skip
    for file in run.path.rglob("*"):
        if file.is_file() and file.name != "tokenizer.json":
            content = file.read_bytes()
            assert "서울".encode() not in content, file
            assert str(tmp_path).encode() not in content, file
    assert len(list((tmp_path / "cache" / "axtune" / "reference").iterdir())) == 1


def test_an_unfinished_run_on_a_merged_base_is_not_opened_as_if_it_were_whole(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", rows(CITIES[:3]))
    first = train(job(tmp_path, "orpo_lora", "data.eval=null", "training.max_steps=1",
                      f"output_dir={tmp_path / 'first'}"))  # fmt: skip
    merged = job(tmp_path, "dpo_lora", "data.eval=null", "training.max_steps=1",
                 f"preference.start_from={first.path}", "preference.start_merged=true")  # fmt: skip
    run = train(merged)
    assert run.adapter.name == "adapter"
    adapter = run.path / "adapter"
    adapter.rename(run.path / "elsewhere")
    manifest = json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))
    (run.path / "manifest.json").write_text(json.dumps({**manifest, "status": "interrupted"}))
    with pytest.raises(AxtuneError, match="has not finished"):
        open_run(run.path)
