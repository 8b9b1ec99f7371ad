"""A row that says itself that its answers are worth something else is refused."""

from __future__ import annotations

from typing import Any

import pytest
from support.rows import chat
from support.turns import ANSWER, read

from axtune.data.parse import PreferenceRow, read_row
from axtune.data.verdicts import is_good

PAIR = {"prompt": "q", "chosen": "좋음", "rejected": "나쁨"}


@pytest.mark.parametrize(
    "verdict",
    [
        {"preference": "rejected"}, {"preference": "b"}, {"preference": 2}, {"Preferred": "B"},
        {"winner": "model_b"}, {"winner": "tie"}, {"label": 0}, {"label": "tie"}, {"label": False},
        {"chosen_is_better": False}, {"isChosenBetter": "no"}, {"rejected_is_better": True},
        {"is_tie": True}, {"status": "tie"}, {"margin": -3}, {"reward_margin": "-0.1"},
        {"chosen_rating": 1.0, "rejected_rating": 5.0},
        {"score_chosen": "1", "score_rejected": 9},
        {"chosenScore": 0.1, "rejectedScore": 0.2},
        {"chosen_rank": 2, "rejected_rank": 1},
        {"chosen_is_correct": False, "rejected_is_correct": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_pair_that_contradicts_itself_is_refused(verdict: dict[str, Any]) -> None:
    for row in (PAIR, chat("q", "좋음", rejected_response="나쁨")):
        _, problems = read_row(row | verdict)
        errors = [problem for problem in problems if problem.severity == "error"]
        assert {problem.code for problem in errors} == {"bad-label"}
        assert errors[0].message.startswith(next(iter(verdict)))


@pytest.mark.parametrize(
    "verdict",
    [
        {"preference": "chosen"}, {"preference": "A"}, {"winner": 1}, {"label": True},
        {"label": "1"}, {"chosen_is_better": True}, {"is_tie": False}, {"status": "completed"},
    ],
    ids=str,
)  # fmt: skip
def test_a_verdict_that_agrees_is_silent(verdict: dict[str, Any]) -> None:
    read_pair, problems = read_row(PAIR | verdict)
    assert isinstance(read_pair, PreferenceRow)
    assert problems == []


@pytest.mark.parametrize(
    "verdict",
    [
        {"chosen_rating": 5, "rejected_rating": 1}, {"score_chosen": 5, "score_rejected": 5},
        {"margin": 0.5}, {"preference": "helpfulness"}, {"chosen_rating": "high"},
        {"overall_preference": -3},
    ],
    ids=str,
)  # fmt: skip
def test_how_much_better_an_answer_is_is_named(verdict: dict[str, Any]) -> None:
    _, (problem,) = read_row(PAIR | verdict)
    assert (problem.code, problem.severity) == ("unread-key", "warning")


@pytest.mark.parametrize(
    "verdict",
    [
        {"is_correct": False}, {"accepted": "no"}, {"feedback": "thumbs_down"}, {"desirable": 0},
        {"thumbs_down": True}, {"isToxic": True}, {"feedback": "👎"}, {"kto_label": "undesirable"},
        {"resolved": False}, {"status": "rejected"}, {"feedback": -1}, {"deleted": True},
        {"quality": "bad"}, {"user_feedback": "dislike"}, {"좋아요": False}, {"평가": "나쁨"},
        {"correct_answer": "다른 답"}, {"incorrect_answers": ["A", "좋음"]},
        {"negative_messages": [[{"role": "user", "content": "q"}]]},
    ],
    ids=str,
)  # fmt: skip
def test_an_answer_that_is_called_bad_is_refused(verdict: dict[str, Any]) -> None:
    for row in (chat("q", "좋음"), {"question": "q", "answer": "좋음"}):
        _, problems = read_row(row | verdict)
        assert "bad-label" in [problem.code for problem in problems]


@pytest.mark.parametrize(
    ("verdict", "codes"),
    [
        ({"is_correct": True, "accepted": 1, "feedback": "good", "flagged": False}, []),
        ({"passed": None, "thumbs": ""}, []),
        ({"status": "completed", "quality": "excellent", "deleted": False}, []),
        ({"helpfulness": 0, "correctness": 0}, ["unread-key"]),
        ({"feedback": "말투가 아쉽다"}, ["unread-key"]),
        ({"incorrect_answers": ["A"]}, ["unread-key"]),
        ({"correct_answer": "좋"}, ["unread-key"]),
    ],
    ids=str,
)
def test_what_calls_no_answer_bad(verdict: dict[str, Any], codes: list[str]) -> None:
    assert [problem.code for problem in read_row(chat("q", "좋음") | verdict)[1]] == codes


def test_a_trace_is_judged_too() -> None:
    call = {"name": "f", "arguments": {}}
    row = {"query": "q", "answers": [call], "tools": [{"name": "f"}]}
    assert read_row(row)[1] == []
    assert [problem.code for problem in read_row(row | {"is_correct": False})[1]] == ["bad-label"]


def test_a_turn_that_is_called_bad_is_context_or_refused() -> None:
    _, (problem,) = read({**ANSWER, "is_correct": False})
    assert problem.startswith("bad-label: turns[0].is_correct")
    assert read({**ANSWER, "is_correct": False, "weight": 0})[1] == []
    _, (problem,) = read({**ANSWER, "alternatives": ["x"]})
    assert problem.startswith("unread-key: turns[0]: the key alternatives")


def test_what_a_column_says_of_an_answer() -> None:
    assert is_good("isCorrect", "true") is True
    assert is_good("thumbs_down", 1) is False
    assert is_good("score", 0) is None
    assert is_good("accepted", "later") is None
