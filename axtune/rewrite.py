"""Writing a checkpoint from another one: a stream of tensors, changed on their way.

A few threads each read a block, compute and write it, with buffers of their own: while one waits
for the disk another computes. Buffers are allocated once and used for all blocks, because fresh
memory (page faults) costs more than the arithmetic. Nothing else of the weights is in memory.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from axtune.directio import Buffer, Sink, Source
from axtune.errors import AxtuneError
from axtune.weights import BLOCK_BYTES, DTYPE_NAMES, INDEX, SINGLE, Stored

# Float32 numbers worked on at once: with their scratch they stay in a core's cache.
_CHUNK = 1 << 18
_THREADS = 4

# Changes rows of a tensor in place: rows (n, width) in float32, the index of the first of them, and
# scratch of the same shape.
Step = Callable[[torch.Tensor, int, torch.Tensor], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor of the checkpoint to write.

    Attributes:
        name: Its name there.
        dtype: Its dtype there; what differs from the source's is rounded once, from float32.
        shape: Its shape there, which is the source's.
        source: Where its numbers come from; None for zeros.
        prepare: Gives the steps to take on each block of rows, when the tensor's turn comes; None
            copies the bytes.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    source: Stored | None
    prepare: Callable[[], Sequence[Step]] | None = None

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


Shards = dict[str, list[Piece]]


def resharded(pieces: Sequence[Piece], max_bytes: int) -> Shards:
    """Spread tensors over files of a largest size, in order.

    Args:
        pieces: All tensors.
        max_bytes: Of a file's tensors; a single larger tensor has a file of its own.
    """
    groups: list[list[Piece]] = [[]]
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


def write_checkpoint(folder: Path, shards: Shards) -> None:
    """Write shards, each flushed to the disk, and their index if there are several.

    Args:
        folder: An empty folder.
        shards: File names and their tensors, in the order to write them.

    Raises:
        AxtuneError: When a tensor would hold numbers that are not finite in its dtype.
        OSError: When the disk fills up.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)  # each worker computes by itself, and so does what prepares for them
    workers = ThreadPoolExecutor(_THREADS, "merge", torch.set_num_threads, (1,))
    flusher = ThreadPoolExecutor(1, "flush")
    writer = _Writer(workers)
    flushed = []
    try:
        for name, pieces in shards.items():
            futures, sink = writer.start(folder / name, pieces)
            flushed.append(flusher.submit(_finish, futures, sink))
        for future in flushed:
            future.result()
    except BaseException:
        writer.stopped.set()
        raise
    finally:
        workers.shutdown(wait=True, cancel_futures=True)
        flusher.shutdown(wait=True)
        writer.close()
        torch.set_num_threads(threads_before)
    if list(shards) != [SINGLE]:
        weight_map = {piece.name: shard for shard, pieces in shards.items() for piece in pieces}
        index = {
            "metadata": {"total_size": total_bytes(shards)},
            "weight_map": dict(sorted(weight_map.items())),
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


class _Writer:
    """Cuts tensors into blocks and hands them to the workers."""

    def __init__(self, workers: ThreadPoolExecutor) -> None:
        self.stopped = threading.Event()
        self._workers = workers
        self._sources: dict[Path, Source] = {}
        self._sinks: list[Sink] = []
        self._own = threading.local()
        # So many blocks wait at most: those of a tensor hold its adapter's factors in memory.
        self._slots = threading.Semaphore(4 * _THREADS)

    def start(self, file: Path, pieces: Sequence[Piece]) -> tuple[list[Future[None]], Sink]:
        """Write a shard's header and hand out its blocks.

        Returns:
            The blocks under way, and the file.
        """
        header = _header(pieces)
        sink = Sink(file, header, len(header) + sum(piece.nbytes for piece in pieces))
        self._sinks.append(sink)
        futures: list[Future[None]] = []
        position = len(header)
        for piece in pieces:
            if piece.source is not None:  # a file is zeros where nothing was written
                steps = tuple(piece.prepare()) if piece.prepare else ()
                if piece.source.file not in self._sources:
                    self._sources[piece.source.file] = Source(piece.source.file)
                for start, stop in _row_blocks(piece):
                    self._slots.acquire()
                    if self.stopped.is_set():
                        return futures, sink
                    job = self._workers.submit(
                        self._block, piece, steps, start, stop, sink, position
                    )
                    futures.append(job)
            position += piece.nbytes
        return futures, sink

    def close(self) -> None:
        """Close all files."""
        for source in self._sources.values():
            source.close()
        for sink in self._sinks:
            sink.close()

    def _block(
        self,
        piece: Piece,
        steps: Sequence[Step],
        start: int,
        stop: int,
        sink: Sink,
        position: int,
    ) -> None:
        """Read rows, change them, write them."""
        try:
            if self.stopped.is_set():
                return
            source = piece.source
            assert source is not None
            own = self._buffers()
            width = _width(source.shape)
            count = (stop - start) * width
            position += start * width * piece.dtype.itemsize
            offset = source.offset + start * width * source.dtype.itemsize
            wanted = sink.skip(position)
            size = count * source.dtype.itemsize
            skip = self._sources[source.file].read(own.read, offset, size, wanted)
            buffer = own.read
            same = piece.dtype == source.dtype
            if steps or not (same and skip == wanted):
                rows = own.read.view(count, source.dtype, skip)
                if not (same and skip == wanted):
                    buffer = own.write
                out = buffer.view(count, piece.dtype, wanted)
                if steps or not same:
                    _change(piece, rows.view(-1, width), out.view(-1, width), steps, start, own)
                else:
                    out.copy_(rows)
            size = count * piece.dtype.itemsize
            sink.write(buffer.reserve(wanted + size), position, wanted, size)
        except BaseException:
            self.stopped.set()
            raise
        finally:
            self._slots.release()

    def _buffers(self) -> _Own:
        if not hasattr(self._own, "buffers"):
            self._own.buffers = _Own()
        buffers: _Own = self._own.buffers
        return buffers


class _Own:
    """What each worker has for itself."""

    def __init__(self) -> None:
        self.read = Buffer()
        self.write = Buffer()
        self.rows = Buffer()
        self.scratch = Buffer()


def _change(
    piece: Piece,
    rows: torch.Tensor,
    out: torch.Tensor,
    steps: Sequence[Step],
    start: int,
    own: _Own,
) -> None:
    """Take the steps in float32, and round once into `out`, which may be `rows` itself."""
    count, width = rows.shape
    # 4-bit blocks of 64 run on from row to row; a chunk must hold whole ones.
    unit = 64 // math.gcd(64, width)
    height = max(1, _CHUNK // width // unit) * unit
    largest = torch.finfo(piece.dtype).max
    for low in range(0, count, height):
        high = min(low + height, count)
        exact = own.rows.view((high - low) * width, torch.float32).view(-1, width)
        scratch = own.scratch.view((high - low) * width, torch.float32).view(-1, width)
        exact.copy_(rows[low:high])
        for step in steps:
            step(exact, start + low, scratch)
        least, most = torch.aminmax(exact)
        # Also false when either is NaN.
        if not (-largest <= least.item() and most.item() <= largest):
            raise AxtuneError(
                f"{piece.name} would hold numbers that are not finite in {_name(piece.dtype)}.",
                "The adapter is broken (its training diverged), the weights are, or the dtype is "
                "too narrow.",
            )
        out[low:high].copy_(exact)


def _finish(futures: Sequence[Future[None]], sink: Sink) -> None:
    """Wait for a file's blocks and flush it, while the next one is being written."""
    for future in futures:
        future.result()
    sink.flush()


def _header(pieces: Sequence[Piece]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for piece in pieces:
        entries[piece.name] = {
            "dtype": DTYPE_NAMES[piece.dtype],
            "shape": list(piece.shape),
            "data_offsets": [position, position + piece.nbytes],
        }
        position += piece.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def _row_blocks(piece: Piece) -> Iterator[tuple[int, int]]:
    """Ranges of rows of about the size of a block."""
    width = _width(piece.shape)
    count = math.prod(piece.shape) // width if width else 0
    unit = 64 // math.gcd(64, width) if width else 1
    source = piece.source
    assert source is not None
    itemsize = max(piece.dtype.itemsize, source.dtype.itemsize)
    height = max(1, BLOCK_BYTES // (width * itemsize) // unit) * unit if width else 1
    for start in range(0, count, height):
        yield start, min(start + height, count)


def _width(shape: tuple[int, ...]) -> int:
    """Numbers in a row; a vector's rows are its numbers."""
    return math.prod(shape[1:])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
