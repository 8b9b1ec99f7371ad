"""Questions that ask the same as an earlier one.

Alike are texts of letters and digits whose runs of three characters overlap (Jaccard), with the
same numbers in them: "2023년 매출은?" and "2024년 매출은?" are two questions.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from axtune.data.row_text import letters
from axtune.drafting.agreement import numbers_of

LEAST_JACCARD = 0.7


def near_duplicates(questions: Sequence[str]) -> list[int | None]:
    """For each question the number of the earlier one that it repeats, or None.

    What is itself a repetition is repeated by nobody: each question is held against those before it
    that are kept.

    Args:
        questions: In the order in which they count.
    """
    runs = [_runs(question) for question in questions]
    common = Counter(run for found in runs for run in found)
    kept: defaultdict[tuple[frozenset[str], str], list[int]] = defaultdict(list)
    earlier: list[int | None] = []
    for number, found in enumerate(runs):
        same_numbers = frozenset(numbers_of(questions[number]))
        # Two sets this much alike share one of the rarest runs of each (prefix filtering: Chaudhuri
        # et al., A Primitive Operator for Similarity Joins, ICDE 2006).
        ordered = sorted(found, key=lambda run: (common[run], run))
        prefix = ordered[: len(found) - math.ceil(LEAST_JACCARD * len(found)) + 1]
        near = sorted({other for run in prefix for other in kept[same_numbers, run]})
        first = next(
            (other for other in near if _jaccard(found, runs[other]) >= LEAST_JACCARD), None
        )
        earlier.append(first)
        if first is None:
            for run in prefix:
                kept[same_numbers, run].append(number)
    return earlier


def _runs(text: str) -> frozenset[str]:
    said = letters(text)
    if len(said) < 3:
        return frozenset([said])
    return frozenset(said[i : i + 3] for i in range(len(said) - 2))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
