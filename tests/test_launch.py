"""The door of a recipe that is started as a script."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from support.rows import ROOT

RECIPE = str(ROOT / "recipes" / "sft_lora.yaml")


def test_the_arguments_behind_a_recipe_are_its_overrides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `accelerate launch recipes/sft_lora.yaml …` runs it: as Python, by its first line."""
    monkeypatch.setattr(sys, "argv", [RECIPE, "lora.rr=3", "sead=1"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(RECIPE, run_name="__main__")
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert "lora.rr" in said
    assert "did you mean seed?" in said


def test_a_recipe_that_is_imported_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [RECIPE, "no-override"])
    assert "main" not in runpy.run_path(RECIPE, run_name="recipe")


def test_a_file_that_is_no_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from axtune.launch import main

    monkeypatch.setattr(sys, "argv", ["none.yaml"])
    with pytest.raises(SystemExit) as caught:
        main(str(tmp_path / "none.yaml"))
    assert caught.value.code == 1
    assert "none.yaml" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_traceback_of_accelerate_is_said_to_be_its_own(tmp_path: Path, quiet: list[str]) -> None:
    """accelerate raises for every status but 0; no process that it starts can keep it from that."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *quiet]
    done = subprocess.run(
        [*command, "--cpu", RECIPE, "sead=1"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    ours, said, theirs = done.stderr.partition("The traceback below is accelerate's")
    assert "did you mean seed?" in ours
    assert bool(said) == ("CalledProcessError" in theirs) == (not quiet)
