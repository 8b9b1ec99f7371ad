"""Commands in odd circumstances, or that get a signal at a chosen place.

As if the user had pressed Ctrl-C just there.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axtune.cli import main
from support.forked import Forked
from support.rows import ROOT


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
    statuses = []
    for case in cases:
        case.scratch.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"TMPDIR": str(case.scratch)} | case.environment
        process = Forked(
            "support.signalled:command", case.words, case.place, case.call, int(case.number),
            output=case.folder / "output", cwd=case.cwd,
            environment={name: value for name, value in environment.items() if value is not None},
        )  # fmt: skip
        statuses.append(process.wait())
    return statuses


def command(words: list[str], place: str, call: int, number: int) -> None:
    """A command that gets a signal at some call of a function, ``module:name``."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests that run under nohup ignore it
    if place:
        module, _, names = place.partition(":")
        *outer, name = names.split(".")
        holder = importlib.import_module(module)
        for part in outer:
            holder = getattr(holder, part)
        real, left = getattr(holder, name), call

        def signalled(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                signal.raise_signal(number)
            return real(*arguments, **options)

        setattr(holder, name, signalled)
    main(words)
