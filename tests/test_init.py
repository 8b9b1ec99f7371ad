"""What a notebook finds in ``axtune`` itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny import LIBRARY_WARNINGS, recipe, write_rows

import axtune
from axtune.config.loader import dump


def test_the_public_names_are_offered() -> None:
    assert set(axtune.__all__) <= set(dir(axtune))
    assert all(getattr(axtune, name) for name in axtune.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        axtune.trian  # type: ignore[attr-defined] # noqa: B018


@pytest.mark.parametrize("kind", [str, Path])
@LIBRARY_WARNINGS
def test_a_recipes_file_is_taken_with_its_lines(kind: type, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 2)
    file = tmp_path / "recipe.yaml"
    file.write_text(dump(recipe(tmp_path, training={"optim": "adamw"})), encoding="utf-8")
    line = file.read_text(encoding="utf-8").splitlines().index("  optim: adamw") + 1
    with pytest.raises(axtune.AxtuneError, match=rf"recipe\.yaml:{line}: .*there is no adamw"):
        axtune.train(kind(file))
