"""Commands as a user starts them, and what their runs logged."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from axtune.checkpoint.run_dir import read_metrics
from axtune.cli import main
from support.forked import Forked
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


@dataclass(frozen=True)
class Answer:
    """What a command said.

    Attributes:
        status: Its exit status.
        out: Standard output.
        err: Standard error.
    """

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Both together."""
        return self.out + self.err


def axtune_forked(*words: str, cwd: Path = ROOT, **environment: str) -> Answer:
    """A command in a process of its own that needs no time to start."""
    further = {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    answer = forked(
        "support.commands:strictly", words, cwd=cwd,
        environment=os.environ | further | environment,
    )  # fmt: skip
    assert "Traceback" not in answer.err, answer.err
    return answer


def strictly(words: Sequence[str]) -> None:
    """A command whose warnings are errors."""
    warnings.simplefilter("error")
    main(words)


def axtune_in_process(*words: str, seconds: int = 120) -> Answer:
    """A command in this process, with a "y" on standard input for whoever asks.

    Anything but an answer is raised: it would be a traceback. So is a command that takes too long.
    """

    def too_long(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{words} hangs")

    out, err, status = io.StringIO(), io.StringIO(), 0
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    stdin, sys.stdin = sys.stdin, io.StringIO("y\n" * 20)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main(words)
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdin = stdin
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return Answer(status, out.getvalue(), err.getvalue())


def train_in_processes(
    count: int, recipe: Path, words: Sequence[str], *, loaded: bool = True, **environment: str
) -> Answer:
    """Start a recipe in several processes with torchrun.

    Args:
        count: Of processes.
        recipe: Its file.
        words: Overrides.
        loaded: Fork the processes; else they start as a user's do.
        environment: Variables.
    """
    what = ["-m", "support.worker", "train", str(recipe)] if loaded else [str(recipe)]
    options = ["--nproc_per_node", str(count), "--master_port", "0", "--rdzv_backend", "c10d",
               "--rdzv_endpoint", "localhost:0"]  # fmt: skip
    return forked(
        "torch.distributed.run:main", [*options, *what, *words],
        environment=ENVIRONMENT | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"} | environment,
    )  # fmt: skip


def forked(call: str, *words: object, cwd: Path = ROOT, environment: Mapping[str, str]) -> Answer:
    """What a function says in a process of its own, and how that ends."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        process = Forked(call, *words, output=out, errors=err, cwd=cwd, environment=environment)
        status = process.wait()
        said = [file.read_text(encoding="utf-8", errors="surrogateescape") for file in (out, err)]
    return Answer(status, *said)
