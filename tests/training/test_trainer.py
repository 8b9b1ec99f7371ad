"""The class that an objective names as its trainer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.tiny import LIBRARY_WARNINGS

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
