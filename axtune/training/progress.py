"""What a person sees of a run: derived values first, one live line, a summary, a plot.

On a terminal the line is redrawn in place; elsewhere (a log file, a CI) there is a plain line
without control codes now and then, and at every evaluation. Only the main process prints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from axtune.config.recipe import FIGURES, Figure
from axtune.training.source_losses import by_source
from axtune.units import duration

# Events of metrics.jsonl: a training event has `loss`, an evaluation `eval_loss`, answers to
# questions their figures (`eval_tool_accuracy`).
Event = dict[str, Any]

_NAME_WIDTH = 12
_QUIET = 30.0  # seconds between two lines of training where nobody watches
_SOURCES = 4  # whose losses a line has room for
_STEADY = 0.95  # of what the speed that is shown remembers at each event


class Report:
    """Prints the story of one run.

    Args:
        console: Where to; standard output by default.
        enabled: False on every process but the main one.
    """

    def __init__(self, console: Console | None = None, *, enabled: bool = True) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.enabled = enabled
        self._progress: Progress | None = None
        self._task: Any = None
        self._total = 0
        self._done = 0
        self._began = 0.0
        self._stepped = 0.0  # when the last step was made
        self._measured = 0.0  # when the last speed was told
        self._first_step = 0
        self._warm: float | None = None  # when the first step was made
        self._shown: Event = {}
        self._busy = ""  # what is done between two steps
        self._printed = float("-inf")  # when the last line of training was
        self._speed = [0.0, 0.0]  # tokens and seconds, older ones weighing less

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def say(self, text: str, style: str = "") -> None:
        """Print one line above the live line."""
        if self.enabled:
            self.console.print(Text(text, style=style))

    def heading(self, text: str) -> None:
        """Print what begins now, over a line."""
        if self.enabled:
            self.console.print()
            self.console.rule(Text(text, style="bold"), align="left")

    def table(self, rows: Sequence[tuple[str, str]]) -> None:
        """Print names and values in two columns."""
        for name, value in rows:
            if self.enabled:
                self.console.print(Text.assemble((name.ljust(_NAME_WIDTH), "bold"), value))

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Count something up: a bar on a terminal, else a line now and then and one at its end.

        Args:
            what: What is counted, for the eye.
            total: How many there are.

        Yields:
            Called once for each.
        """
        began = time.monotonic()
        bar = Progress(
            TextColumn(f"{what} [bold]{{task.completed}}/{{task.total}}"),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not (self.enabled and self.console.is_terminal),
        )
        task = bar.add_task("", total=total)
        said = began

        def count() -> None:
            nonlocal said
            bar.advance(task)
            now = time.monotonic()
            if self.console.is_terminal or now - said < _QUIET:
                return
            said = now
            done = int(bar.tasks[0].completed)
            left = (now - began) / done * (total - done)
            self.say(f"{what} {done:,}/{total:,}  {duration(left)} left")

        with bar:
            yield count
        self.say(f"{what} computed in {duration(time.monotonic() - began)}")

    def begin(self, total: int, done: int = 0) -> None:
        """Start the live line.

        Args:
            total: Optimiser steps of the whole run.
            done: Steps that a resumed run has behind it.
        """
        self._total, self._done, self._first_step = total, done, done
        self._began = self._stepped = self._measured = time.monotonic()
        self.table([("steps", f"{total:,}" + (f", {done:,} of them done" if done else ""))])
        if not self.enabled or not self.console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("[bold]step {task.completed}/{task.total}"),
            BarColumn(bar_width=20),
            _Values(self),
            console=self.console,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("", total=total, completed=done)
        self._progress.start()

    def step(self, done: int) -> None:
        """An optimiser step was made."""
        self._done, self._stepped = done, time.monotonic()
        if self._warm is None and done == self._first_step + 1:
            self._warm = self._stepped
        if self._progress:
            self._progress.update(self._task, completed=done)

    def event(self, event: Event) -> None:
        """A log event: values for the live line; without a terminal, a line if one is due."""
        event = self._steady(event)
        self._shown.update(event)
        if self._progress is None and self.enabled and self._is_due(event):
            line = f"step {event.get('step', self._done)}/{self._total}  {event_text(event)}"
            if "loss" in event and self._done < self._total:
                line += f"  {self.time_left()}"
            self.console.print(Text(line))

    def busy(self, what: str = "") -> None:
        """Show what holds the steps up, in place of the time left; nothing when it is over."""
        self._busy = what

    def _steady(self, event: Event) -> Event:
        """The event with the speed of the last while: steps differ by what they are made of."""
        if not (speed := event.get("tokens_per_second")):
            return event
        now = time.monotonic()
        seconds = max(now - self._measured, 1e-9)
        self._measured = now
        self._speed = [
            _STEADY * old + new
            for old, new in zip(self._speed, (speed * seconds, seconds), strict=True)
        ]
        return event | {"tokens_per_second": self._speed[0] / self._speed[1]}

    def _is_due(self, event: Event) -> bool:
        """Whether a line is printed of an event: evaluations, the first and the last step too."""
        if any(name.startswith("eval_") for name in event):
            return True
        now = time.monotonic()
        if "loss" not in event or (now - self._printed < _QUIET and self._done < self._total):
            return False
        self._printed = now
        return True

    def end(self) -> None:
        """Take the live line away."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def time_left(self) -> str:
        """From the pace of this session's steps, evaluation and saving included.

        The first step also warms everything up, and is left out as soon as there are others.
        """
        made = self._done - self._first_step
        if made <= 0:
            return "time left …"
        began = self._began
        if made > 1 and self._warm is not None:
            began, made = self._warm, made - 1
        pace = (self._stepped - began) / made
        since = time.monotonic() - self._stepped
        return f"{duration(pace * (self._total - self._done) - since)} left"

    def live_text(self) -> str:
        """What stands to the right of the bar."""
        return f"{self._busy or self.time_left()}  {event_text(self._shown)}"


class _Values(ProgressColumn):
    """The live line's values, read when it is drawn."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def render(self, task: Task) -> Text:
        return Text(self._report.live_text())


def figure_text(figure: Figure, value: float) -> str:
    """A figure of answers with its name: ``tool accuracy 93.0%``."""
    return f"{figure.replace('_', ' ')} " + (f"{value:.1f}" if figure == "chrf" else f"{value:.1%}")


def event_text(event: Event) -> str:
    """The values of an event worth showing, in a fixed order."""
    parts = []
    if (loss := event.get("loss")) is not None:
        parts.append(f"loss {loss:.4f}")
    if (rate := event.get("learning_rate")) is not None:
        parts.append(f"lr {rate:.2e}")
    if (speed := event.get("tokens_per_second")) is not None:
        parts.append(f"{speed:,.0f} tokens/s")
    for prefix in ("", "eval_"):
        words = prefix.replace("_", " ")
        if prefix and (loss := event.get("eval_loss")) is not None:
            sources = [f"{name} {value:.4f}" for name, value in by_source(event).items()]
            told = f" ({', '.join(sources)})" if 0 < len(sources) <= _SOURCES else ""
            parts.append(f"eval loss {loss:.4f}{told}")
        both = [event.get(f"{prefix}rewards/{answer}") for answer in ("chosen", "rejected")]
        if None not in both:
            parts.append(f"{words}rewards " + "/".join(f"{reward:z.3f}" for reward in both))
        if (margin := event.get(f"{prefix}rewards/margins")) is not None:
            parts.append(f"{words}margin {margin:z.3f}")
        if (share := event.get(f"{prefix}rewards/accuracies")) is not None:
            parts.append(f"{words}accuracy {share:.0%}")
    figure = next((name for name in FIGURES if f"eval_{name}" in event), None)
    if figure:  # one says enough: the first that the questions are about
        parts.append(figure_text(figure, event[f"eval_{figure}"]))
    if (chosen := event.get("logps/chosen")) is not None:
        parts.append(f"chosen {chosen:.1f}")
    if (rejected := event.get("logps/rejected")) is not None:
        parts.append(f"rejected {rejected:.1f}")
    if (kl := event.get("kl_k3", event.get("kl"))) is not None:
        parts.append(f"kl {kl:.4f}")
    return "  ".join(parts)
