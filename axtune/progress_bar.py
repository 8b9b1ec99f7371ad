"""How far a long command is: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from axtune.units import duration

_QUIET = 30.0  # seconds between lines in a log file


class ProgressBar:
    """Both on standard error, with the time that is left.

    Args:
        verb: What is being done, such as ``reading``.
    """

    def __init__(self, verb: str) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn(verb),
            BarColumn(),
            TextColumn("{task.percentage:.0f}% {task.fields[said]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(verb, total=None, said="")
        self._console = console
        self._begun = self._last = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, done: int, total: int, said: str) -> None:
        """Show how far it is.

        Args:
            done: How much of `total`; the first call may say what was done before.
            total: All of it, in the same unit.
            said: What came of it so far.
        """
        self._bar.update(self._task, completed=done, total=total, said=said)
        if self._first is None:
            self._first = done
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last >= _QUIET:
            self._last = now
            left = ""
            if self._first < done < total:
                seconds = (now - self._begun) / (done - self._first) * (total - done)
                left = f", {duration(seconds)} left"
            self._console.print(f"{done * 100 // max(total, 1)}%: {said}{left}", highlight=False)
