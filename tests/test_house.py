"""The house: packages import downwards, the doors load nothing heavy, every module is tested."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support.rows import ROOT

HOUSE = ROOT / "axtune"
TESTS = ROOT / "tests"

# What the command line needs before it knows the job; each starts in a fraction of a second.
DOORS = (
    "errors", "units", "progress_bar", "config", "checkpoint", "documents", "privacy", "data",
    "plan", "drafting", "cli", "launch",
)  # fmt: skip
HEAVY = (
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
)


def modules(*parts: str) -> list[str]:
    """The dotted names of modules and packages, those inside of packages too."""
    files = [
        file
        for part in parts
        for file in ([HOUSE / f"{part}.py"] if (HOUSE / f"{part}.py").is_file() else [])
        + sorted((HOUSE / part).rglob("*.py"))
    ]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]


def loaded_by(*names: str) -> dict[str, list[str]]:
    """The heavy packages that importing modules brings, directly or through others.

    Args:
        names: The modules, which one process imports one after another.

    Returns:
        By module the packages that it is the first to bring; modules that bring none are left out.
    """
    code = (
        "import importlib, json, sys\nfound, before = {}, set()\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = set({HEAVY!r}) & set(sys.modules)\n"
        "    if heavy - before:\n"
        "        found[name] = sorted(heavy - before)\n"
        "    before = heavy\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that a piece of code imports, with the names taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_doors_load_nothing_heavy() -> None:
    assert loaded_by(*(name for door in DOORS for name in modules(door))) == {}


def test_the_test_of_the_doors_can_fail() -> None:
    loaded = loaded_by("axtune.errors", "axtune.weights.merge")
    assert list(loaded) == ["axtune.weights.merge"]
    assert "torch" in loaded["axtune.weights.merge"]
    assert "axtune.data.render" in modules("data")
    assert len(modules("checkpoint")) > 4


def test_packages_import_downwards() -> None:
    """The order stands in pyproject.toml, for import-linter."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout


def test_every_module_has_its_test_file() -> None:
    """``axtune/data/render.py`` is tested by ``tests/data/test_render.py``; what only whole
    commands show of ``run`` is in ``tests/end_to_end``.
    """
    untested = [
        str(module)
        for module in (file.relative_to(HOUSE) for file in sorted(HOUSE.rglob("*.py")))
        if module.stem not in ("__init__", "__main__")
        and not any(
            (TESTS / place / f"test_{module.name}").is_file()
            for place in (module.parent, "end_to_end")
        )
    ]
    assert untested == []


def test_imports_are_absolute_and_no_star() -> None:
    for file in sorted(HOUSE.rglob("*.py")):
        assert not [name for name in imports(ast.parse(file.read_text("utf-8"))) if "*" in name]


def test_public_names_are_no_modules() -> None:
    """A package's attribute of a module's name becomes the module as soon as that is imported."""
    import axtune

    assert not set(axtune.__all__) & {file.stem for file in HOUSE.iterdir()}
    assert sorted(axtune.__all__) == axtune.__all__


def test_no_file_runs_code_of_a_checkpoint() -> None:
    for file in sorted(Path(HOUSE).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is False
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("eval", "exec", "pickle.load", "torch.load")
