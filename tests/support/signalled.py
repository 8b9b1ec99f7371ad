"""Commands in odd circumstances, or that get a signal at a chosen place.

As if the user had pressed Ctrl-C just there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.rows import ROOT

# Every command runs in a process of its own, a fork of one that has imported everything.
_RUNNER = """
import importlib, json, os, signal, sys
import axtune.run, axtune.after, axtune.cli
from axtune.cli import main
for case in json.load(sys.stdin):
    child = os.fork()
    if child == 0:
        for stream in (1, 2):
            os.dup2(os.open(case["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        os.environ["TMPDIR"] = case["scratch"]
        for name, value in case["environment"].items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        os.chdir(case["cwd"])
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has none
        if case["place"]:
            module, _, names = case["place"].partition(":")
            *outer, name = names.split(".")
            holder = importlib.import_module(module)
            for part in outer:
                holder = getattr(holder, part)
            real, left = getattr(holder, name), [case["call"]]
            def signalled(*arguments, **options):
                left[0] -= 1
                if left[0] == 0:
                    signal.raise_signal(case["number"])
                return real(*arguments, **options)
            setattr(holder, name, signalled)
        status = 0
        try:
            main(case["words"])
        except SystemExit as end:
            status = end.code or 0
        sys.stdout.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Case:
    """A command, and where a signal reaches it.

    Attributes:
        words: Of the command, after ``axtune``.
        folder: An empty one of its own, for its output and its temporary files.
        number: The signal.
        place: ``module:name`` of a function at whose call the signal comes; empty for none.
        call: At which of its calls.
        environment: Variables of its own; None takes one away.
        cwd: Where it is started.
    """

    words: list[str]
    folder: Path
    number: int = 0
    place: str = ""
    call: int = 1
    environment: Mapping[str, str | None] = field(default_factory=dict)
    cwd: Path = ROOT

    @property
    def scratch(self) -> Path:
        """Where the command puts temporary files."""
        return self.folder / "tmp"

    @property
    def output(self) -> str:
        """What the command printed."""
        return (self.folder / "output").read_text(encoding="utf-8")


def run(*cases: Case) -> list[int]:
    """Run commands one after the other.

    Returns:
        Their exit statuses; one that a signal killed has its negative number.
    """
    jobs = []
    for case in cases:
        case.scratch.mkdir(parents=True, exist_ok=True)
        jobs.append(
            {
                "words": case.words,
                "number": int(case.number),
                "place": case.place,
                "call": case.call,
                "environment": dict(case.environment),
                "cwd": str(case.cwd),
                "scratch": str(case.scratch),
                "output": str(case.folder / "output"),
            }
        )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _RUNNER],
        input=json.dumps(jobs), stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return [int(line) for line in done.stdout.split()]
