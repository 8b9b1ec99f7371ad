"""The curves of a run, and their picture."""

from __future__ import annotations

import math

import pytest
from support.events import EVENTS, TRAIN

from axtune.training.plots import curve, plot, smooth


def test_curves_leave_out_what_is_no_number():
    events = [{"step": 1, "loss": None}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": 1.0}]
    assert curve(events, "loss") == [(3, 1.0)]


def test_smoothing_is_unbiased_at_its_start_and_follows():
    assert smooth([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    assert smooth([4.0, 0.0])[1] == pytest.approx(0.9 * 0.1 * 4 / (1 - 0.81))
    assert smooth([]) == []


@pytest.mark.parametrize("events", [EVENTS, TRAIN, []], ids=["both", "train", "none"])
def test_the_plot_is_a_png(tmp_path, events):
    file = tmp_path / "loss.png"
    plot(events, file)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [file]


def test_the_plot_shows_the_curves(tmp_path):
    plot(EVENTS, tmp_path / "both.png")
    plot([], tmp_path / "none.png")
    assert (tmp_path / "both.png").read_bytes() != (tmp_path / "none.png").read_bytes()
