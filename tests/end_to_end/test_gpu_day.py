"""The day a card is there, rehearsed: the same code, tiny, on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/gpu_day.py"

pytestmark = pytest.mark.slow


def spent(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--dry", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_piece_has_figures_or_says_why_it_has_none(tmp_path: Path) -> None:
    done = spent("--work", tmp_path)
    assert done.returncode == 0, done.stderr
    pieces = json.loads((tmp_path / "gpu_day.json").read_text())["pieces"]
    measured = {name for name, found in pieces.items() if "left out" not in found}
    assert {"card", "base-4.0", "qlora-4.0-16384", "plain-4.0-2048", "TRL-2048", "axtune-2048",
            "dpo", "attention-sdpa", "merge", "qlora-3.1-32768"} <= measured  # fmt: skip
    assert pieces["nf4"]["matrices of equal bits"] == 7
    assert pieces["nf4"]["of other bits"] == 0
    # In tiles or not, the same is learned; offloading changes nothing either.
    losses = {name: found["losses"] for name, found in pieces.items() if "losses" in found}
    for name in ("plain-4.0-16384", "offloaded-4.0-16384"):
        assert losses[name] == pytest.approx(losses["qlora-4.0-16384"], rel=1e-2)
    assert "| merge | seconds of train" in (tmp_path / "gpu_day.md").read_text()

    before = (tmp_path / "gpu_day.json").read_text()
    again = spent("--work", tmp_path)  # nothing is left to do
    assert again.stdout == ""
    assert (tmp_path / "gpu_day.json").read_text() == before


def test_a_day_without_time_begins_nothing(tmp_path: Path) -> None:
    done = spent("--work", tmp_path, "--minutes", -1)
    assert "goes on with card" in done.stdout
    assert not (tmp_path / "gpu_day.json").exists()


def test_an_unknown_piece_is_named(tmp_path: Path) -> None:
    done = spent("--only", "qlora")
    assert done.returncode == 2
    assert "there is no piece qlora" in done.stderr
