"""Packing: several samples in one sequence, each of them as if it stood alone.

Samples are packed over the whole data set, longest first, each into the fullest pack that has room
for it (best-fit decreasing; D. S. Johnson, "Near-optimal bin packing algorithms", 1973). A pack is
one forward pass: no padding, positions that restart with every sample, and attention that is
block-diagonal, a plain causal call for each sample, so that no mask grows with the square of the
pack. How many samples an optimiser step learns from stays what the recipe says, on average; what
shrinks is the number of passes that they take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from axtune.errors import AxtuneError
from axtune.render import IGNORED

# The name under which transformers' attention interface knows `_attend`.
_ATTENTION = "axtune_documents"

_PRECISION = 512  # the capacity is sought to a part in so many


@dataclass(frozen=True)
class Packing:
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
) -> Packing:
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
    return Packing(packs, per_step, int(sizes.max()), total, slots, passes, padding)


class Packs(torch.utils.data.Dataset[dict[str, Any]]):
    """Packs as rows: ``input_ids`` and ``labels`` of the samples one after the other, ``lengths``.

    Args:
        rows: A `datasets.Dataset` of samples with ``input_ids`` and ``labels``.
        packs: Of each pack, the indices of its samples.
    """

    def __init__(self, rows: Any, packs: Sequence[Sequence[int]]) -> None:
        self.rows = rows
        self.packs = packs

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        columns = self.rows[self.packs[index]]
        names = ("input_ids", "labels")
        samples = zip(*(columns[name] for name in names), strict=True)
        return _joined([dict(zip(names, sample, strict=True)) for sample in samples])


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """One sequence of samples or packs.

    Returns:
        ``lengths`` (samples,); ``input_ids``, ``labels`` and ``position_ids``, (1, tokens). A
        sample's first token has no label: what stands before it is another sample.
    """
    row = _joined(rows)
    lengths = torch.tensor(row["lengths"])
    labels = torch.tensor([row["labels"]])
    labels[0, lengths.cumsum(0)[:-1]] = IGNORED
    positions = torch.cat([torch.arange(length) for length in row["lengths"]])
    return {
        "lengths": lengths,  # first: a trainer takes the size of a batch from the first tensor
        "input_ids": torch.tensor([row["input_ids"]]),
        "labels": labels,
        "position_ids": positions[None],
    }


def install(model: PreTrainedModel) -> None:
    """Make a causal language model attend within samples: it takes ``documents`` from now on.

    Args:
        model: The base, under whatever adapters; changed in place.

    Raises:
        AxtuneError: When a layer's attention is not full.
    """
    take_attention(model, _ATTENTION, _attend, "data.packing=false")


def take_attention(
    model: PreTrainedModel, name: str, attend: Callable[..., Any], way_out: str
) -> None:
    """Give a model's layers an attention function of axtune's, through transformers' interface.

    Args:
        model: Changed in place.
        name: Of the function in the interface.
        attend: With the interface's signature.
        way_out: The word of a recipe that does without.

    Raises:
        AxtuneError: When a layer's attention is not full.
    """
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise AxtuneError(
            f"{model.name_or_path} has layers of {', '.join(sorted(kinds))}; sequences are laid "
            "together for full attention only.",
            f"Set {way_out}.",
        )
    AttentionInterface.register(name, attend)
    model.set_attn_implementation(name)


def for_flash_attention(lengths: torch.Tensor) -> dict[str, Any]:
    """What transformers' flash attention takes to keep samples apart (`FlashAttentionKwargs`)."""
    ends = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    longest = int(lengths.max())
    return {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _joined(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples or packs, one after the other."""
    joined: dict[str, Any] = {"input_ids": [], "labels": [], "lengths": []}
    for row in rows:
        joined["input_ids"] += row["input_ids"]
        joined["labels"] += row["labels"]
        joined["lengths"] += row.get("lengths", [len(row["input_ids"])])
    return joined


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


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    documents: Sequence[int],
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sample; the signature is transformers' attention interface's.

    Args:
        module: The layer's attention.
        query: (1, heads, tokens, width).
        key: (1, key heads, tokens, width).
        value: As `key`.
        attention_mask: Not used: `documents` says all.
        documents: Tokens of each sample, in order.
        kwargs: Scaling and dropout, passed on.

    Returns:
        (1, tokens, heads, width), and no weights.
    """
    ends = np.cumsum([0, *documents]).tolist()
    outputs = []
    for begin, end in pairwise(ends):
        q, k, v = (states[:, :, begin:end] for states in (query, key, value))
        outputs.append(sdpa_attention_forward(module, q, k, v, None, **kwargs)[0])
    return torch.cat(outputs, dim=1), None
