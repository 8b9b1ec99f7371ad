"""What a person sees of a run: derived values first, one live line, a summary, a plot.

On a terminal the line is redrawn in place; elsewhere (a log file, a CI) every log event is one
plain line without control codes. Only the main process prints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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

# Events of metrics.jsonl: a training event has `loss`, an evaluation has `eval_loss`.
Event = dict[str, Any]

_NAME_WIDTH = 12

_COLORS = ("tab:blue", "tab:orange", "tab:red", "tab:brown")
# The panels of a preference run's plot: what stands at the axis, and the metrics by their labels.
_PREFERENCE: tuple[tuple[str, dict[str, str]], ...] = (
    ("reward accuracy", {"rewards/accuracies": "training", "eval_rewards/accuracies": "held out"}),
    (
        "log-probability against the reference, times beta",
        {
            "rewards/chosen": "chosen",
            "eval_rewards/chosen": "chosen, held out",
            "rewards/rejected": "rejected",
            "eval_rewards/rejected": "rejected, held out",
        },
    ),
    ("KL to the reference, k3, nats a token", {"kl_k3": "training", "eval_kl_k3": "held out"}),
)


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
        self._first_step = 0
        self._shown: Event = {}

    def say(self, text: str, style: str = "") -> None:
        """Print one line above the live line."""
        if self.enabled:
            self.console.print(Text(text, style=style))

    def table(self, rows: Sequence[tuple[str, str]]) -> None:
        """Print names and values in two columns."""
        for name, value in rows:
            if self.enabled:
                self.console.print(Text.assemble((name.ljust(_NAME_WIDTH), "bold"), value))

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Count something up before training: a bar on a terminal, else one line at its end.

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
        with bar:
            yield lambda: bar.advance(task)
        self.say(f"{what} computed in {duration(time.monotonic() - began)}")

    def begin(self, total: int, done: int = 0) -> None:
        """Start the live line.

        Args:
            total: Optimiser steps of the whole run.
            done: Steps that a resumed run has behind it.
        """
        self._total, self._done, self._first_step = total, done, done
        self._began = self._stepped = time.monotonic()
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
        if self._progress:
            self._progress.update(self._task, completed=done)

    def event(self, event: Event) -> None:
        """A log event: values for the live line; without a terminal, a line of its own."""
        self._shown.update(event)
        if self._progress is None and self.enabled and ("loss" in event or "eval_loss" in event):
            line = f"step {event.get('step', self._done)}/{self._total}  {event_text(event)}"
            if "loss" in event and self._done < self._total:
                line += f"  {self.time_left()}"
            self.console.print(Text(line))

    def end(self) -> None:
        """Take the live line away."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def time_left(self) -> str:
        """From the pace of this session's steps, evaluation and saving included."""
        made = self._done - self._first_step
        if made <= 0:
            return "time left …"
        pace = (self._stepped - self._began) / made
        since = time.monotonic() - self._stepped
        return f"{duration(pace * (self._total - self._done) - since)} left"

    def live_text(self) -> str:
        """What stands to the right of the bar."""
        return f"{self.time_left()}  {event_text(self._shown)}"


class _Values(ProgressColumn):
    """The live line's values, read when it is drawn."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def render(self, task: Task) -> Text:
        return Text(self._report.live_text())


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
            parts.append(f"eval loss {loss:.4f}")
        both = [event.get(f"{prefix}rewards/{answer}") for answer in ("chosen", "rejected")]
        if None not in both:
            parts.append(f"{words}rewards " + "/".join(f"{reward:z.3f}" for reward in both))
        if (margin := event.get(f"{prefix}rewards/margins")) is not None:
            parts.append(f"{words}margin {margin:z.3f}")
        if (share := event.get(f"{prefix}rewards/accuracies")) is not None:
            parts.append(f"{words}accuracy {share:.0%}")
    if (chosen := event.get("logps/chosen")) is not None:
        parts.append(f"chosen {chosen:.1f}")
    if (rejected := event.get("logps/rejected")) is not None:
        parts.append(f"rejected {rejected:.1f}")
    if (kl := event.get("kl_k3", event.get("kl"))) is not None:
        parts.append(f"kl {kl:.4f}")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """``7s``, ``3m 20s``, ``2h 05m``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def curve(events: Sequence[Event], name: str) -> list[tuple[int, float]]:
    """The (step, value) pairs of one metric that are numbers."""
    return [
        (event["step"], event[name])
        for event in events
        if isinstance(event.get(name), (int, float)) and math.isfinite(event[name])
    ]


def smooth(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Exponential moving average with the bias of its start removed (Adam's correction)."""
    average, result = 0.0, []
    for count, value in enumerate(values, 1):
        average = weight * average + (1 - weight) * value
        result.append(average / (1 - weight**count))
    return result


def plot(events: Sequence[Event], file: Path) -> None:
    """Draw the loss curves; of a preference run, rewards and log-probabilities beside them.

    Args:
        events: Of ``metrics.jsonl``.
        file: A PNG, written whole or not at all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels: list[tuple[str, dict[str, str]]] = [
        ("loss", {"loss": "training", "eval_loss": "held out"})
    ]
    preferred = [panel for panel in _PREFERENCE if any(curve(events, name) for name in panel[1])]
    if preferred:
        panels += preferred
    else:
        panels[0] = ("loss (nats a labelled token)", panels[0][1])
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(8 if rows == 1 else 12, 4.5 * rows), dpi=120, layout="constrained")
    grid = figure.subplots(rows, min(2, len(panels)), squeeze=False).flatten()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (title, names) in zip(grid, panels, strict=False):
        for color, (name, label) in zip(_COLORS, names.items(), strict=False):
            if not (points := curve(events, name)):
                continue
            steps, values = zip(*points, strict=True)
            if name.startswith("eval_"):
                axes.plot(steps, values, "o-", color=color, markersize=4, label=label)
            else:
                axes.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
                axes.plot(steps, smooth(values), color=color, label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    staged = file.with_name(f".{file.name}.tmp")
    FigureCanvasAgg(figure).print_png(str(staged))
    staged.replace(file)


def summary(events: Sequence[Event]) -> dict[str, float]:
    """The run in a few numbers.

    Returns:
        Of those that the run has: first_loss, last_loss, best_eval_loss, best_step,
        tokens_per_second (the median).
    """
    result: dict[str, float] = {}
    if losses := curve(events, "loss"):
        result["first_loss"], result["last_loss"] = losses[0][1], losses[-1][1]
    if held_out := curve(events, "eval_loss"):
        result["best_step"], result["best_eval_loss"] = min(held_out, key=lambda pair: pair[1])
    if speeds := sorted(value for _, value in curve(events, "tokens_per_second")):
        result["tokens_per_second"] = speeds[len(speeds) // 2]
    return result
