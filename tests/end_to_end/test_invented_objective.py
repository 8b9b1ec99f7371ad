"""A task is one record: one that nobody has heard of is registered here and trained by a recipe.

It is supervised fine-tuning with a collator and a loss of its own: the later a token of the answer,
the less it counts. Nothing but this module and the recipe's file knows of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import LIBRARY_WARNINGS, write_rows
from trl import SFTTrainer

import axtune
from axtune.checkpoint.run_dir import read_metrics
from axtune.config.objective import OBJECTIVES, Objective, register
from axtune.training.trainer import RunContext, RunTrainer

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]

RECIPE = """\
task: fading
model: tiny-ax-4.0
output_dir: {folder}/run
precision: fp32
data:
  train: {folder}/rows.jsonl
  eval: 0.25
  max_length: 64
lora: {{r: 4}}
training:
  per_device_train_batch_size: 2
  per_device_eval_batch_size: 2
  learning_rate: 0.02
  max_steps: 12
  eval_strategy: steps
  eval_steps: 6
  logging_steps: 1
"""


class FadingCollator:
    """Rows padded on the right, with a weight for each token: half of that before it, from 1 on."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), width), self._pad_id)
        labels, weights = torch.full_like(ids, -100), torch.zeros(len(rows), width)
        for number, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[number, :length] = torch.tensor(row["input_ids"])
            labels[number, :length] = torch.tensor(row["labels"])
            learned = labels[number] != -100
            weights[number, learned] = 0.5 ** torch.arange(int(learned.sum())).float()
        return {
            "input_ids": ids,
            "attention_mask": (ids != self._pad_id).long(),
            "labels": labels,
            "weights": weights,
        }


class FadingTrainer(RunTrainer, SFTTrainer):
    """The loss of each answer's first tokens above all."""

    def __init__(self, run: RunContext) -> None:
        super().__init__(run, data_collator=FadingCollator(run.tokenizer.pad_id))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = dict(inputs)
        labels, weights = inputs.pop("labels")[:, 1:], inputs.pop("weights")[:, 1:]
        logits = model(**inputs).logits[:, :-1].transpose(1, 2)
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        return (loss, {}) if return_outputs else loss


@pytest.fixture
def fading() -> Iterator[Objective]:
    objective = Objective(
        name="fading",
        learns_from="conversation",
        config=("trl.trainer.sft_config", "SFTConfig"),
        trainer=f"{__name__}:FadingTrainer",
        decided={"dataset_kwargs": {"skip_prepare_dataset": True}},
    )
    register(objective)
    yield objective
    del OBJECTIVES[objective.name]


def test_a_task_that_is_registered_trains_through_a_recipe(
    tmp_path: Path, fading: Objective
) -> None:
    write_rows(tmp_path / "rows.jsonl", 12)
    file = tmp_path / "fading.yaml"
    file.write_text(RECIPE.format(folder=tmp_path), encoding="utf-8")

    run = axtune.train(axtune.load_recipe(file))

    assert run.manifest["task"] == "fading"
    assert run.manifest["status"] == "finished"
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    events = read_metrics(tmp_path / "run" / "metrics.jsonl")
    losses = [event["loss"] for event in events if "loss" in event]
    held_out = [event["eval_loss"] for event in events if "eval_loss" in event]
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 1
    assert held_out[-1] < held_out[0]


def test_what_is_refused_of_it_is_refused_as_of_any_task(tmp_path: Path, fading: Objective) -> None:
    write_rows(tmp_path / "rows.jsonl", 12)
    file = tmp_path / "fading.yaml"
    file.write_text(RECIPE.format(folder=tmp_path), encoding="utf-8")
    for word, message in {
        "preference.shared_prefix=true": "is only for dpo, kto and orpo",
        "training.learning_rat=1": "did you mean learning_rate?",
        "task=fadin": "There is no task fadin; expected sft, cpt, dpo, kto, orpo or fading.",
    }.items():
        with pytest.raises(axtune.AxtuneError, match=message.replace("?", r"\?")):
            axtune.load_recipe(file, [word])
