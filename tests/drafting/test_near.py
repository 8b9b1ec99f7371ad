from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.drafting.near import _jaccard, _runs, near_duplicates

QUESTION = "연차휴가 신청은 언제까지 어느 부서에 내야 하나요?"


@pytest.mark.parametrize(
    "other",
    [QUESTION, QUESTION[:-1], QUESTION.replace(" ", ""), QUESTION.replace("하나요", "합니까")],
)
def test_questions_that_ask_the_same(other: str) -> None:
    assert near_duplicates(["재택근무는 누가 승인하나요?", QUESTION, other]) == [None, None, 1]


def test_other_numbers_ask_something_else() -> None:
    questions = ["2023년 국내 매출액은 얼마인가요?", "2024년 국내 매출액은 얼마인가요?"]
    assert near_duplicates(questions) == [None, None]
    assert near_duplicates(["휴가?", "출장?", "휴가"]) == [None, None, 0]
    assert near_duplicates([]) == []


@given(st.lists(st.text(alphabet="가나다", max_size=12), max_size=12))
def test_as_many_as_when_all_are_compared(questions: list[str]) -> None:
    runs = [_runs(question) for question in questions]
    expected: list[int | None] = []
    for number, found in enumerate(runs):
        kept = (other for other in range(number) if expected[other] is None)
        expected.append(next((o for o in kept if _jaccard(found, runs[o]) >= 0.7), None))
    assert near_duplicates(questions) == expected


def test_many_questions_of_one_form_are_compared_in_time() -> None:
    questions = [f"{chr(0xAC00 + n)}{chr(0xAC00 + n * 7 % 11000)} 신청은 언제까지 내야 하나요?"
                 for n in range(4000)]  # fmt: skip
    begun = time.monotonic()
    near_duplicates(questions)
    assert time.monotonic() - begun < 20
