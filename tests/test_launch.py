"""The door of a recipe that is started as a script."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from support.rows import ROOT
from support.tiny import write_rows

from axtune.checkpoint.run_dir import open_run

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


@pytest.mark.slow
def test_where_the_launcher_alone_is_killed_the_run_stops_with_a_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu"]
    rows = write_rows(tmp_path / "rows.jsonl", 8)
    words = [
        RECIPE, "model=tiny-ax-4.0", f"data.train={rows}", "data.eval=null", "data.packing=false",
        f"output_dir={tmp_path / 'run'}", "training.max_steps=9999",
        "training.gradient_accumulation_steps=1",
    ]  # fmt: skip
    with subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),  # not under nohup
    ) as launcher:  # fmt: skip
        assert launcher.stdout is not None
        assert any(line.startswith("step 1/") for line in launcher.stdout)
        launcher.terminate()
        said = launcher.stdout.read()  # until the last one that can write there has ended
    assert "Stopping after this step, with a checkpoint." in said
    assert said.rstrip().endswith("axtune: stopped by SIGHUP.")
    assert open_run(tmp_path / "run").manifest["status"] == "interrupted"
