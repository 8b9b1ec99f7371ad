"""Recipes and lengths as the tests of the plan write them."""

from __future__ import annotations

from typing import Any

import numpy as np

from axtune.config.recipe import Recipe
from axtune.data.statistics import Sizes
from support.rows import ROOT

RECIPES = ROOT / "recipes"


def job(**changes: Any) -> Recipe:
    values = {
        "task": "sft",
        "model": "tiny-ax-4.0",
        "output_dir": "run",
        "data": {"train": "rows.jsonl", "max_length": 8192, "packing": False},
        **changes,
    }
    return Recipe.model_validate(values)


def sizes(*lengths: int, prompt: int = 0) -> Sizes:
    lengths_ = np.array(lengths, np.int64)
    answers = lengths_ - prompt
    tokens = lengths_ + (answers if prompt else 0)
    learned = answers * (2 if prompt else 1)
    return Sizes(lengths_, tokens, np.full_like(lengths_, prompt), learned)
