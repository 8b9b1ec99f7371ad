"""A recipe of one's own: a shipped one with its comments, and other values."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

from axtune.errors import AxtuneError

# In the package as it is installed, beside it in a checkout.
_PLACES = [Path(__file__).parents[up] / "recipes" for up in (1, 2)]
_LONG_LINES = 1_000_000  # ruamel.yaml would break them


def shipped(task: str, *, four_bit: bool) -> Path:
    """The shipped recipe of a task.

    Args:
        task: Its name, such as sft.
        four_bit: Whether over a base in 4 bit. Where there is no recipe of that, the other one.

    Raises:
        AxtuneError: When there is none.
    """
    for kind in ("qlora", "lora") if four_bit else ("lora",):
        for place in _PLACES:
            if (file := place / f"{task}_{kind}.yaml").is_file():
                return file
    raise AxtuneError(
        f"There is no recipe of task {task}.",
        "Write one, as docs/recipes.md says; or take another task.",
    )


def with_values(text: str, values: Mapping[str, Any]) -> str:
    """A recipe's text with other values; every comment stays.

    Args:
        text: YAML.
        values: By keys with dots between their parts; a section that is not there is made.
    """
    yaml = YAML(typ="rt")
    yaml.width = _LONG_LINES
    yaml.preserve_quotes = True
    yaml.Representer = _WrittenOut
    tree: Any = yaml.load(text)
    for path, value in values.items():
        *sections, key = path.split(".")
        section = tree
        for name in sections:
            if not isinstance(section.get(name), dict):
                section[name] = CommentedMap()
            section = section[name]
        before = section.get(key)
        if isinstance(before, CommentedSeq) and not before.fa.flow_style():
            _refill(before, value if isinstance(value, list) else [value])
        else:
            section[key] = _in_one_line(value) if isinstance(value, list) else value
    out = io.StringIO()
    yaml.dump(tree, out)
    return out.getvalue()


def _refill(items: CommentedSeq, values: list[Any]) -> None:
    """Other items for a list; what stands behind its last one stays behind it."""
    behind = items.ca.items.get(len(items) - 1)
    items.ca.items.clear()
    items[:] = values
    if behind:
        items.ca.items[len(values) - 1] = behind


def _in_one_line(values: list[Any]) -> CommentedSeq:
    made = CommentedSeq(values)
    made.fa.set_flow_style()
    return made


class _WrittenOut(RoundTripRepresenter):
    """Writes ``null`` where ruamel.yaml leaves the place empty; a class, as it keeps them there."""


_WrittenOut.add_representer(
    type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null")
)
