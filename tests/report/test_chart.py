"""The geometry of charts: ticks, thinning, places."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from axtune.report.chart import HEIGHT, WIDTH, Series, chart, number, thinned, ticks

values = st.floats(-1e9, 1e9, allow_nan=False)


@given(low=values, span=st.floats(1e-6, 1e9), about=st.integers(2, 8))
def test_ticks_are_round_and_within(low: float, span: float, about: int) -> None:
    assume(span > 1e-6 * abs(low))  # or doubles are too coarse for round values
    high = low + span
    found = ticks(low, high, about)
    assert len(found) <= 2.6 * about + 1
    assert all(low - 1e-6 * span <= tick <= high + 1e-6 * span for tick in found)


def test_ticks_of_a_loss() -> None:
    assert ticks(0.0, 2.1, 4) == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
    assert ticks(3.0, 3.0, 4) == [3.0]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=3000))
def test_a_thin_line_keeps_its_ends_and_its_spikes(line: list[float]) -> None:
    points = list(enumerate(line))
    thin = thinned(points, 100)
    assert len(thin) <= 100 or len(points) <= 100
    assert (thin[0], thin[-1]) == (points[0], points[-1])
    assert {min(line), max(line)} <= {value for _, value in thin}
    assert thin == sorted(thin)


@given(values)
def test_numbers_are_short_and_near(value: float) -> None:
    text = number(value)
    assert len(text) <= 15
    assert float(text.replace(",", "")) == pytest.approx(value, rel=6e-3, abs=1e-300)


def test_numbers_as_people_read_them() -> None:
    assert [number(v) for v in (0.69631, 12345.6, 0.00021, 8.2786, 0)] == [
        "0.6963", "12,346", "2.10e-4", "8.279", "0"
    ]  # fmt: skip


def test_a_chart_has_every_line_within_its_plot() -> None:
    falling = Series("training", 0, [(s, 4 / s) for s in range(1, 41)], smooth=[0.2] * 30)
    held_out = Series("held out", 1, [(10, 1.2), (30, 1.0), (40, 1.1)], dots=True)
    made = chart("Loss", [falling, held_out], best=[None, 30])
    for line in made.lines:
        pairs = [tuple(map(float, pair.split(","))) for pair in line.points.split()]
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in pairs)
    assert [line.faint for line in made.lines] == [True, False, False]
    assert len(made.dots) == 3
    (best,) = made.best
    assert best.x == pytest.approx(100 * 29 / 39)
    assert [(entry.label, entry.value, entry.step) for entry in made.legend] == [
        ("training", "0.1000", 40),
        ("held out", "1.100", 40),
    ]
    data = json.loads(made.data)
    assert (data["first"], data["last"]) == (1, 40)
    assert data["series"][1][1][2] == "1.000"


@pytest.mark.parametrize("points", [[(7, 1.0)], [(1, 2.0), (2, 2.0)], [(1, 0.0), (2, 0.0)]])
def test_one_point_and_flat_lines_are_drawn(points: list[tuple[int, float]]) -> None:
    made = chart("Loss", [Series("training", 0, points)])
    places = [float(pair.split(",")[1]) for pair in made.lines[0].points.split()]
    assert all(math.isfinite(y) and 0 <= y <= HEIGHT for y in places)
    assert len(made.dots) == (len(points) == 1)


@pytest.mark.parametrize(
    ("top", "texts"),
    [
        (2e-4, ["0", "5e-5", "1.0e-4", "1.5e-4", "2.0e-4"]),
        (2.1, ["0.0", "0.5", "1.0", "1.5", "2.0"]),
        (4000.0, ["0", "1,000", "2,000", "3,000", "4,000"]),
    ],
)
def test_ticks_have_the_digits_that_tell_them_apart(top: float, texts: list[str]) -> None:
    made = chart("Learning rate", [Series("training", 0, [(1, 0.0), (2, top)])])
    said = [tick.text for tick in made.y_ticks]
    assert len(set(said)) == len(said)
    assert [float(one.replace(",", "")) for one in said] == pytest.approx(
        [float(one.replace(",", "")) for one in texts]
    )
