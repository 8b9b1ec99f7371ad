"""What an epoch is made of: rows that are held out, how often the others are seen, the account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from axtune.config.recipe import Recipe
from axtune.data.mixture import mix, parts_of, spans_of
from axtune.data.statistics import DatasetStats, StatsBuilder
from axtune.errors import DataError


@dataclass(frozen=True)
class Epoch:
    """What is drawn of the rows that were read.

    Attributes:
        train: Indices of the samples of an epoch, with repetitions.
        held_out: Indices of the samples that are held out of them; empty where ``data.eval`` is no
            share.
        account: Where the training rows went, with what each source has of the epoch.
        eval_account: Where the held-out rows went, or None.
    """

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    account: DatasetStats
    eval_account: DatasetStats | None


def draw(recipe: Recipe, ledger: StatsBuilder, counts: Sequence[int], keys: Sequence[int]) -> Epoch:
    """Hold rows out and mix the others, by the recipe's seed.

    Args:
        recipe: Its data section says how.
        ledger: Of all rows of its training sources.
        counts: How many rows each source has.
        keys: Of each row (`axtune.data.statistics.RowResult`).

    Raises:
        DataError: When nothing is left to train, or there are too few rows to hold some out.
    """
    data = recipe.data
    rng = np.random.default_rng(recipe.seed)
    row_of = np.asarray(ledger.row, np.int64)  # the row of each sample, ascending
    used = np.unique(row_of)
    if not len(used):
        raise _nothing_to_train_on(ledger)
    held_out = np.zeros(ledger.rows_read, bool)
    if isinstance(data.eval, float):
        held_out[hold_out(used, np.asarray(keys, np.uint64)[used], data.eval, rng)] = True
    tokens = np.bincount(row_of, ledger.sizes().tokens, ledger.rows_read).astype(np.int64)
    spans = spans_of(data, counts)
    times = mix(spans, tokens * ~held_out, rng)
    train = np.repeat(np.arange(len(row_of)), times[row_of])
    if not len(train):
        raise DataError(
            f"There is nothing to train on: the weights of data.train leave none of {len(used)} "
            "rows.",
            [],
            "Raise a weight.",
        )
    held = int(held_out.sum())
    mixture = [asdict(part) for part in parts_of(spans, tokens, times)]
    account = replace(ledger.account(train, ledger.rows_read - held), mixture=mixture)
    samples = np.flatnonzero(held_out[row_of])
    return Epoch(train, samples, account, _held_out(ledger, samples, held) if held else None)


def _held_out(ledger: StatsBuilder, samples: NDArray[np.int64], rows: int) -> DatasetStats:
    """The account of rows that were read, and counted, with those that are trained on."""
    return replace(
        ledger.account(samples, rows),
        rows_refused=0,
        rows_left_out=0,
        refused={},
        warnings={},
        personal_data={},
        dropped={},
        overlaps={},
    )


def _nothing_to_train_on(ledger: StatsBuilder) -> DataError:
    if not ledger.rows_read:
        return DataError(
            "There is nothing to train on: the files of data.train hold no rows.",
            [],
            "Give files that hold some.",
        )
    kept_out = ledger.refused + ledger.dropped
    codes = ", ".join(f"{code} {count}" for code, count in kept_out.most_common())
    return DataError(
        f"There is nothing to train on: of {ledger.rows_read} rows of data.train none can be used "
        f"({codes}).",
        [],
        "axtune data check says why, line by line.",
    )


def hold_out(
    used: NDArray[np.int64], keys: NDArray[np.uint64], fraction: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw rows for evaluation; rows of one key stay together, so that none leaks across.

    Args:
        used: Rows with samples.
        keys: Of each of them (`axtune.data.statistics.RowResult`).
        fraction: How many of the rows.
        rng: Draws.
    """
    _, group_of, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise DataError(
            "data.eval is a fraction, and there are too few different rows to hold some out.",
            [],
            "Give a file as data.eval, or set data.eval=null.",
        )
    wanted = max(1, round(len(used) * fraction))
    order = rng.permutation(len(sizes))
    order = order[np.argsort(sizes[order] > wanted, kind="stable")]  # a big one only if it must be
    chosen: list[int] = []
    size = 0
    for group in order[:-1].tolist():
        if not chosen or size + sizes[group] <= wanted:
            chosen.append(group)
            size += int(sizes[group])
        if size >= wanted:
            break
    return used[np.isin(group_of, chosen)]
