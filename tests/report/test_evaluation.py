"""Figures with intervals, and answers side by side."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.reported import kept, result

from axtune.report.evaluation import compared, examples, groups, marked, written_as


def test_before_and_after_of_each_category() -> None:
    whole, text = groups(result("runs/a"))
    (row,) = whole.rows
    assert (row.metric, row.n, row.verdict) == ("everything right", 149, "better")
    assert [(w.at, w.short) for w in row.whiskers] == [(20.0, "20.0%"), (70.0, "70.0%")]
    assert row.difference == "+50.0 points (+40.0 to +60.0)"
    assert whole.shares
    assert not text.shares
    assert text.rows[0].difference == "−1.000 (−3.000 to +1.000)"


def test_without_another_model_there_is_one_whisker() -> None:
    (row,) = groups(result("runs/a", against=None))[0].rows
    assert [one.color for one in row.whiskers] == [1]
    assert (row.difference, row.verdict) == ("", None)


def test_several_runs_share_a_row() -> None:
    (row,) = compared([result("runs/a"), None, result("runs/b", against=None)])[0].rows
    assert [one.color for one in row.whiskers] == [0, 2]
    assert row.verdict is None
    assert compared([None, None]) == []


def test_units_of_metrics() -> None:
    assert written_as("accuracy")(0.5) == "50.0%"
    assert written_as("loss")(0.5) == "0.5000"


@given(st.text(max_size=60), st.text(max_size=60))
def test_pieces_are_the_texts_again(before: str, after: str) -> None:
    old, new = marked(before, after)
    assert "".join(text for text, _ in old) == before
    assert "".join(text for text, _ in new) == after
    same = [[text for text, different in side if not different] for side in (old, new)]
    assert "".join(same[0]) == "".join(same[1])


def test_what_differs_is_marked() -> None:
    old, new = marked("주문 15번", "주문 20번")
    assert (old[0], new[0]) == (("주문 ", False), ("주문 ", False))
    assert (old[1], new[1]) == (("15번", True), ("20번", True))


def test_answers_that_are_equal_are_no_example() -> None:
    found = result("runs/a")
    call = {"function": {"name": "f", "arguments": '{"x": 1}'}}
    answers = [
        kept("base", 0, "같은 말"),
        kept("runs/a", 0, "같은 말"),
        kept("base", 1, "모릅니다"),
        kept("runs/a", 1, "", [call]),
        kept("runs/a", 2, "alone"),
    ]
    shown, count = examples(found, answers)
    assert count == 1
    assert shown[0].question == "test.jsonl:2"
    assert "".join(text for text, _ in shown[0].after) == 'f({"x": 1})'
