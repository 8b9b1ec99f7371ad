"""Continued pre-training end to end: documents to a run, and from there to what follows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.commands import losses
from support.rows import TEMPLATES, chat, write_jsonl
from support.tiny import LIBRARY_WARNINGS, RECIPES, recipe, write_rows

from axtune.chat import chat as talk
from axtune.checkpoint import locate
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.config import loader
from axtune.data.pipeline import render_row
from axtune.errors import AxtuneError
from axtune.evaluate import in_training
from axtune.evaluate.evaluate import Settings, evaluate
from axtune.export.export import export
from axtune.model.load import load_model
from axtune.model.trained import stops_of
from axtune.run import train
from axtune.training.progress import Report
from axtune.verify.certificate import Certificate
from axtune.verify.verify import verify
from axtune.weights.merge import merge

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]

SILENT = Report(enabled=False)


def documents(folder: Path, count: int = 12) -> Path:
    rows = [
        {"text": "\n\n".join(f"{n}번 규정 제{k}조는 {n * k}이다." for k in range(1, 5))}
        for n in range(count)
    ]
    return write_jsonl(folder / "documents.jsonl", rows)


def job(folder: Path, name: str = "run", **changes):
    data = {"train": str(documents(folder)), "max_length": 64, "packing": True}
    data |= changes.pop("data", {})
    training = {"lr_scheduler_type": "constant", "eval_strategy": "steps", "eval_steps": 2}
    training |= changes.pop("training", {})
    return recipe(
        folder, task="cpt", output_dir=str(folder / name), data=data, training=training, **changes
    )


@pytest.mark.parametrize(
    ("name", "model"), [("cpt_lora", "tiny-ax-4.0"), ("cpt_qlora", "tiny-ax-3.1")]
)
def test_the_recipes_learn_and_all_that_follows_a_run_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, model: str
) -> None:
    monkeypatch.chdir(tmp_path)
    files = ",".join(str(TEMPLATES / n) for n in ("documents.jsonl", "security_guide.md"))
    words = [f"model={model}", "output_dir=run", f"data.train=[{files}]", "data.max_length=512",
             "training.num_train_epochs=2", "training.learning_rate=3e-3"]  # fmt: skip
    run = train(loader.load(RECIPES / f"{name}.yaml", words))
    assert losses(run.path)[-1] < losses(run.path)[0] - 0.5
    account = run.manifest["data"]["train"]
    assert account["labelled_tokens"] == account["tokens"]
    assert account["lengths"]["max"] <= 512

    merge([run.path], None, "merged")
    export(run.path, "served", to="vllm")
    for folder in map(Path, ("merged", "served")):
        generation = json.loads((folder / "generation_config.json").read_text())
        assert generation["eos_token_id"] == [27, 0]
        certificate: Certificate = verify(folder, adapter=run.path)
        assert certificate.passed
        assert any("stops at 27 and 0" in check.found for check in certificate.checks)

    result, _ = evaluate("run", Settings(against="base"), SILENT)
    (loss, perplexity) = result.measured
    assert (loss.metric, perplexity.metric) == ("loss", "perplexity")
    assert loss.before is not None
    assert loss.value.value < loss.before.value
    assert result.questions == 0
    assert "documents" in (run.adapter / "README.md").read_text(encoding="utf-8")
    assert "Continued pre-training of" in (run.path / "report.html").read_text(encoding="utf-8")
    assert talk("run", message="안녕하세요", max_new_tokens=4) is not None


def test_a_run_that_is_resumed_ends_bit_for_bit_like_one_that_was_not(tmp_path: Path) -> None:
    whole = train(job(tmp_path, "whole", training={"max_steps": 4}))
    train(job(tmp_path, "broken", training={"max_steps": 2}))
    resumed = train(job(tmp_path, "broken", training={"max_steps": 4}, resume=True))
    made, wanted = (
        load_file(run.adapter / "adapter_model.safetensors") for run in (resumed, whole)
    )
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in wanted.items())
    assert losses(resumed.path) == losses(whole.path)


@pytest.mark.parametrize("packing", [False, True])
def test_the_loss_is_that_of_every_token_that_something_stands_before(
    tmp_path: Path, packing: bool
) -> None:
    training = {"max_steps": 1, "per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}
    run = train(job(tmp_path, data={"packing": packing}, training=training))
    tokenizer = load_tokenizer("tiny-ax-4.0")
    model = load_model(locate.find("tiny-ax-4.0"), tokenizer, precision="fp32")
    nats = tokens = 0.0
    for line in (tmp_path / "documents.jsonl").read_text(encoding="utf-8").splitlines():
        for sample in render_row(json.loads(line), tokenizer, max_length=64):
            ids = torch.tensor([sample.input_ids])
            with torch.no_grad():
                nats += model(input_ids=ids, labels=ids).loss.item() * (ids.numel() - 1)
            tokens += ids.numel() - 1
    assert run.manifest["counts"]["samples"] == 12  # which make the one step
    assert losses(run.path)[0] == pytest.approx(nats / tokens, rel=1e-4)


def test_conversations_stand_beside_documents_and_tasks_follow_each_other(tmp_path: Path) -> None:
    chats = write_jsonl(tmp_path / "chats.jsonl", [chat(f"{n}은?", f"{n}이다.") for n in range(6)])
    both = {"train": [str(documents(tmp_path)), str(chats)], "eval": 0.3}
    first = train(job(tmp_path, "cpt", data=both))
    account = first.manifest["data"]["train"]
    assert 0 < account["labelled_tokens"] < account["tokens"]
    result, _ = evaluate(str(first.path), Settings(), SILENT)
    assert {one["file"] for one in result.data} == {"documents.jsonl", "chats.jsonl"}
    assert result.questions > 0
    assert {"documents.jsonl", "chats.jsonl"} <= {one.category for one in result.measured}

    rows = {"train": str(write_rows(tmp_path / "rows.jsonl", 8))}
    begun = {"start_from": str(first.path), "training": {"max_steps": 1}}
    second = train(recipe(tmp_path, output_dir=str(tmp_path / "sft"), data=rows, **begun))
    fresh = {"output_dir": str(tmp_path / "fresh"), "data": rows, "training": {"max_steps": 1}}
    plain = train(recipe(tmp_path, **fresh))
    assert losses(second.path) != losses(plain.path)
    third = train(job(tmp_path, "again", start_from=str(second.path), start_merged=True))
    assert third.manifest["status"] == "finished"
    with pytest.raises(AxtuneError, match="evaluate: asks nothing"):
        train(job(tmp_path, "asking", data={"eval": 0.3}, evaluate={"every": "end"}))


def test_questions_in_between_stop_where_the_served_folder_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = []
    answers = in_training.generate

    def noted(model, *further):
        stops.append(stops_of(model))
        return answers(model, *further)

    monkeypatch.setattr(in_training, "generate", noted)
    asked = {"data": str(write_rows(tmp_path / "asked.jsonl", 2)), "max_new_tokens": 2}
    train(job(tmp_path, evaluate={**asked, "every": "end"}, training={"max_steps": 1}))
    assert stops == [{27, 0}]
