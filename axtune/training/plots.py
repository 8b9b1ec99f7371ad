"""The curves of a run as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from axtune.checkpoint.atomic import written_whole
from axtune.config.metrics import metric_name
from axtune.training.progress import Event
from axtune.training.source_losses import by_source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SETTLED = 10  # values that an average needs before it is worth drawing
_COLORS = ("tab:blue", "tab:orange", "tab:red", "tab:brown", "tab:purple", "tab:cyan")

# The chart of the held-out loss by source: what training forgets rises there.
BY_SOURCE = "held-out loss by source"

# The panels of a preference run: what stands at the axis, and the metrics by their labels.
PREFERENCE_PANELS: tuple[tuple[str, dict[str, str]], ...] = (
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

# The panels of a run whose model answers questions.
_ANSWERS: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "answers that are right, share",
        {
            f"eval_{figure}": metric_name(figure)
            for figure in ("tool_accuracy", "decision_accuracy", "exact")
        },
    ),
    (metric_name("chrf"), {"eval_chrf": "held out"}),
)


def losses_by_source(events: Sequence[Event]) -> dict[str, str]:
    """The metrics of the held-out loss by source, and how their curves are called."""
    return {f"eval_{source}_loss": source for event in events for source in by_source(event)}


def curve(events: Sequence[Event], name: str) -> list[tuple[int, float]]:
    """The (step, value) pairs of one metric that are numbers."""
    return [
        (event["step"], event[name])
        for event in events
        if isinstance(event.get(name), (int, float)) and math.isfinite(event[name])
    ]


def best_of(events: Sequence[Event], name: str) -> tuple[int, float] | None:
    """The step and the value of the best checkpoint; None where the metric has no value.

    What was evaluated before the first step is the base, which is no checkpoint.

    Args:
        events: Of ``metrics.jsonl``.
        name: A loss, of which the lowest is the best, or a figure, of which the highest is; of two
            alike the first.
    """
    points = [point for point in curve(events, name) if point[0]]
    sign = 1 if name.endswith("loss") else -1
    return min(points, key=lambda pair: sign * pair[1], default=None)


def smooth(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Exponential moving average with the bias of its start removed (Adam's correction).

    The first few are averages of little: `plot` leaves them out.
    """
    average, result = 0.0, []
    for count, value in enumerate(values, 1):
        average = weight * average + (1 - weight) * value
        result.append(average / (1 - weight**count))
    return result


def _draw_rate(axes: Axes, points: Sequence[tuple[int, float]]) -> None:
    """The learning rate as a thin line of its own scale."""
    if not points:
        return
    rate = axes.twinx()
    rate.plot(*zip(*points, strict=True), color="tab:gray", linewidth=0.8, linestyle=":")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rate.set_ylabel("learning rate (dotted)", color="tab:gray")
    rate.tick_params(colors="tab:gray")


def plot(events: Sequence[Event], file: Path, best: str = "eval_loss") -> None:
    """Draw the loss curves; beside them what a preference run and its answers are judged by.

    Args:
        events: Of ``metrics.jsonl``.
        file: A PNG, written whole or not at all.
        best: The metric that chooses the best checkpoint: the lowest loss, or the highest figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels: list[tuple[str, dict[str, str]]] = [
        ("loss", {"loss": "training", "eval_loss": "held out"})
    ]
    preferred = [
        panel for panel in PREFERENCE_PANELS if any(curve(events, name) for name in panel[1])
    ]
    if preferred:
        panels += preferred
    else:
        panels[0] = ("loss (nats a labelled token)", panels[0][1])
    if sources := losses_by_source(events):
        # matplotlib's own font has no Hangul; the page of the run has their names.
        drawable = {
            name: source if source.isascii() else f"source {number}"
            for number, (name, source) in enumerate(sources.items(), 1)
        }
        panels.append((BY_SOURCE, drawable))
    panels += [panel for panel in _ANSWERS if any(curve(events, name) for name in panel[1])]
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(8 if rows == 1 else 12, 4.5 * rows), dpi=120, layout="constrained")
    grid = figure.subplots(rows, min(2, len(panels)), squeeze=False).flatten()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (title, names) in zip(grid, panels, strict=False):
        for color, (name, label) in zip(cycle(_COLORS), names.items(), strict=False):
            if not (points := curve(events, name)):
                continue
            steps, values = zip(*points, strict=True)
            if name.startswith("eval_"):
                axes.plot(steps, values, "o-", color=color, markersize=4, label=label)
            elif len(values) < 2 * SETTLED:
                axes.plot(steps, values, "-" if len(values) > 1 else "o", color=color, label=label)
            else:
                axes.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
                settled = slice(SETTLED, None)
                axes.plot(steps[settled], smooth(values)[settled], color=color, label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if best in names and (point := best_of(events, best)):
            axes.plot(*point, "*", color="tab:green", markersize=13, label="best checkpoint")
        if axes.lines:
            axes.legend()
        if "loss" in names:
            _draw_rate(axes, curve(events, "learning_rate"))
    with written_whole(file) as staged:
        FigureCanvasAgg(figure).print_png(str(staged))
