"""The text of a small recipe, changed by tests, and its faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from axtune.config.loader import load
from axtune.config.recipe import Recipe
from axtune.errors import RecipeError

PLAIN = """\
task: sft
model: tiny-ax-4.0
output_dir: runs/a
seed: 7
data:
  train: data/상담.jsonl
  eval: 0.1
  max_length: 2048
lora:
  r: 8
training:
  learning_rate: 2e-4
"""


def read(folder: Path, text: str | bytes, *overrides: str) -> Recipe:
    """Load a recipe whose data nobody has written."""
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path, overrides, check_paths=False)


def faults_of(folder: Path, text: str | bytes, *overrides: str) -> list[tuple[str, int, str]]:
    """Each fault's place and code; the file's own name is shortened to its last part."""
    with pytest.raises(RecipeError) as caught:
        read(folder, text, *overrides)
    return [(Path(f.file).name, f.line, f.code) for f in caught.value.faults]


def swap(old: str, new: str) -> str:
    assert PLAIN.count(old) == 1
    return PLAIN.replace(old, new)
