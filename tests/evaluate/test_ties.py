"""Answers of two backends part at a tie, or they do not."""

from __future__ import annotations

from axtune.evaluate.answers import Kept
from axtune.evaluate.ties import ties_of


def kept(ids: list[int], margins: list[float] | None = None) -> Kept:
    return Kept("k", "m", "q", "c", "", "", 0, "", [], True, ids, margins or [])


def test_where_they_part_the_lead_decides() -> None:
    left = [
        kept([1, 2, 3], [5.0, 4.0, 3.0]),
        kept([1, 2, 3], [5.0, 1e-4, 3.0]),
        kept([1, 2, 3], [5.0, 0.5, 3.0]),
        kept([1, 2], [5.0, 2e-4]),
    ]
    right = [kept([1, 2, 3]), kept([1, 9, 9]), kept([1, 9, 3]), kept([1])]
    found = ties_of(left, right, 1e-7)
    assert found == {"compared": 4, "differ": 3, "at_a_tie": 2, "widest": 0.5, "bound": 1e-3}
    assert ties_of(right, left, 1e-7) == found


def test_the_bound_grows_with_rounding() -> None:
    left, right = [kept([1, 2], [9.0, 0.2])], [kept([1, 3])]
    assert ties_of(left, right, 2**-7)["at_a_tie"] == 1  # bfloat16
    assert ties_of(left, right, 2**-23)["at_a_tie"] == 0


def test_answers_without_tokens_are_not_compared() -> None:
    assert ties_of([kept([1])], [kept([])], 1e-7)["compared"] == 0


def test_answers_that_part_where_nobody_knows_the_lead_are_no_tie() -> None:
    assert ties_of([kept([1])], [kept([2])], 1e-7)["at_a_tie"] == 0
