"""Commands as a user starts them, and what their runs logged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
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


def train_in_processes(
    count: int, recipe: Path, words: Sequence[str], **environment: str
) -> subprocess.CompletedProcess[str]:
    """Start a recipe in several processes, as torchrun does."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count),
         "--master_port", "0", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0",
         str(recipe), *words],
        env=ENVIRONMENT | environment, timeout=300, capture_output=True, text=True, check=False,
    )  # fmt: skip
