"""Which curves are shown."""

from __future__ import annotations

from support.reported import events

from axtune.report.curves import of_run, of_runs


def test_training_and_held_out_share_a_chart() -> None:
    charts = {one.title: one for one in of_run(events(), 30)}
    assert list(charts) == ["Loss", "Everything right", "Learning rate", "Gradient norm"]
    assert [entry.label for entry in charts["Loss"].legend] == ["training", "held out"]
    assert charts["Loss"].unit == "nats a labelled token"
    assert len(charts["Loss"].best) == 1
    assert not charts["Learning rate"].best


def test_what_the_trainer_says_of_itself_is_not_drawn() -> None:
    said = [{"step": 1, "loss": 1.0, "epoch": 0.1, "eval_runtime": 3.0, "total_flos": 1e9}]
    assert [one.title for one in of_run(said, None)] == ["Loss"]


def test_what_answers_are_judged_by_has_its_proper_name() -> None:
    said = [{"step": 1, "loss": 1.0}, {"step": 1, "eval_chrf": 41.0, "eval_answers_seconds": 2.0}]
    assert [one.title for one in of_run(said, None)] == ["Loss", "chrF"]
    said[1]["eval_decision_accuracy"] = 0.5
    units = {one.title: one.unit for one in of_run(said, None)}
    assert units["Right decision"] == "share of the answers"
    assert units["chrF"] == "of the answers, 0 to 100"


def test_preferences_have_their_panels() -> None:
    said = [
        {"step": step, "loss": 0.6, "rewards/chosen": 0.1, "rewards/rejected": -0.1,
         "rewards/accuracies": 0.7, "logps/chosen": -12.0}
        for step in (1, 2)
    ]  # fmt: skip
    charts = {one.title: one for one in of_run(said, None)}
    assert charts["Loss"].unit == ""
    assert "Reward accuracy" in charts
    assert len(charts["Log-probability against the reference, times beta"].legend) == 2
    assert "Logps, chosen" in charts


def test_runs_lie_over_each_other() -> None:
    charts = {
        one.title: one for one in of_runs({"a": events(), "b": events(20)}, {"a": 30, "b": None})
    }
    assert list(charts)[:3] == ["Loss, training", "Loss, held out", "Everything right"]
    assert "Learning rate" in charts
    assert [entry.label for entry in charts["Loss, held out"].legend] == ["a", "b"]
    assert [mark.color for mark in charts["Loss, held out"].best] == [0]


def test_no_events_have_no_charts() -> None:
    assert of_run([], None) == []
    assert of_runs({"a": [], "b": []}, {}) == []


def test_a_metric_that_is_no_number_is_left_out() -> None:
    said = [{"step": 1, "loss": None, "grad_norm": 1.0}, {"step": 2, "loss": 2.0, "note": "x"}]
    charts = {one.title: one for one in of_run(said, None)}
    assert charts["Loss"].legend[0].step == 2
    assert "Note" not in charts


def test_the_loss_by_source_has_one_chart() -> None:
    said = [
        {"step": step, "eval_loss": 2.0, "eval_규정.jsonl_loss": 2.5, "eval_chat.jsonl_loss": 1.5}
        for step in (1, 2)
    ]
    charts = {one.title: one for one in of_run(said, 2)}
    assert list(charts) == ["Loss", "Held-out loss by source"]
    legend = charts["Held-out loss by source"].legend
    assert [entry.label for entry in legend] == ["규정.jsonl", "chat.jsonl"]
