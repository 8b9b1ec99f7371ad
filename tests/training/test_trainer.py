"""The class that an objective names as its trainer."""

from __future__ import annotations

import ast
import inspect
from dataclasses import replace

import pytest
from support.tiny import LIBRARY_WARNINGS
from transformers import Trainer
from transformers import trainer as trainer_module

from axtune.config.objective import OBJECTIVES, objective_of
from axtune.errors import AxtuneError
from axtune.training.trainer import RunTrainer, trainer_class

pytestmark = LIBRARY_WARNINGS


@pytest.mark.parametrize("task", OBJECTIVES)
def test_one_class_stands_between_a_task_and_trl(task: str) -> None:
    """What a run adds and what TRL does can be read in two places, whatever the task."""
    ours = [
        kind for kind in trainer_class(objective_of(task)).__mro__ if "axtune" in kind.__module__
    ]
    assert len(ours) == 2
    assert ours[1] is RunTrainer


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ("nowhere.at_all:Trainer", "cannot be found: nowhere.at_all:Trainer"),
        ("axtune.nowhere:Trainer", "cannot be found"),
        ("axtune.training.sft:Nobody", "cannot be found"),
        ("axtune.training.sft", "cannot be found"),
        ("trl:SFTTrainer", "is no RunTrainer"),
        ("math:pi", "is no RunTrainer"),
    ],
)
def test_a_trainer_that_is_none_is_refused(trainer: str, message: str) -> None:
    with pytest.raises(AxtuneError, match=f"The trainer of task sft {message}"):
        trainer_class(replace(objective_of("sft"), trainer=trainer))


def test_a_package_that_a_trainers_module_lacks_is_named(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lacking_a_package.py").write_text("import not_installed\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed"):
        trainer_class(replace(objective_of("sft"), trainer="lacking_a_package:Trainer"))


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_get_output_dir", ["trial"]),
        ("_save_checkpoint", ["model", "trial"]),
        ("_save", ["output_dir", "state_dict"]),
        ("_save_optimizer_and_scheduler", ["output_dir"]),
        ("_save_scaler", ["output_dir"]),
        ("_save_rng_state", ["output_dir"]),
        ("_load_from_checkpoint", ["resume_from_checkpoint", "model"]),
        ("_load_optimizer_and_scheduler", ["checkpoint"]),
        ("_load_scaler", ["checkpoint"]),
        ("_load_rng_state", ["checkpoint"]),
        ("_load_best_model", []),
        (
            "_run_epoch",
            [
                "model",
                "epoch",
                "train_dataloader",
                "steps_in_epoch",
                "num_update_steps_per_epoch",
                "trial",
                "ignore_keys_for_eval",
                "start_time",
                "resume_from_checkpoint",
                "epochs_trained",
                "steps_trained_in_current_epoch",
            ],
        ),
    ],
)
def test_a_private_method_of_transformers_is_still_what_it_was(
    method: str, parameters: list[str]
) -> None:
    assert list(inspect.signature(getattr(Trainer, method)).parameters)[1:] == parameters


def test_transformers_pickles_and_unpickles_nowhere_else() -> None:
    """Each ``torch.save`` and ``torch.load`` of its trainer is in a method that is replaced."""
    own = {name for name in vars(RunTrainer) if callable(getattr(RunTrainer, name))}
    # Weights in pickle files, where there are none in safetensors; a run writes none, and goes on
    # from recorded folders alone. Uploads, hyperparameter searches and TPUs there are not.
    others = {"_load_from_checkpoint", "_load_best_model", "_push_from_checkpoint",
              "_tune_save_checkpoint", "_save_tpu"}  # fmt: skip
    found = {
        method.name
        for kind in ast.parse(inspect.getsource(trainer_module)).body
        if isinstance(kind, ast.ClassDef)
        for method in kind.body
        if isinstance(method, ast.FunctionDef)
        and any(word in ast.unparse(method) for word in ("torch.save(", "torch.load("))
    }
    assert found - own - others == set()
    assert found & own  # it still looks like that
