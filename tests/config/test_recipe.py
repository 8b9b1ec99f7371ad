"""The schema of a recipe: what may be written short, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from axtune.config.objective import OBJECTIVES
from axtune.config.recipe import (
    PreferenceConfig,
    Recipe,
    Source,
    best_figure,
    evaluate_of,
    preference_of,
)


def recipe(**changes: Any) -> Recipe:
    values = {"task": "sft", "model": "m", "output_dir": "r", "data": {"train": "a.jsonl"}}
    return Recipe.model_validate(values | changes)


@pytest.mark.parametrize(
    "train",
    ["a.jsonl", ["a.jsonl"], {"path": "a.jsonl"}, [{"path": "a.jsonl", "weight": 1}]],
    ids=str,
)
def test_one_source_may_be_written_in_four_ways(train: Any) -> None:
    assert recipe(data={"train": train}).data.train == [Source(path="a.jsonl")]


@pytest.mark.parametrize(
    ("held_out", "wanted"),
    [
        (None, None),
        (0.05, 0.05),
        ("b.jsonl", [Source(path="b.jsonl", split="auto")]),
        (["b.jsonl", {"path": "c.jsonl", "weight": 2}],
         [Source(path="b.jsonl", split="auto"), Source(path="c.jsonl", weight=2, split="auto")]),
    ],
)  # fmt: skip
def test_held_out_rows_are_a_fraction_or_files(held_out: Any, wanted: Any) -> None:
    assert recipe(data={"train": "a.jsonl", "eval": held_out}).data.eval == wanted


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"data": {"train": "a", "eval": 1}}, ("data", "eval", "fraction")),
        ({"data": {"train": "a", "eval": {"weight": 2}}}, ("data", "eval", "files", 0, "path")),
        ({"data": {"train": []}}, ("data", "train")),
        (
            {"data": {"train": {"path": "a", "weight": float("nan")}}},
            ("data", "train", 0, "weight"),
        ),
        ({"data": {"train": "a", "max_length": 8}}, ("data", "max_length")),
        ({"seed": -1}, ("seed",)),
        ({"offload": ["optimizer"]}, ("offload", 0)),
        ({"after": ["merge", "publish"]}, ("after", 1)),
        ({"early_stopping_patience": 0}, ("early_stopping_patience",)),
        ({"evaluate": {"every": 0}}, ("evaluate", "every")),
        ({"evaluate": {"limit": 0}}, ("evaluate", "limit")),
        ({"evaluate": {"best": "loss"}}, ("evaluate", "best")),
        ({"sead": 1}, ("sead",)),
    ],
    ids=str,
)
def test_a_wrong_value_is_one_fault_at_its_place(
    changes: dict[str, Any], place: tuple[str | int, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        recipe(**changes)
    assert [error["loc"] for error in caught.value.errors()] == [place]


def test_what_a_silent_recipe_does() -> None:
    silent = recipe()
    assert silent.objective is OBJECTIVES["sft"]
    assert (silent.resume, silent.plan, silent.offload, silent.after) == (False, "refuse", [], [])
    assert (silent.data.control_tokens, silent.data.on_error) == ("refuse", "stop")
    assert preference_of(silent) == PreferenceConfig()
    own = recipe(task="dpo", preference={"shared_prefix": False})
    assert not preference_of(own).shared_prefix


def test_a_recipe_does_not_change_while_it_runs() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        recipe().seed = 3


def test_what_evaluate_says_where_it_is_silent() -> None:
    silent = evaluate_of(recipe(evaluate={}))
    assert silent == evaluate_of(recipe())
    assert (silent.every, silent.limit, silent.best) == ("epoch", 100, None)
    given = recipe(evaluate={"data": "a.jsonl", "every": 5, "limit": None, "best": "chrf"})
    assert evaluate_of(given).data == ["a.jsonl"]
    assert best_figure(given) == "chrf"
    assert best_figure(recipe()) is None
