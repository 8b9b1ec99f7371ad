"""What is counted of a sample: its length, its tokens, what is learned."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axtune.data.samples import (
    IGNORED,
    SAMPLE_TYPES,
    PairSample,
    Sample,
    UnpairedSample,
)

ids = st.lists(st.integers(0, 3071), max_size=8)


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Token ids of an answer, and their labels: the id, or ignored."""
    tokens = draw(ids)
    return tokens, [token if draw(st.booleans()) else IGNORED for token in tokens]


def learned(labels: list[int]) -> int:
    return sum(label != IGNORED for label in labels)


@given(answers())
def test_a_conversation_is_one_sequence(answer: tuple[list[int], list[int]]) -> None:
    sample = Sample(*answer)
    assert sample.length == sample.tokens == len(answer[0])
    assert sample.labelled == (learned(answer[1]), 0)
    assert sample.prompt_length == 0


@given(ids, answers(), answers())
def test_a_pair_is_as_long_as_its_longer_half(
    prompt: list[int], chosen: tuple[list[int], list[int]], rejected: tuple[list[int], list[int]]
) -> None:
    pair = PairSample(prompt, chosen[0], rejected[0], chosen[1], rejected[1])
    assert pair.length == max(len(prompt + chosen[0]), len(prompt + rejected[0]))
    assert pair.tokens == len(prompt + chosen[0] + rejected[0])  # the prompt once
    assert pair.labelled == (learned(chosen[1]), learned(rejected[1]))
    swapped = PairSample(prompt, rejected[0], chosen[0], rejected[1], chosen[1])
    assert swapped.labelled == pair.labelled[::-1]


@given(ids, answers(), st.booleans())
def test_an_unwanted_answer_counts_as_rejected(
    prompt: list[int], answer: tuple[list[int], list[int]], label: bool
) -> None:
    sample = UnpairedSample(prompt, *answer, label)
    assert sample.length == sample.tokens == len(prompt + answer[0])
    count = learned(answer[1])
    assert sample.labelled == ((count, 0) if label else (0, count))


def test_what_is_said_of_each() -> None:
    samples = (
        Sample([1, 2, 3], [IGNORED, 2, 3]),
        PairSample([1, 2], [3, 4], [5], [IGNORED, 4], [5]),
        UnpairedSample([1], [2, 3], [2, 3], False),
    )
    assert [sample.figures for sample in samples] == [
        "3 tokens, 2 labelled",
        "prompt of 2 tokens, 1 and 1 labelled",
        "prompt of 1 tokens, 2 labelled, label false",
    ]
    assert list(SAMPLE_TYPES.values()) == [Sample, *map(type, samples)]  # documents first
