"""Which curves a page shows: those of a run's events, or of several runs over each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from axtune.config.metrics import FIGURE_OF, metric_title
from axtune.report.chart import Chart, Series, chart
from axtune.training.plots import (
    BY_SOURCE,
    PREFERENCE_PANELS,
    SETTLED,
    curve,
    losses_by_source,
    smooth,
)
from axtune.training.progress import Event

_HELD_OUT = "eval_"

# What is drawn first, and how it is called; other metrics follow by their own names.
_TITLES = {
    "loss": "Loss",
    "mean_token_accuracy": "Tokens predicted right",
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm",
    "tokens_per_second": "Tokens a second",
    "entropy": "Entropy",
}
_UNITS = {"learning_rate": "", "grad_norm": "before clipping", "entropy": "nats"}
# What says how the trainer works, not how the model does.
_NOT_DRAWN = {
    "step",
    "epoch",
    "num_tokens",
    "num_input_tokens_seen",
    "total_flos",
    "train_loss",
    "runtime",
    "samples_per_second",
    "steps_per_second",
    "answers_seconds",
}


def of_run(events: Sequence[Event], best: int | None) -> list[Chart]:
    """The charts of one run: what was trained on and what was held out share one.

    Args:
        events: Of ``metrics.jsonl``.
        best: The step of the best checkpoint.
    """
    return [
        chart(title, series, unit=unit, best=[best if one.dots else None for one in series])
        for title, unit, names in _panels([events])
        if (series := list(_lines(events, names)))
    ]


def of_runs(runs: Mapping[str, Sequence[Event]], best: Mapping[str, int | None]) -> list[Chart]:
    """The charts of several runs: one for each metric, with a line for each run.

    Args:
        runs: Events by the run's name, in the order of their colours.
        best: The step of each run's best checkpoint.
    """
    charts = []
    for title, unit, names in _panels(list(runs.values())):
        found = {name: _over_each_other(runs, name) for name in names}
        several = sum(map(bool, found.values())) > 1
        for name, lines in found.items():
            if lines:
                held_out = name.startswith(_HELD_OUT)
                marks = [best.get(one.label) if held_out else None for one in lines]
                whole = f"{title}, {names[name]}" if several else title
                charts.append(chart(whole, lines, unit=unit, best=marks))
    return charts


def _over_each_other(runs: Mapping[str, Sequence[Event]], name: str) -> list[Series]:
    """A metric of several runs."""
    return [
        _series(run, place, name, points)
        for place, (run, events) in enumerate(runs.items())
        if (points := curve(events, name))
    ]


def _lines(events: Sequence[Event], names: Mapping[str, str]) -> Iterator[Series]:
    for place, (name, label) in enumerate(names.items()):
        if points := curve(events, name):
            yield _series(label, place, name, points)


def _series(label: str, color: int, name: str, points: Sequence[tuple[int, float]]) -> Series:
    """A line; what is logged at many steps is smoothed, where there is something to average."""
    if name.startswith(_HELD_OUT):
        return Series(label, color, points, dots=True)
    settled: list[float] = []
    if len(points) >= 2 * SETTLED and name != "learning_rate":
        settled = smooth([value for _, value in points])[SETTLED:]
    return Series(label, color, points, settled)


def _panels(runs: Sequence[Sequence[Event]]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Title, unit, and metrics by their labels, of every chart that the events have values for."""
    present = {name for events in runs for event in events for name in event}
    preference = [
        (label[0].upper() + label[1:], "", names)
        for label, names in PREFERENCE_PANELS
        if present & names.keys()
    ]
    sources = losses_by_source([event for events in runs for event in events])
    drawn = {name for _, _, names in preference for name in names} | sources.keys()
    loss, *others = _TITLES
    yield _TITLES[loss], _loss_unit(preference), _both(loss)
    if sources:
        yield _title(BY_SOURCE), _loss_unit(preference), sources
    yield from preference
    evaluated = sorted(
        name
        for name in present - drawn
        if name.startswith(_HELD_OUT) and not present & {name.removeprefix(_HELD_OUT)}
    )
    for name in evaluated:
        bare = name.removeprefix(_HELD_OUT)
        if bare not in _NOT_DRAWN and bare != loss:
            yield _title(bare), _answers_unit(bare), {name: "held out"}
    rest = {name for name in present - drawn if not name.startswith(_HELD_OUT)} - _NOT_DRAWN
    for name in [*others, *sorted(rest - _TITLES.keys())]:
        if name in rest:
            yield _title(name), _UNITS.get(name, ""), _both(name)


def _both(name: str) -> dict[str, str]:
    return {name: "training", f"{_HELD_OUT}{name}": "held out"}


def _loss_unit(preference: Sequence[object]) -> str:
    return "" if preference else "nats a labelled token"


def _answers_unit(figure: str) -> str:
    """Of a figure of answers: what it is a share of."""
    if figure not in FIGURE_OF.values():
        return ""
    return "of the answers, 0 to 100" if figure == "chrf" else "share of the answers"


def _title(name: str) -> str:
    if name in _TITLES:
        return _TITLES[name]
    return metric_title(name)
