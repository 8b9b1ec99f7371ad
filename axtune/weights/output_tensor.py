"""What a checkpoint to be written holds: its tensors, where they come from, and in which files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from axtune.checkpoint.locate import SINGLE
from axtune.errors import AxtuneError
from axtune.weights.safetensors_file import TensorInfo, load

# Changes rows of a tensor in place: rows (n, width) in float32, the index of the first of them, and
# scratch of the same shape.
Step = Callable[[torch.Tensor, int, torch.Tensor], None]


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """Numbers packed in blocks, each with a scale of its own.

    Attributes:
        name: Of the format.
        count: Numbers in a block; rows hold whole blocks.
        nbytes: Bytes in a block.
        largest: The largest magnitude that it holds.
        pack: Rows (n, width) in float32 to their bytes, (n, width / count * nbytes) in uint8.
    """

    name: str
    count: int
    nbytes: int
    largest: float
    pack: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A tensor of the checkpoint to write.

    Attributes:
        name: Its name there.
        dtype: Its dtype there; what differs from the source's is rounded once, from float32.
        shape: Its shape there, which is the source's.
        source: Where its numbers come from; None for zeros.
        prepare: Gives the steps to take on each block of rows, when the tensor's turn comes; None
            copies the bytes.
        packed: The format that its rows are packed in, instead of a dtype.
        head_rows: Rows of an attention head whose halves are to be interleaved (the rows 0, 1, 2, 3
            of a head of four become 0, 2, 1, 3); None keeps the order.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    source: TensorInfo | None
    prepare: Callable[[], Sequence[Step]] | None = None
    packed: BlockFormat | None = None
    head_rows: int | None = None

    @property
    def row_bytes(self) -> int:
        """The size of a row in bytes; a vector's rows are its numbers."""
        width = row_width(self.shape)
        if self.packed:
            return width // self.packed.count * self.packed.nbytes
        return width * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        if self.packed:
            return math.prod(self.shape) // self.packed.count * self.packed.nbytes
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def as_stored(self) -> bool:
        """Whether its bytes are the source's, unless steps change them."""
        same = self.source is not None and self.source.dtype == self.dtype
        return same and not (self.packed or self.head_rows)


Shards = dict[str, list[OutputTensor]]


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


_S = TypeVar("_S", bound=_Sized)


def resharded(pieces: Sequence[_S], max_bytes: int) -> dict[str, list[_S]]:
    """Spread tensors over files of a largest size, in order.

    Args:
        pieces: All tensors.
        max_bytes: Of a file's tensors; a single larger tensor has a file of its own.
    """
    groups: list[list[_S]] = [[]]
    filled = 0
    for piece in pieces:
        if groups[-1] and filled + piece.nbytes > max_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(piece)
        filled += piece.nbytes
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    count = len(groups)
    return {
        f"model-{number:05d}-of-{count:05d}.safetensors": group
        for number, group in enumerate(groups, start=1)
    }


def total_bytes(shards: Shards) -> int:
    """The size of all tensors together."""
    return sum(piece.nbytes for pieces in shards.values() for piece in pieces)


def row_width(shape: tuple[int, ...]) -> int:
    """Numbers in a row; a vector's rows are its numbers."""
    return math.prod(shape[1:])


def in_memory(piece: OutputTensor, start: int = 0, stop: int | None = None) -> torch.Tensor:
    """Rows of a tensor to write, as they would be written, for who needs them before.

    Args:
        piece: Of a checkpoint to write; not packed, its rows in order.
        start: The first row; a vector's rows are its numbers.
        stop: Behind the last one; None for all.

    Returns:
        (stop - start, width), or (stop - start,) of a vector, in the piece's dtype.

    Raises:
        AxtuneError: When a number is not finite.
    """
    count = (piece.shape[0] if stop is None else stop) - start
    shape = (count, *piece.shape[1:])
    if piece.source is None:
        return torch.zeros(shape, dtype=piece.dtype)
    source, width = piece.source, row_width(piece.shape)
    offset = source.offset + start * width * source.dtype.itemsize
    stored = load(TensorInfo(source.name, source.dtype, shape, source.file, offset))
    rows = stored.float().view(count, width)
    if piece.prepare:
        scratch = torch.empty_like(rows)
        for step in piece.prepare():
            step(rows, start, scratch)
    if not rows.isfinite().all():
        raise AxtuneError(
            f"{piece.name} would hold numbers that are not finite.",
            "Use an earlier checkpoint of the adapter (its training diverged), or copy the weights "
            "again.",
        )
    return rows.to(piece.dtype).view(shape)
