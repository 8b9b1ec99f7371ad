"""Which samples go into which pack. Imports no torch: a plan asks as well as training.

Samples are packed over the whole data set, longest first, each into the fullest pack that has room
for it (best-fit decreasing; D. S. Johnson, "Near-optimal bin packing algorithms", 1973). How many
samples an optimiser step learns from stays what the recipe says, on average; what shrinks is the
number of passes that they take.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PRECISION = 512  # the capacity is sought to a part in so many


@dataclass(frozen=True)
class PackLayout:
    """How the samples of an epoch are laid into packs.

    Attributes:
        packs: Of each pack, the indices of its samples.
        per_step: Packs that one process takes an optimiser step.
        longest: Tokens of the longest pack.
        tokens: Of all samples.
        slots: Tokens that the packs have room for; a sample that is longer than the others' packs
            is one by itself.
        unpacked: Passes that an epoch takes without packing: micro-batches of the recipe's size.
        padding: Share of the token slots in those that padding takes.
    """

    packs: list[list[int]]
    per_step: int
    longest: int
    tokens: int
    slots: int
    unpacked: int
    padding: float

    @property
    def filled(self) -> float:
        """Share of the packs' slots that hold a token."""
        return self.tokens / self.slots


def arrange(
    lengths: NDArray[np.int64],
    *,
    batch_size: int,
    accumulation: int,
    max_length: int,
    processes: int = 1,
    seed: int = 0,
) -> PackLayout:
    """Lay samples into packs.

    A step's samples go into as few packs as ``batch_size × max_length`` tokens in each allow, which
    is what a micro-batch without packing may come to.

    Args:
        lengths: Tokens of each sample.
        batch_size: Samples of a micro-batch, as the recipe has them.
        accumulation: Micro-batches a step, as the recipe has them.
        max_length: ``data.max_length``, in tokens.
        processes: That train together.
        seed: Of the order among samples of one length.
    """
    total, rows = int(lengths.sum()), len(lengths)
    samples = min(batch_size * accumulation, -(-rows // processes))  # a step and process
    largest = batch_size * max_length
    order = np.random.default_rng(seed).permutation(rows)
    padding = 1 - total / _padded(lengths[order], batch_size)
    order = order[np.argsort(-lengths[order], kind="stable")]
    per_step = max(1, -(-total * samples // (rows * largest)))
    packs = _fill(lengths, order, largest)
    while len(packs) > (wanted := -(-rows * per_step // samples)):
        per_step += 1
    # The smallest capacity that gives so many packs: full ones, and steps of a like size.
    low, high = 1, largest
    while high - low > high // _PRECISION:
        middle = (low + high) // 2
        tried = _fill(lengths, order, middle)
        if len(tried) <= wanted:
            packs, high = tried, middle
        else:
            low = middle + 1
    sizes = np.array([lengths[pack].sum() for pack in packs])
    slots = int(np.maximum(sizes, high).sum())
    passes = -(-rows // (batch_size * processes)) * processes
    return PackLayout(packs, per_step, int(sizes.max()), total, slots, passes, padding)


def _fill(lengths: NDArray[np.int64], order: NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Best-fit decreasing.

    Args:
        lengths: Tokens of each sample; one above the capacity gets a pack of its own.
        order: Indices of the samples, longest first.
        capacity: Of a pack, in tokens.
    """
    packs: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # packs with so many tokens left
    rooms = 0  # bit n is set when a pack has n tokens left, so that the least that fits is one step
    for index, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            pack = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room, pack = capacity, len(packs)
            packs.append([])
        packs[pack].append(index)
        if (left := room - length) > 0:
            by_room[left].append(pack)
            rooms |= 1 << left
    return packs


def _padded(lengths: NDArray[np.int64], batch_size: int) -> int:
    """Token slots of the samples in micro-batches in this order, padded to the longest of each."""
    starts = np.arange(0, len(lengths), batch_size)
    widest = np.maximum.reduceat(lengths, starts)
    return int((widest * np.diff([*starts, len(lengths)])).sum())
