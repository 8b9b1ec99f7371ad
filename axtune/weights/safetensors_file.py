"""Safetensors files: what a checkpoint holds, and reading it into memory that is used again.

Format: https://huggingface.co/docs/safetensors: 8 bytes of header length, little-endian; the header
in JSON, each tensor's dtype, shape and place; then the tensors' bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from axtune.checkpoint.locate import INDEX, SINGLE, read_json
from axtune.checkpoint.schemas import ShardIndex
from axtune.errors import CheckpointError
from axtune.model.finite import count_nonfinite
from axtune.weights.direct_io import Buffer, DirectReader

# From 4 to 16 MiB the disk is as fast; more only costs memory.
BLOCK_BYTES = 8 << 20

_MOST_HEADER_BYTES = 100_000_000  # as the safetensors library

_Offset = Annotated[int, Field(ge=0, le=1 << 60)]

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor in a safetensors file.

    Attributes:
        name: Its name in the file.
        dtype: Of its numbers.
        shape: Of the tensor.
        file: Where it is.
        offset: Of its first byte, from the beginning of the file.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path
    offset: int

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_checkpoint(folder: Path) -> dict[str, list[TensorInfo]]:
    """What the safetensors files of a checkpoint hold.

    Args:
        folder: With ``model.safetensors``, or shards and their index.

    Returns:
        The tensors of each file, in the order of their bytes.

    Raises:
        CheckpointError: When shards or tensors are missing, cut short, or stand twice.
    """
    index = folder / INDEX
    if index.is_file():
        weight_map = read_json(index, ShardIndex)["weight_map"]
        names = sorted(set(weight_map.values()))
    else:
        weight_map, names = None, [SINGLE]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}.", "Copy the checkpoint again.")
    shards = {name: read_header(folder / name) for name in names}
    found = {tensor.name: shard for shard, tensors in shards.items() for tensor in tensors}
    if weight_map is not None and weight_map != found:
        astray = sorted(set(weight_map.items()) ^ set(found.items()))
        raise CheckpointError(
            f"{index} and its shards disagree on {len(astray)} tensors, {astray[0][0]} first.",
            "Index and shards are of different checkpoints; copy it again.",
        )
    return shards


def read_header(file: Path) -> list[TensorInfo]:
    """The tensors of a safetensors file, in the order of their bytes.

    Raises:
        CheckpointError: When the file is not safetensors, shorter than its header says, or its
            tensors do not lie one behind the other in all of it, as the format wants them.
    """
    broken = CheckpointError(
        f"{file} is not a safetensors file, or is incomplete.", "Copy the checkpoint again."
    )
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _MOST_HEADER_BYTES):
            raise broken
        raw = stream.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_once)
        if isinstance(header, dict):
            header.pop("__metadata__", None)
        entries = _ENTRIES.validate_python(header)
    except (ValueError, RecursionError):  # of pydantic's, JSON's and UTF-8's too
        raise broken from None
    tensors, end = [], 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        if entry.dtype not in DTYPES:
            raise CheckpointError(
                f"{file}: {name[:200]} is of the dtype {entry.dtype[:20]}, which axtune does not "
                "read.",
                "Save the weights again in bfloat16.",
            )
        tensor = TensorInfo(name, DTYPES[entry.dtype], tuple(entry.shape), file, end)
        start, stop = (8 + length + offset for offset in entry.data_offsets)
        if start != end or stop - start != tensor.nbytes:
            raise CheckpointError(
                f"{file}: shape and size of {name[:200]} disagree, or it lies upon another tensor.",
                "The file is damaged; copy the checkpoint again.",
            )
        tensors.append(tensor)
        end = stop
    if end != size:
        raise CheckpointError(
            f"{file} has {size:,} bytes, and its header declares {end:,}.",
            "The file is incomplete; copy the checkpoint again.",
        )
    return tensors


class _Entry(BaseModel):
    """What a header says of a tensor."""

    model_config = ConfigDict(strict=True)

    dtype: str
    shape: Annotated[list[Annotated[int, Field(ge=0, le=1 << 40)]], Field(max_length=8)]
    data_offsets: Annotated[list[_Offset], Field(min_length=2, max_length=2)]


_ENTRIES = TypeAdapter(dict[str, _Entry])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys stand once: of two tensors of a name, readers take one or other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def nonfinite_in(tensor: TensorInfo) -> int:
    """How many numbers of a stored tensor are NaN or infinite."""
    if not tensor.dtype.is_floating_point:
        return 0
    return sum(map(count_nonfinite, blocks(tensor)))


def is_zero(tensor: TensorInfo) -> bool:
    """Whether every number of a stored tensor is 0; of others only the beginning is read."""
    return not any(bool(block.any()) for block in blocks(tensor))


def require_floats(tensors: Iterable[TensorInfo], name: str) -> None:
    """Refuse tensors of whole numbers: they are packed weights, which cannot be added to.

    Args:
        tensors: Of a checkpoint.
        name: The checkpoint's, for the message.

    Raises:
        CheckpointError: When one of them is not of floating point.
    """
    for tensor in tensors:
        if not tensor.dtype.is_floating_point:
            raise CheckpointError(
                f"{name}: {tensor.name} is {tensor.dtype}; expected floating point.",
                "Give the 16-bit weights that it was made from.",
            )


def header_bytes(
    tensors: Iterable[tuple[str, torch.dtype, tuple[int, ...], int]], length: int = 0
) -> bytes:
    """The first bytes of a safetensors file.

    Args:
        tensors: Name, dtype, shape, and the place of the first byte behind the header, of each.
        length: Of the result; what the header is shorter is filled with spaces, which the format
            allows. At least as long as it must be.
    """
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, dtype, shape, start in tensors:
        entries[name] = {
            "dtype": DTYPE_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [start, start + math.prod(shape) * dtype.itemsize],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    text = text.ljust(length - 8)
    return len(text).to_bytes(8, "little") + text


def load(tensor: TensorInfo) -> torch.Tensor:
    """Read one tensor, in its own dtype; for the small ones of an adapter."""
    buffer = bytearray(tensor.nbytes)
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.offset)
        stream.readinto(buffer)
    if not buffer:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    return torch.frombuffer(buffer, dtype=tensor.dtype).view(tensor.shape)


def blocks(tensor: TensorInfo, multiple: int = 1) -> Iterator[torch.Tensor]:
    """Read a tensor's numbers in order, flat, a block at a time, in one buffer.

    Args:
        tensor: Which.
        multiple: Each block but the last has a number of elements that is a multiple of this.

    Yields:
        The next numbers; they are overwritten by the block after.
    """
    itemsize = tensor.dtype.itemsize
    step = max(multiple, BLOCK_BYTES // itemsize // multiple * multiple)
    buffer = Buffer()
    source = DirectReader(tensor.file)
    try:
        total = math.prod(tensor.shape)
        for start in range(0, total, step):
            count = min(step, total - start)
            skip = source.read(buffer, tensor.offset + start * itemsize, count * itemsize, 0)
            yield buffer.view(count, tensor.dtype, skip)
    finally:
        source.close()
