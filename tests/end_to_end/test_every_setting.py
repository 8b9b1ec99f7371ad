"""Every name of a setting that the installed libraries know: a run of two steps learns with it, or
it is refused in a sentence, with its key, before the data is looked at.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.tiny import LIBRARY_WARNINGS, recipe
from transformers import SchedulerType
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy
from transformers.training_args import OptimizerNames

import axtune.run
from axtune.config.loader import dump, load, located
from axtune.config.objective import OBJECTIVES, objective_of
from axtune.errors import RecipeError
from axtune.run import train
from axtune.training.trainer import trainer_class
from axtune.training.trl_private import is_trl, loss_names

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]

SCHEDULE_OPTIONS = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 1},
}


def loss_settings(key: str) -> list[tuple[str, str]]:
    """Each task with each name that its TRL trainer knows for a key."""
    settings = []
    for task in OBJECTIVES:
        trl_trainer = next(one for one in trainer_class(objective_of(task)).__mro__ if is_trl(one))
        settings += [(task, name) for name in loss_names(trl_trainer, key)]
    return settings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Rows for every kind of task."""
    folder = tmp_path_factory.mktemp("data")
    chats, pairs = folder / "chats.jsonl", folder / "pairs.jsonl"
    with chats.open("w", encoding="utf-8") as chat, pairs.open("w", encoding="utf-8") as pair:
        for number in range(6):
            asked = [{"role": "user", "content": f"비밀 {number}번은?"}]
            right = [{"role": "assistant", "content": f"{number} 입니다."}]
            wrong = [{"role": "assistant", "content": "모릅니다."}]
            chat.write(json.dumps({"messages": asked + right}) + "\n")
            pair.write(json.dumps({"prompt": asked, "chosen": right, "rejected": wrong}) + "\n")
    texts = folder / "texts.jsonl"
    texts.write_text("".join(f'{{"text": "제{n}조 규정."}}\n' for n in range(6)), encoding="utf-8")
    return {
        "document": str(texts), "conversation": str(chats), "pair": str(pairs),
        "judged": str(pairs),
    }  # fmt: skip


class Jobs:
    """Runs of two steps, each from a recipe's file with overrides."""

    def __init__(self, folder: Path, data: dict[str, str]) -> None:
        self.folder = folder
        self.data = data
        self.prepared = 0

    def outcome(self, *overrides: str, task: str = "sft", **changes: Any) -> RecipeError | None:
        """What refused the run, or None when it has learned something."""
        job = recipe(
            self.folder,
            task=task,
            training={"max_steps": 2, "gradient_accumulation_steps": 1},
            data={"train": self.data[objective_of(task).learns_from], **changes.pop("data", {})},
            lora={"r": 4, "target_modules": ["q_proj"]},
            **changes,
        )
        file = self.folder / "recipe.yaml"
        file.write_text(dump(job), encoding="utf-8")
        self.prepared = 0
        try:
            with located(file, overrides):
                run = train(load(file, overrides))
        except RecipeError as error:
            assert self.prepared == 0, "refused only after the data had been prepared"
            return error
        assert run.manifest["counts"]["steps"] == 2
        weights = load_file(run.adapter / "adapter_model.safetensors")
        moved = [float(value.abs().max()) for key, value in weights.items() if "lora_B" in key]
        assert all(math.isfinite(size) for size in moved)
        assert max(moved) > 0
        return None


@pytest.fixture
def jobs(tmp_path: Path, data: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Jobs:
    made, prepare = Jobs(tmp_path, data), axtune.run.prepare

    def counted(*args: Any, **kwargs: Any) -> Any:
        made.prepared += 1
        return prepare(*args, **kwargs)

    monkeypatch.setattr(axtune.run, "prepare", counted)
    monkeypatch.setattr(axtune.run, "write_report", lambda *_: None)  # a tenth of so short a run
    return made


def said(error: RecipeError | None, override: str, key: str) -> None:
    """The sentence stands at the override, or names the key that is lacking."""
    assert error is not None
    (fault,) = error.faults
    assert fault.file == override or fault.line > 0
    assert fault.message.startswith(key)
    assert len(fault.message.splitlines()) == 1


@pytest.mark.parametrize("name", [kind.value for kind in SchedulerType])
def test_schedules(name: str, jobs: Jobs) -> None:
    override = f"training.lr_scheduler_type={name}"
    options = SCHEDULE_OPTIONS.get(name)
    further = [f"training.lr_scheduler_kwargs={json.dumps(options)}"] if options else []
    warmup = ["training.warmup_steps=0.1"]
    if options:
        said(jobs.outcome(override), override, "training.lr_scheduler_type: ")
    if name in ("reduce_lr_on_plateau", "greedy"):
        said(jobs.outcome(override), override, "training.lr_scheduler_type: ")
        further.append("data.eval=0.4")
    assert jobs.outcome(override, *warmup, *further) is None


@pytest.mark.parametrize("name", [kind.value for kind in OptimizerNames])
def test_optimisers(name: str, jobs: Jobs) -> None:
    override = f"training.optim={name}"
    error = jobs.outcome(override)
    of_torch = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")
    if error:
        assert name not in of_torch
        said(error, override, "training.optim: ")


@pytest.mark.parametrize("name", [kind.value for kind in IntervalStrategy])
def test_strategies_of_evaluating_and_logging(name: str, jobs: Jobs) -> None:
    logging, evaluating = f"training.logging_strategy={name}", f"training.eval_strategy={name}"
    assert jobs.outcome(logging) is None
    error = jobs.outcome(evaluating, "data.eval=0.4", f"output_dir={jobs.folder / 'second'}")
    if name == "no":
        said(error, evaluating, "training.eval_strategy: ")
    else:
        assert error is None


@pytest.mark.parametrize("name", [kind.value for kind in SaveStrategy])
def test_strategies_of_saving_are_not_the_users(name: str, jobs: Jobs) -> None:
    override = f"training.save_strategy={name}"
    said(jobs.outcome(override), override, "training.save_strategy: ")


@pytest.mark.parametrize("name", [kind.value for kind in HubStrategy])
def test_strategies_of_pushing(name: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axtune.training.arguments.is_offline_mode", lambda: True)
    override = f"training.hub_strategy={name}"
    said(jobs.outcome(override), override, "training.hub_strategy: needs training.push_to_hub")
    error = jobs.outcome(override, "training.push_to_hub=true")
    said(error, "training.push_to_hub=true", "training.push_to_hub: the Hub cannot be reached")


@pytest.mark.parametrize("name", [*INTEGRATION_TO_CALLBACK, "nope"])
def test_trackers(name: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is there, or none is when a user lacks its package."""
    monkeypatch.setattr(
        "axtune.training.arguments.get_available_reporting_integrations", lambda: []
    )
    override = f"training.report_to={name}"
    said(jobs.outcome(override), override, "training.report_to: ")


@pytest.mark.parametrize("name", ["random", "sequential", "group_by_length"])
def test_orders_of_samples(name: str, jobs: Jobs) -> None:
    assert jobs.outcome(f"training.train_sampling_strategy={name}") is None


@pytest.mark.parametrize(("task", "name"), loss_settings("loss_type"))
def test_losses(task: str, name: str, jobs: Jobs) -> None:
    override = f"training.loss_type={name}"
    smoothed = ["training.label_smoothing=0.001"] if name == "exo_pair" else []
    if smoothed:
        said(jobs.outcome(override, task=task), override, "training.loss_type: exo_pair needs")
    assert jobs.outcome(override, *smoothed, task=task) is None


@pytest.mark.parametrize(("task", "name"), loss_settings("f_divergence_type"))
def test_divergences(task: str, name: str, jobs: Jobs) -> None:
    assert jobs.outcome(f"training.f_divergence_type={name}", task=task) is None
