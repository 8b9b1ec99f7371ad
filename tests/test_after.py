"""What follows training: one launch from data to a certified checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from ruamel.yaml import YAML
from support.adapters import adapter_for, run_with, sharded_checkpoint
from support.tiny import LIBRARY_WARNINGS, recipe, write_rows

from axtune.after import finish
from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.run_dir import Run, open_run
from axtune.config.loader import load
from axtune.errors import AxtuneError
from axtune.run import train
from axtune.training.progress import Report

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


def run_of(base: Checkpoint, folder: Path, after: list[str], **keys: Any) -> Run:
    adapter = adapter_for(base, folder / "adapter")
    path = run_with(adapter, base, folder / "run")
    file = path / "recipe.yaml"
    yaml = YAML()
    values: dict[str, Any] = yaml.load(file)
    yaml.dump(values | {"after": after, **keys}, file)
    return open_run(path)


def test_nothing_follows_unless_asked(base: Checkpoint, tmp_path: Path) -> None:
    run = run_of(base, tmp_path, [])
    before = sorted(run.path.rglob("*"))
    finish(run, Report(enabled=False))
    assert sorted(run.path.rglob("*")) == before


def test_all_that_was_asked_for_is_made_and_certified(base: Checkpoint, tmp_path: Path) -> None:
    run = run_of(base, tmp_path, ["merge", "export", "verify"])
    (run.path / "vllm").mkdir()  # of an earlier end of this run, so of an older adapter
    console = Console(record=True, width=120)
    finish(run, Report(console))
    for name, kind in (("merged", "qwen2"), ("vllm", "llama")):
        config = json.loads((run.path / name / "config.json").read_text())
        assert config["model_type"] == kind
        assert json.loads((run.path / name / "certificate.json").read_text())["passed"] is True
    text = console.export_text()
    assert f"vllm serve {run.path / 'vllm'}" in text
    assert "the adapter moves the logits" in text


def test_a_step_that_fails_says_how_to_do_it_by_hand(base: Checkpoint, tmp_path: Path) -> None:
    run = run_of(base, tmp_path, ["export"])
    (run.adapter / "adapter_model.safetensors").write_bytes(b"broken")
    with pytest.raises(
        AxtuneError, match="is complete, but what should follow it failed"
    ) as caught:
        finish(run, Report(enabled=False))
    assert f"axtune export {run.path} --to vllm" in str(caught.value)
    assert not (run.path / "vllm").exists()


def test_run_and_base_are_asked_what_the_recipe_asks(base: Checkpoint, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "questions.jsonl", 4)
    asked = {"data": [str(rows)], "limit": 3, "max_new_tokens": 4}
    run = run_of(base, tmp_path, ["evaluate"], evaluate=asked)
    console = Console(record=True, width=120)
    finish(run, Report(console))
    result = json.loads((run.path / "evaluation" / "result.json").read_text())
    assert (result["questions"], result["against"]) == (3, str(base.folder))
    assert {one["metric"] for one in result["measured"]} >= {"exact", "chrf"}
    assert all(one["before"] for one in result["measured"])
    assert "before" in console.export_text()


@pytest.mark.slow
def test_one_launch_goes_from_data_to_a_certificate(tmp_path: Path) -> None:
    run = train(recipe(tmp_path, after=["export", "verify"]))
    assert json.loads((run.path / "vllm" / "certificate.json").read_text())["passed"] is True


def test_verify_alone_has_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(AxtuneError, match="after: verify needs merge or export in the list"):
        load("recipes/sft_lora.yaml", ["after=[verify]", f"output_dir={tmp_path}"])
