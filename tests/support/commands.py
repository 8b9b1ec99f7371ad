"""Commands as a user starts them, and what their runs logged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from axtune.checkpoint.run_dir import read_metrics
from support.rows import ROOT
from support.tiny import RECIPES

# What a user's shell would hold; one thread a process, so that results do not hang on the machine.
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": str(RECIPES.parent),
}


def losses(folder: Path, name: str = "loss") -> list[float]:
    return [event[name] for event in read_metrics(folder / "metrics.jsonl") if name in event]


def axtune(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does; a traceback is never an answer."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "axtune", *words],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        cwd=cwd,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"} | environment,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done
