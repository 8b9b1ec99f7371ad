"""Recipes made of shipped ones: other values, the same comments."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from axtune.config.loader import load
from axtune.config.new_recipe import shipped, with_values
from axtune.config.recipe_file import as_yaml
from axtune.errors import AxtuneError


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize("task", ["sft", "dpo", "kto", "orpo", "cpt"])
@pytest.mark.parametrize("four_bit", [False, True])
def test_other_values_and_the_same_comments(tmp_path: Path, task: str, four_bit: bool) -> None:
    text = shipped(task, four_bit=four_bit).read_text(encoding="utf-8")
    values = {"model": "tiny-ax-4.0", "data.train": "한글 경로/rows.jsonl", "data.eval": None,
              "after": ["merge", "verify"], "training.optim": "paged_adamw_8bit"}  # fmt: skip
    made = with_values(text, values)
    assert comments(made) == comments(text)
    assert made.splitlines()[0] == text.splitlines()[0]  # accelerate launch takes it, too
    (tmp_path / "made.yaml").write_text(made, encoding="utf-8")
    recipe = load(tmp_path / "made.yaml", check_paths=False)
    assert (recipe.task, recipe.model, recipe.data.eval) == (task, "tiny-ax-4.0", None)
    assert [source.path for source in recipe.data.sources] == ["한글 경로/rows.jsonl"]
    assert recipe.after == ["merge", "verify"]
    assert recipe.training["optim"] == "paged_adamw_8bit"


def test_a_section_that_is_not_there_is_made() -> None:
    assert with_values("task: sft # t\n", {"a.b.c": 1}) == "task: sft # t\na:\n  b:\n    c: 1\n"


def test_null_stays_written_out() -> None:
    elsewhere = as_yaml({"a": None})
    assert with_values("a: null # none\nb: 1\n", {"b": None}) == "a: null # none\nb: null\n"
    assert as_yaml({"a": None}) == elsewhere  # what other files look like is not touched


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=40))
def test_any_path_comes_back(path: str) -> None:
    made = with_values("data:\n  train: x # rows\n", {"data.train": path})
    assert with_values(made, {}) == made
    assert YAML(typ="safe").load(made) == {"data": {"train": path}}


def test_a_task_without_a_recipe() -> None:
    with pytest.raises(AxtuneError, match="no recipe of task rlhf"):
        shipped("rlhf", four_bit=True)
    assert shipped("orpo", four_bit=True).name == "orpo_lora.yaml"  # there is no other
