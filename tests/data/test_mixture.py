"""Mixtures: weights as before, shares of the tokens met, replay as one, all by seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.config.recipe import Data, Source
from axtune.data.mixture import Span, mix, parts_of, spans_of


def span(rows: int, replay: float | None = None, **source: Any) -> Span:
    return Span(Source.model_validate({"path": "a.jsonl", **source}), rows, replay)


def mixed(spans: list[Span], tokens: list[int], seed: int = 0) -> np.ndarray:
    return mix(spans, np.array(tokens, np.int64), np.random.default_rng(seed))


def test_weights_alone_are_numbers_of_times() -> None:
    times = mixed([span(3), span(4, weight=2), span(2, weight=0.5)], [5] * 9)
    assert times[:7].tolist() == [1, 1, 1, 2, 2, 2, 2]
    assert set(times[7:].tolist()) <= {0, 1}
    assert mixed([span(3)], [5, 0, 5]).tolist() == [1, 0, 1]  # held out, or refused


def test_the_fraction_of_a_weight_is_drawn_as_it_always_was() -> None:
    draw = np.random.default_rng(3).random(6) < 0.5
    assert mixed([span(6, weight=1.5)], [7] * 6, seed=3).tolist() == (1 + draw).tolist()


@given(
    st.lists(st.integers(1, 60), min_size=20, max_size=60),
    st.lists(st.integers(1, 60), min_size=20, max_size=60),
    st.floats(0.05, 0.6),
    st.integers(0, 99),
)
def test_a_share_is_met_within_a_row(
    plain: list[int], other: list[int], share: float, seed: int
) -> None:
    spans = [span(len(plain)), span(len(other), share=share)]
    tokens = np.array([*plain, *other], np.int64)
    times = mix(spans, tokens, np.random.default_rng(seed))
    assert (times[: len(plain)] == 1).all()
    seen = int((tokens * times)[len(plain) :].sum())
    wanted = sum(plain) * share / (1 - share)
    assert abs(seen - wanted) <= max(other)
    drawn = times[len(plain) :]
    assert drawn.max() - drawn.min() <= 1  # no row is favoured
    assert (mix(spans, tokens, np.random.default_rng(seed)) == times).all()


@pytest.mark.parametrize("seed", range(5))
def test_what_has_a_share_is_there_however_long_its_rows_are(seed: int) -> None:
    times = mixed([span(10), span(4, replay=0.1)], [10] * 10 + [0, 90, 80, 70], seed)
    assert times[10] == 0
    assert times[11:].sum() == 1


def test_replay_is_one_share_whatever_its_weights() -> None:
    spans = [span(100), span(10, replay=0.2), span(10, replay=0.2, weight=3)]
    tokens = np.full(120, 50, np.int64)
    parts = parts_of(spans, tokens, mix(spans, tokens, np.random.default_rng(0)))
    assert [part.replay for part in parts] == [False, True, True]
    assert parts[1].share + parts[2].share == pytest.approx(0.2, abs=0.01)
    assert parts[2].tokens == pytest.approx(3 * parts[1].tokens, rel=0.2)
    assert parts[0].seen == 1


def test_where_all_have_shares_the_first_that_is_used_up_ends_the_epoch() -> None:
    spans = [span(10, share=0.5), span(100, share=0.5)]
    tokens = np.full(110, 8, np.int64)
    parts = parts_of(spans, tokens, mix(spans, tokens, np.random.default_rng(0)))
    assert [part.tokens for part in parts] == [80, 80]
    assert parts[0].rows == parts[1].rows == 10


def test_a_limit_draws_rows_before_all_else() -> None:
    times = mixed([span(50, limit=7, weight=2), span(3)], [5] * 53)
    assert sorted(times[:50].tolist()) == [0] * 43 + [2] * 7
    other = mixed([span(50, limit=7, weight=2), span(3)], [5] * 53, seed=1)
    assert other.tolist() != times.tolist()


def test_a_source_of_nothing_is_no_fault() -> None:
    assert mixed([span(2), span(2, share=0.3)], [5, 5, 0, 0]).tolist() == [1, 1, 0, 0]
    assert mixed([span(1, share=0.3), span(1, share=0.7)], [0, 0]).tolist() == [0, 0]


def test_the_sources_of_a_recipe() -> None:
    data = Data.model_validate(
        {"train": ["a", {"path": "b", "share": 0.2}], "replay": {"train": "c", "share": 0.3}}
    )
    spans = spans_of(data, [1, 2, 3])
    assert [(one.source.path, one.rows, one.replay) for one in spans] == [
        ("a", 1, None), ("b", 2, None), ("c", 3, 0.3),
    ]  # fmt: skip
