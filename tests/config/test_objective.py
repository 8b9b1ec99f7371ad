"""The records of tasks: what recipes, data and plans read from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from axtune.config.objective import OBJECTIVES, Objective, objective_of, register, tasks
from axtune.config.recipe import Recipe
from axtune.errors import AxtuneError

INVENTED = Objective(
    name="invented",
    learns_from="pair",
    config=("trl.trainer.dpo_config", "DPOConfig"),
    trainer="nowhere:Nobody",
)


@pytest.fixture
def invented() -> Iterator[Objective]:
    """A task that is known while a test runs."""
    register(INVENTED)
    yield INVENTED
    del OBJECTIVES[INVENTED.name]


def job(task: str) -> Recipe:
    return Recipe.model_validate(
        {"task": task, "model": "m", "output_dir": "runs/a", "data": {"train": "a.jsonl"}}
    )


def test_a_task_that_is_registered_is_one_that_recipes_know(invented: Objective) -> None:
    assert job("invented").objective is invented
    assert objective_of("invented") is invented
    assert tasks(lambda one: one.learns_from == "pair") == ["dpo", "orpo", "invented"]


def test_a_task_that_is_not_registered_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="no task invented; expected sft, cpt, dpo, kto or orpo"):
        job("invented")
    with pytest.raises(AxtuneError, match=r"no task invented.\nSet task to sft, cpt, dpo, kto or"):
        objective_of("invented")


def test_a_name_is_given_once(invented: Objective) -> None:
    register(replace(invented))  # a module that is imported again
    with pytest.raises(AxtuneError, match=r"(?s)task is named invented already.*another name"):
        register(replace(invented, learns_from="judged"))
    assert objective_of("invented") is not None
    assert objective_of("invented").learns_from == "pair"


def test_what_follows_from_the_kind_of_a_tasks_samples() -> None:
    facts = {
        name: (objective.judges, objective.accepts, objective.answers)
        for name, objective in OBJECTIVES.items()
    }
    assert facts == {
        "sft": (False, ("conversation",), 1),
        "cpt": (False, ("document", "conversation"), 1),
        "dpo": (True, ("pair",), 2),
        "kto": (True, ("judged", "pair"), 1),
        "orpo": (True, ("pair",), 2),
    }
