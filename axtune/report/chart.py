"""The geometry of a line chart: what the page draws as SVG, and what it says of each step.

Widths are shares of the plot's own, so that a chart fits every screen while its letters keep their
size: x is in thousandths of the width, y in pixels of a fixed height.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Point = tuple[int, float]

WIDTH, HEIGHT = 1000, 200
_MOST_POINTS = 400  # of a line; more than pixels show nothing more
_FEW = 2  # lines whose own points may stand behind the smooth ones
_PAD = 0.06  # of the values' range, above and below


@dataclass(frozen=True, slots=True)
class Series:
    """One line.

    Attributes:
        label: For the legend.
        color: Its place in the page's palette.
        points: Step and value, by step; at least one.
        smooth: Values that are drawn as the line, the points being faint then; one for each of the
            last points, or none.
        dots: Whether each point is marked: evaluations are few.
    """

    label: str
    color: int
    points: Sequence[Point]
    smooth: Sequence[float] = ()
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline: ``points`` as SVG has them."""

    points: str
    color: int
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the plot: `x` in percent of the width, `y` in pixels from the top."""

    x: float
    y: float
    color: int


@dataclass(frozen=True, slots=True)
class Tick:
    """A value at an axis: `at` in percent of the width, or in pixels from the top."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the legend, with its last value."""

    label: str
    color: int
    value: str
    step: int


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, ready to be drawn.

    Attributes:
        title: What is drawn.
        unit: Of the values; empty where the title says it.
        lines: In drawing order.
        dots: Marked points.
        best: The best checkpoint's points.
        y_ticks: From the bottom.
        x_ticks: From the left.
        legend: One for each line.
        data: JSON of the values that the page shows for a step.
    """

    title: str
    unit: str
    lines: list[Line]
    dots: list[Mark]
    best: list[Mark]
    y_ticks: list[Tick]
    x_ticks: list[Tick]
    legend: list[Entry]
    data: str


def chart(
    title: str, series: Sequence[Series], *, unit: str = "", best: Sequence[int | None] = ()
) -> Chart:
    """Lay out a line chart.

    Args:
        title: What is drawn.
        series: At least one, each with a point.
        unit: Of the values.
        best: For each of the series, the step of the best checkpoint, if it is to be marked.
    """
    steps = [step for one in series for step, _ in one.points]
    values = [value for one in series for _, value in one.points]
    first, last = min(steps), max(steps)
    low, high = _padded(min(values), max(values))
    x = _scale(first, last, WIDTH)
    height = _scale(low, high, HEIGHT)

    def y(value: float) -> float:
        return round(HEIGHT - height(value), 1)

    def line(points: Iterable[Point]) -> str:
        return " ".join(f"{x(step):.1f},{y(value)}" for step, value in points)

    lines, dots, marked = [], [], []
    for one in series:
        points = thinned(one.points)
        if not (one.smooth and len(series) > _FEW):
            lines.append(Line(line(points), one.color, faint=bool(one.smooth)))
        if one.smooth:
            settled = one.points[-len(one.smooth) :]
            smoothed = [(step, v) for (step, _), v in zip(settled, one.smooth, strict=True)]
            lines.append(Line(line(thinned(smoothed)), one.color))
        if one.dots or len(one.points) == 1:
            dots += [Mark(x(step) / 10, y(value), one.color) for step, value in points]
    for one, step in zip(series, best, strict=False):
        marked += [Mark(x(s) / 10, y(v), one.color) for s, v in one.points if s == step]
    return Chart(
        title=title,
        unit=unit,
        lines=sorted(lines, key=lambda each: not each.faint),
        dots=dots,
        best=marked,
        y_ticks=[Tick(y(value), text) for value, text in _labelled(ticks(low, high, 4))],
        x_ticks=[
            Tick(x(step) / 10, f"{step:,.0f}")
            for step in ticks(first, last, 5)
            if step == int(step)
        ],
        legend=[
            Entry(one.label, one.color, number(one.points[-1][1]), one.points[-1][0])
            for one in series
        ],
        data=json.dumps(
            {
                "first": first,
                "last": last,
                "series": [
                    [[step, y(value), number(value)] for step, value in thinned(one.points)]
                    for one in series
                ],
            }
        ),
    )


def thinned(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """A line of fewer points that looks the same: of each stretch its lowest and its highest."""
    if len(points) <= most:
        return list(points)
    kept = {0, len(points) - 1}
    stretches = most // 2 - 1
    for number_ in range(stretches):
        start, end = (len(points) * (number_ + k) // stretches for k in (0, 1))
        stretch = range(start, end)
        kept.add(min(stretch, key=lambda place: points[place][1]))
        kept.add(max(stretch, key=lambda place: points[place][1]))
    return [points[place] for place in sorted(kept)]


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values between two others: multiples of 1, 2 or 5 times a power of ten.

    Args:
        low: The least.
        high: The most.
        about: How many there should be.
    """
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    width = min((f * power for f in (1, 2, 5, 10)), key=lambda one: abs(math.log(one / rough)))
    first = math.ceil(low / width - 1e-9)
    found = []
    while (value := first * width) <= high + 1e-9 * width:
        found.append(value)
        first += 1
    return found


def number(value: float) -> str:
    """A value as people read it: four digits that count, powers of ten only where they must be."""
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 10_000:
        return f"{value:,.0f}"
    if size >= 0.001:
        digits = max(0, 3 - math.floor(math.log10(size)))
        return f"{value:,.{digits}f}"
    return _exponent(value, 2)


def _exponent(value: float, digits: int) -> str:
    """2e-4."""
    mantissa, power = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(power)}"


def _labelled(values: Sequence[float]) -> list[tuple[float, str]]:
    """Ticks with as many digits as tell them apart, and no more."""
    small = max(map(abs, values), default=1.0) < 0.001
    for digits in range(7):
        texts = [
            (_exponent(value, digits) if value else "0") if small else f"{value:,.{digits}f}"
            for value in values
        ]
        read = [float(text.replace(",", "")) for text in texts]
        if all(math.isclose(*pair, abs_tol=1e-12) for pair in zip(read, values, strict=True)):
            break
    return list(zip(values, texts, strict=True))


def _padded(low: float, high: float) -> tuple[float, float]:
    """A range with room above and below; one that is not below zero does not get there."""
    room = _PAD * (high - low) or abs(high) * _PAD or 1.0
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


def _scale(low: float, high: float, size: float) -> Callable[[float], float]:
    """Where a value stands between two others; in the middle where they are one."""
    if high <= low:
        return lambda _: size / 2
    return lambda value: (value - low) / (high - low) * size
