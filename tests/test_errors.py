"""A fault is one line that a user can follow to its place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.rows import ROOT

from axtune.errors import AxtuneError, DataError, Fault


def test_fault_is_file_line_code_message() -> None:
    assert str(Fault("a.jsonl", 3, "bad-role", "무엇이 틀렸는지.")) == (
        "a.jsonl:3: bad-role: 무엇이 틀렸는지."
    )
    assert str(Fault("a.jsonl", 0, "nfd", "x.", "warning")) == "a.jsonl: warning: nfd: x."


def test_every_fault_stands_in_the_message() -> None:
    faults = [Fault("a.jsonl", n, "not-json", "broken.") for n in (2, 9)]
    with pytest.raises(AxtuneError) as caught:
        raise DataError("2 of 9 rows cannot be trained on.", faults, "Fix them.")
    assert str(caught.value).splitlines() == [
        "2 of 9 rows cannot be trained on.",
        "a.jsonl:2: not-json: broken.",
        "a.jsonl:9: not-json: broken.",
        "Fix them.",
    ]
    assert caught.value.remedy == "Fix them."


# Where an error's remedy stands among its arguments; a class with faults needs one only without
# any, for each fault's message says what was expected.
REMEDY_AT = {
    "AxtuneError": 1,
    "CheckpointError": 1,
    "MissingPackageError": 1,
    "DataError": 2,
    "RecipeError": 2,
}


def errors_of(file: Path) -> Iterator[ast.Call]:
    """Every place of a module that makes one of axtune's errors."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in REMEDY_AT:
            yield node


def ends(node: ast.expr) -> set[str]:
    """The last characters that a text may have; none for what is only known when it happens."""
    if isinstance(node, ast.Constant):
        return {str(node.value)[-1:]}
    if isinstance(node, ast.JoinedStr):
        return ends(node.values[-1])
    if isinstance(node, ast.BinOp):
        return ends(node.right)
    if isinstance(node, ast.IfExp):
        return ends(node.body) | ends(node.orelse)
    return set()


def complaint(call: ast.Call) -> str:
    """What an error lacks, if anything."""
    at = REMEDY_AT[getattr(call.func, "id", "")]
    listed = at == 2 and not (isinstance(call.args[1], ast.List) and not call.args[1].elts)
    texts = [call.args[0], *call.args[at : at + 1]]
    if len(call.args) <= at and not listed:
        return "no remedy"
    return "" if all(ends(text) <= set(".?!…") for text in texts) else "not a sentence"


def test_every_error_is_a_sentence_with_a_remedy() -> None:
    rooms = ROOT / "axtune"
    files = sorted(rooms.rglob("*.py"))
    found = [(f"{file.name}:{call.lineno}", call) for file in files for call in errors_of(file)]
    assert len(found) > 60
    assert [f"{place}: {wrong}" for place, call in found if (wrong := complaint(call))] == []


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ('AxtuneError("a.")', "no remedy"),
        ('AxtuneError("a.", "")', "not a sentence"),
        ('AxtuneError("a", "b.")', "not a sentence"),
        ('AxtuneError("a.", f"b {c}.")', ""),
        ('AxtuneError(f"a: {b}", "c." if d else f"{e}.")', ""),
        ('DataError("a.", [])', "no remedy"),
        ('DataError("a.", faults)', ""),
    ],
)
def test_an_error_without_a_remedy_is_noticed(code: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(code, encoding="utf-8")
    assert [complaint(call) for call in errors_of(tmp_path / "a.py")] == [wrong]
