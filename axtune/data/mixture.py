"""How often each row is seen in an epoch: sources with weights, with shares of the tokens, replay.

Sources without a share are seen as often as their weights say; what they come to is the rest of the
epoch. A source with a share is seen so often that its tokens are that share of all; so is replay as
a whole, whatever the weights within it. Where every source has a share, the epoch ends when the
first of them is used up. Which rows are seen once more than others is drawn by seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from axtune.config.recipe import Data, Source

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """The rows of a source, one behind the other.

    Attributes:
        source: As the recipe has it.
        rows: How many were read.
        replay: The share of the epoch's tokens that replay has, where it is a source of it.
    """

    source: Source
    rows: int
    replay: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What a source has of an epoch.

    Attributes:
        source: Its path.
        replay: Whether it is a source of replay.
        asked: What its recipe says of it: ``weight 2``, ``limit 100``, ``share 20%``.
        read: Its rows.
        rows: Different rows that are seen.
        seen: How often one of them is seen on average.
        tokens: Of an epoch.
        share: Of all tokens of an epoch.
    """

    source: str
    replay: bool
    asked: str
    read: int
    rows: int
    seen: float
    tokens: int
    share: float


def spans_of(data: Data, rows: Sequence[int]) -> list[Span]:
    """The rows of all sources of a recipe.

    Args:
        data: Its data section.
        rows: How many each source has.
    """
    own = len(data.train)
    return [
        Span(source, count, data.replay.share if data.replay and place >= own else None)
        for place, (source, count) in enumerate(zip(data.sources, rows, strict=True))
    ]


def mix(spans: Sequence[Span], tokens: Counts, rng: np.random.Generator) -> Counts:
    """How often each row is seen.

    Args:
        spans: Of all rows, in their order.
        tokens: Of each row; 0 for rows that are held out or cannot be used.
        rng: Draws.
    """
    parts = np.split(tokens, np.cumsum([span.rows for span in spans])[:-1])
    drawn = [
        _limited(part, span.source.limit, rng) for part, span in zip(parts, spans, strict=True)
    ]
    weights = [span.source.weight for span in spans]
    masses = [int(part.sum()) for part in drawn]
    factors = _factors(spans, [m * w for m, w in zip(masses, weights, strict=True)])
    return np.concatenate(
        [
            _times(part, weight * factor, exact=factor != 1, rng=rng)
            for part, weight, factor in zip(drawn, weights, factors, strict=True)
        ]
    )


def parts_of(spans: Sequence[Span], tokens: Counts, times: Counts) -> list[Part]:
    """What each source has of an epoch, in their order.

    Args:
        spans: Of all rows, in their order.
        tokens: Of each row.
        times: How often it is seen.
    """
    cuts = np.cumsum([span.rows for span in spans])[:-1]
    whole = max(int((tokens * times).sum()), 1)
    found = []
    for span, own, seen in zip(spans, np.split(tokens, cuts), np.split(times, cuts), strict=True):
        rows, mass = int((seen > 0).sum()), int((own * seen).sum())
        average = float(seen.sum()) / max(rows, 1)
        found.append(
            Part(
                span.source.path,
                span.replay is not None,
                _asked(span),
                span.rows,
                rows,
                average,
                mass,
                mass / whole,
            )
        )
    return found


def _asked(span: Span) -> str:
    """What a recipe says of how often a source is seen; nothing where it is silent."""
    source = span.source
    said = {
        "weight": source.weight if source.weight != 1 else None,
        "limit": source.limit,
        "share": source.share,
        "replay": span.replay,
    }
    return ", ".join(f"{name} {value:g}" for name, value in said.items() if value is not None)


def _factors(spans: Sequence[Span], masses: Sequence[float]) -> list[float]:
    """By how much the weights of each source are multiplied, so that it comes to its share.

    Args:
        spans: The sources.
        masses: Their tokens by their weights.
    """
    groups: dict[str | int, list[int]] = {}
    shares: dict[str | int, float] = {}
    for number, span in enumerate(spans):
        name = "replay" if span.replay is not None else number
        share = span.replay if span.replay is not None else span.source.share
        groups.setdefault(name, []).append(number)
        if share is not None:
            shares[name] = share
    mass = {name: sum(masses[number] for number in own) for name, own in groups.items()}
    shares = {name: share for name, share in shares.items() if mass[name]}
    rest = sum(mass[name] for name in groups if name not in shares)
    if rest:
        whole = rest / (1 - sum(shares.values()))
    else:
        whole = min((mass[name] / share for name, share in shares.items()), default=0.0)
    factors = [1.0] * len(spans)
    for name, share in shares.items():
        for number in groups[name]:
            factors[number] = share * whole / mass[name]
    return factors


def _limited(tokens: Counts, limit: int | None, rng: np.random.Generator) -> Counts:
    """Tokens of the rows that are taken of a source; 0 for the others."""
    used = np.flatnonzero(tokens)
    if limit is None or len(used) <= limit:
        return tokens
    kept = np.zeros_like(tokens)
    chosen = rng.choice(used, limit, replace=False)
    kept[chosen] = tokens[chosen]
    return kept


def _times(tokens: Counts, weight: float, *, exact: bool, rng: np.random.Generator) -> Counts:
    """How often each row is seen for a weight.

    Args:
        tokens: Of each row; 0 is seen never.
        weight: Its whole part is how often each row is seen; of the fraction the rows are drawn.
        exact: Draw so many rows that their tokens, and not their number, come to the fraction.
        rng: Draws.
    """
    whole = int(weight)
    fraction = weight - whole
    if not exact:
        once_more = rng.random(len(tokens)) < fraction
    else:
        order = rng.permutation(len(tokens))
        begun = np.cumsum(tokens[order]) - tokens[order] / 2  # a row counts from its middle on
        if not whole:  # what has a share is there, however long its rows are
            begun[np.flatnonzero(tokens[order])[:1]] = 0
        once_more = np.zeros(len(tokens), bool)
        once_more[order[begun < fraction * tokens.sum()]] = True
    return (whole + once_more.astype(np.int64)) * (tokens > 0)
