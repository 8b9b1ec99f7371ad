"""The card of an adapter: its example runs as it stands."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from ruamel.yaml import YAML
from support.adapters import adapter_for
from support.reported import result
from support.tiny import LIBRARY_WARNINGS, recipe

from axtune.checkpoint import locate
from axtune.checkpoint.model_card import add_evaluation, facts, model_card
from axtune.checkpoint.run_dir import EVALUATION, Run, describe
from axtune.errors import CheckpointError
from axtune.evaluate.results import RESULT

pytestmark = LIBRARY_WARNINGS


def run_of(folder: Path, model: str = "tiny-ax-4.0", **more: Any) -> Run:
    """A finished run as it is when its card is written."""
    job = recipe(folder, model=model, lora={"r": 8, "lora_alpha": 16})
    counts = {"samples": 3, "tokens": 300, "labelled_tokens": 40, "trainable_parameters": 1234}
    made = describe(job, locate.find(model), {"counts": counts})
    made |= {
        "metrics": {"first_loss": 2.0, "last_loss": 0.5, "best_eval_loss": 1.0, "best_step": 1}
    }
    return Run(folder / "runs" / "a", folder / "runs" / "a" / "adapter", job, made | more)


def head_of(card: str) -> dict[str, Any]:
    head: dict[str, Any] = YAML(typ="safe").load(card.split("---")[1])
    return head


def test_it_says_what_was_trained_on_what(tmp_path: Path) -> None:
    card = model_card(run_of(tmp_path, data={"train": {"rows_refused": 2}}))
    assert "# LoRA adapter for tiny-ax-4.0" in card
    assert "| data | 3 samples; 300 tokens; 40 labelled tokens; 2 rows refused |" in card
    assert "| adapter | LoRA, r 8, lora_alpha 16, 1,234 trained parameters |" in card
    assert "| loss | 2.0000 → 0.5000 |" in card
    assert "| eval loss | 1.0000 at step 1 |" in card
    assert "learning_rate 0.005" in card
    assert "rows.jsonl" not in card


def test_only_a_model_of_the_hub_is_linked_as_its_base(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    assert head_of(model_card(run)) == {
        "library_name": "peft",
        "tags": ["axtune", "lora", "sft"],
        "pipeline_tag": "text-generation",
    }
    run.manifest["base"] |= {"name": "skt/A.X-4.0-Light", "commit": "0" * 40}
    assert head_of(model_card(run))["base_model"] == "skt/A.X-4.0-Light"


def test_an_evaluation_is_in_the_form_of_the_hub(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    result(str(run.path)).write(evaluation_folder(run))
    card = model_card(run)
    assert "149 questions of test.jsonl" in card
    row = "| all | accuracy | 149 | 0.7 (0.62 to 0.77) | 0.2 (0.1 to 0.3) | 0.5 (0.4 to 0.6) |"
    assert f"{row} better |" in card
    accuracy, chrf = ModelCard(card).data.eval_results
    assert (accuracy.metric_type, accuracy.metric_value, accuracy.dataset_name) == (
        "accuracy", 0.7, "test.jsonl"
    )  # fmt: skip
    assert accuracy.metric_args == {"n": 149, "interval_95": [0.62, 0.77], "before": 0.2}
    assert chrf.dataset_config == "text"


def test_of_how_many_conversations_an_evaluation_is_stands_in_the_card(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    found = result(str(run.path))
    first, *others = found.measured
    found.measured[:] = [dataclasses.replace(first, clusters=40), *others]
    found.write(evaluation_folder(run))
    card = model_card(run)
    assert "95% intervals; n of how many conversations, which they go by." in card
    assert "| all | accuracy | 149 of 40 | 0.7" in card
    assert "| text | chrf | 20 | 31" in card
    assert ModelCard(card).data.eval_results[0].metric_args["clusters"] == 40


def test_an_evaluation_comes_into_a_card_that_somebody_has_written_into(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    run.adapter.mkdir(parents=True)
    file = run.adapter / "README.md"
    own = "\n## Ours\n\nFor the warehouse.\n"
    file.write_text(model_card(run).replace("tags:\n", "tags:\n- ours\n") + own, encoding="utf-8")
    add_evaluation(run)
    assert "## Evaluation" not in file.read_text(encoding="utf-8")
    for questions in (7, 149):
        found = dataclasses.replace(result(str(run.path)), questions=questions)
        found.write(evaluation_folder(run))
        add_evaluation(run)
    card = file.read_text(encoding="utf-8")
    assert card.count("## Evaluation") == 1
    assert "149 questions" in card
    assert card.endswith(own)
    assert head_of(card)["tags"] == ["ours", "axtune", "lora", "sft"]
    assert len(ModelCard(card).data.eval_results) == 2


def test_the_figures_of_several_adapters_are_not_those_of_one(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    result(str(run.path)).write(evaluation_folder(run))
    assert "## Evaluation" in facts([run])
    assert "## Evaluation" not in facts([run, run])
    assert facts([run, run]).count("## Training") == 2
    checkpoint = dataclasses.replace(run, adapter=run.path / "checkpoints" / "checkpoint-2")
    assert "## Evaluation" not in facts([checkpoint])


def test_a_result_that_is_none_is_named(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    (evaluation_folder(run) / RESULT).write_text('{"questions": "many"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"result\.json is no result"):
        model_card(run)


def evaluation_folder(run: Run) -> Path:
    folder = run.path / EVALUATION
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embedded", "folder"])
def test_its_example_runs_as_it_stands(tmp_path: Path, kind: str) -> None:
    model = "tiny-ax-4.0"
    if kind == "folder":
        shutil.copytree(locate.find(model).folder, tmp_path / "models" / "우리 모델")
        model = "models/우리 모델"
    place = "" if kind == "embedded" else str(tmp_path) + "/"
    card = model_card(run_of(tmp_path, place + model))
    adapter_for(locate.find(place + model), tmp_path / "runs" / "a" / "adapter")
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = f"{example}print(type(model).__name__)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.startswith("PeftModel")
