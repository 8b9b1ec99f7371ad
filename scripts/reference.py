"""The lists of docs/commands.md and docs/recipes.md, from the commands' own help and the schema.

The pages call these functions in comments that cog reads. To write the lists again after a change
of an option or a key, and to see whether they are up to date, as the tests do:

    cog -r -I scripts docs/*.md
    cog --check -I scripts docs/*.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from typer.testing import CliRunner

from axtune.cli import app
from axtune.config.recipe import Recipe

_KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true`, `false`",
    "object": "section",
    "null": "`null`",
}


def commands() -> str:
    """The help of every command under its heading, in the order of `axtune --help`."""
    return "\n\n".join(
        f"## axtune {name}\n\n```console\n$ axtune {name} --help\n{_help(name)}```"
        for name in _names()
    )


def keys() -> str:
    """A Markdown table of the recipe's keys: what they take, their default, what they do."""
    rows = [f"| `{path}` | {' | '.join(cells)} |" for path, *cells in _keys()]
    return "\n".join(["| key | takes | default | what |", "|---|---|---|---|", *rows])


def _names(group: str = "") -> Iterator[str]:
    """The commands that a group's help lists, those of its subgroups in their place."""
    _, _, listed = _help(group).partition("Commands:\n")
    for name in re.findall(r"(?m)^  (\S+)", listed):
        path = f"{group} {name}".strip()
        yield from _names(path) if "Commands:\n" in _help(path) else [path]


def _help(path: str) -> str:
    """What ``axtune PATH --help`` prints, for a terminal of 80 columns."""
    words = [*path.split(), "--help"]
    done = CliRunner().invoke(app, words, prog_name="axtune", env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.output.rstrip() + "\n"


def _keys() -> Iterator[tuple[str, str, str, str]]:
    """Path, values, default and description of every key, in the order of the schema."""
    root = Recipe.model_json_schema()

    def walk(section: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str, str]]:
        for name, schema in section["properties"].items():
            if "description" in schema:
                needed = name in section["required"]
                default = "needed" if needed else _default(schema)
                yield prefix + name, _values(schema), default, schema["description"]
            for option in schema.get("anyOf", [schema]):
                if "$ref" in option:
                    inner = root["$defs"][option["$ref"].rpartition("/")[2]]
                    yield from walk({"required": [], **inner}, f"{prefix}{name}.")

    return walk(root, "")


def _values(schema: dict[str, Any]) -> str:
    """What a key takes: its choices, or the kind of its value."""
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return ", ".join(map(_values, options))
    if "$ref" in schema:
        return "section"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if schema["type"] == "array":
        choices = _values(schema["items"])
        return f"list of {choices}" if "enum" in schema["items"] else "path, list of paths"
    return _KINDS[schema["type"]]


def _default(schema: dict[str, Any]) -> str:
    """A key's default as YAML writes it."""
    empty = {"array": [], "object": {}}.get(schema.get("type", ""))
    return f"`{json.dumps(schema.get('default', empty)).strip(chr(34))}`"
