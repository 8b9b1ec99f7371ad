"""The house: each room imports only from rooms above it, and light rooms stay light."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

# From the ground up. A new room goes in where its imports allow.
ROOMS = (
    "errors",
    "passthrough",
    "recipe",
    "catalog",
    "original",
    "architecture",
    "memory",
    "cards",
    "tokenizer",
    "hermes",
    "shapes",
    "conversation",
    "rows",
    "checks",
    "render",
    "account",
    "bins",
    "readers",
    "sources",
    "audit",
    "batches",
    "plan",
    "edits",
    "request",
    "serving",
    "dataset",
    "offload",
    "model",
    "adapter",
    "rundir",
    "certificate",
    "report",
    "forecast",
    "start",
    "trainer",
    "head",
    "packing",
    "sft",
    "prefix",
    "collate",
    "reference",
    "preference",
    "directio",
    "weights",
    "rewrite",
    "delta",
    "fourbit",
    "layerwise",
    "staging",
    "merge",
    "quantize",
    "modelfile",
    "gguf_file",
    "export",
    "doctor",
    "verify",
    "finish",
    "run",
    "chat",
    "preview",
    "cli",
    "launch",
    "__main__",
)
# Rooms of training and merging, which may import torch; all others work without it.
MAY_IMPORT_TORCH = {
    "offload",
    "model",
    "adapter",
    "rundir",
    "report",
    "start",
    "trainer",
    "head",
    "packing",
    "sft",
    "prefix",
    "collate",
    "reference",
    "preference",
    "run",
    "chat",
    "directio",
    "weights",
    "rewrite",
    "delta",
    "fourbit",
    "staging",
    "merge",
    "quantize",
    "gguf_file",
    "export",
    "layerwise",
    "doctor",
    "verify",
    "finish",
    "certificate",
}
LIGHT = set(ROOMS) - MAY_IMPORT_TORCH
HEAVY = {
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "bitsandbytes",
    "matplotlib",
    "pyarrow",
    "huggingface_hub",
}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that a piece of code imports, with the names taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def below(room: str, source: str) -> list[str]:
    """The rooms that a room imports though they do not lie above it."""
    taken = {
        name.split(".")[1] for name in imports(ast.parse(source)) if name.startswith("axtune.")
    }
    return sorted(name for name in taken & set(ROOMS) if ROOMS.index(name) >= ROOMS.index(room))


def heavy_at_once(source: str) -> list[str]:
    """The heavy packages that are loaded as soon as a module is imported."""
    taken: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        taken |= {name.split(".")[0] for name in imports(node)}
    return sorted(taken & HEAVY)


def source_of(room: str) -> str:
    return (ROOT / "axtune" / f"{room}.py").read_text(encoding="utf-8")


def test_every_room_is_in_the_list() -> None:
    found = {file.stem for file in (ROOT / "axtune").glob("*.py")} - {"__init__"}
    assert found == set(ROOMS)
    assert set(ROOMS) >= LIGHT


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_above_only(room: str) -> None:
    assert below(room, source_of(room)) == []


@pytest.mark.parametrize("room", sorted(LIGHT))
def test_light_rooms(room: str) -> None:
    assert heavy_at_once(source_of(room)) == []


def test_these_tests_can_fail() -> None:
    assert below("hermes", "from axtune.render import pieces") == ["render"]
    assert below("hermes", "def f():\n    import axtune.hermes") == ["hermes"]
    assert below("render", "from axtune import cli, errors") == ["cli"]
    assert below("render", "from axtune.hermes import CALL_BLOCK") == []
    assert heavy_at_once("import torch.nn\nfrom datasets import Dataset") == ["datasets", "torch"]
    assert heavy_at_once("try:\n    import peft\nexcept ImportError: ...") == ["peft"]
    assert heavy_at_once("def f():\n    import torch") == []


def test_public_names_are_no_rooms() -> None:
    """A package's attribute of a room's name becomes the room as soon as that is imported."""
    import axtune

    assert not set(axtune.__all__) & set(ROOMS)
    assert sorted(axtune.__all__) == axtune.__all__


def test_no_file_runs_code_of_a_checkpoint() -> None:
    for file in sorted(Path(ROOT / "axtune").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is False
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("eval", "exec", "pickle.load", "torch.load")
