"""The curves of a run, and their picture."""

from __future__ import annotations

import math

import pytest
from support.events import EVENTS, TRAIN

from axtune.training.plots import best_of, curve, plot, smooth


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


def drawn(monkeypatch, tmp_path, events, **options):
    """The axes of the plot, by what stands at them, and the labels of their lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figures = []
    real = FigureCanvasAgg.__init__
    monkeypatch.setattr(
        FigureCanvasAgg,
        "__init__",
        lambda self, figure: figures.append(figure) or real(self, figure),
    )
    plot(events, tmp_path / "loss.png", **options)
    return {axes.get_ylabel(): axes for axes in figures[0].axes}


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


def test_the_best_checkpoint_and_the_learning_rate_are_marked(monkeypatch, tmp_path):
    events = [
        {"step": step, "loss": 9.0 - step / 10, "learning_rate": 1e-4 * step}
        for step in range(1, 31)
    ] + [{"step": step, "eval_loss": abs(step - 20.0)} for step in (10, 20, 30)]
    axes = drawn(monkeypatch, tmp_path, events)
    loss = axes["loss (nats a labelled token)"]
    assert line(loss, "best checkpoint").get_xdata() == [20]
    assert list(line(loss, "held out").get_xdata()) == [10, 20, 30]
    rate = axes["learning rate (dotted)"].lines[0]
    assert len(rate.get_xdata()) == 30
    assert rate.get_linewidth() < line(loss, "training").get_linewidth()


@pytest.mark.parametrize(("count", "first"), [(1, 1), (3, 1), (19, 1), (20, 11), (300, 11)])
def test_an_average_is_drawn_from_where_it_is_one(monkeypatch, tmp_path, count, first):
    events = [{"step": step, "loss": 5.0 if step == 1 else 1.0} for step in range(1, count + 1)]
    loss = drawn(monkeypatch, tmp_path, events)["loss (nats a labelled token)"]
    assert line(loss, "training").get_xdata()[0] == first


def test_answers_have_a_panel_and_the_best_of_them_a_star(monkeypatch, tmp_path):
    answers = [
        {"step": step, "eval_tool_accuracy": share, "eval_chrf": 100 * share}
        for step, share in ((2, 0.25), (3, 0.75), (4, 0.75))
    ]
    events = [*EVENTS, *answers]
    assert best_of(events, "eval_loss") == (4, 3.0)
    assert best_of(events, "eval_tool_accuracy") == (3, 0.75)
    assert best_of(events, "eval_exact") is None
    base = {"step": 0, "eval_loss": 1.0}  # training.eval_on_start, of which there is no checkpoint
    assert best_of([base, *events], "eval_loss") == (4, 3.0)
    assert best_of([base], "eval_loss") is None
    axes = drawn(monkeypatch, tmp_path, events, best="eval_tool_accuracy")
    shares = axes["answers that are right, share"]
    assert list(line(shares, "everything right").get_ydata()) == [0.25, 0.75, 0.75]
    assert line(shares, "best checkpoint").get_xdata() == [3]
    assert axes["chrF"].lines
    loss = axes["loss (nats a labelled token)"]
    assert "best checkpoint" not in [each.get_label() for each in loss.lines]


def test_the_loss_by_source_has_its_panel(monkeypatch, tmp_path):
    event = {"step": 1, "eval_loss": 2.0, "eval_규정.jsonl_loss": 2.5, "eval_chat.jsonl_loss": 1.5}
    axes = drawn(monkeypatch, tmp_path, [event])["held-out loss by source"]
    assert line(axes, "chat.jsonl").get_ydata() == [1.5]
    assert line(axes, "source 1").get_ydata() == [2.5]  # no font for its name
