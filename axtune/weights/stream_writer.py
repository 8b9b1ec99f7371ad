"""Writing a checkpoint from another one: a stream of tensors, changed on their way.

A few threads each read a block, compute and write it, with buffers of their own: while one waits
for the disk another computes. Buffers are allocated once and used for all blocks, because fresh
memory (page faults) costs more than the arithmetic. Nothing else of the weights is in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from axtune.checkpoint.locate import INDEX, SINGLE
from axtune.errors import AxtuneError
from axtune.model.dtypes import dtype_name
from axtune.model.finite import count_nonfinite
from axtune.weights.direct_io import Buffer, DirectReader, DirectWriter
from axtune.weights.safetensors_file import (
    BLOCK_BYTES,
    TensorInfo,
    header_bytes,
    nonfinite_in,
)

# Float32 numbers worked on at once: with their scratch they stay in a core's cache.
_CHUNK = 1 << 18
_THREADS = 4
_ZEROS = bytes(1 << 16)

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
        width = _width(self.shape)
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


@dataclass(frozen=True)
class File:
    """A file to write.

    Attributes:
        path: Where; nothing is there yet.
        header: Its first bytes.
        pieces: Its tensors, each with the place of its first byte; zeros lie between them.
        size: In bytes.
    """

    path: Path
    header: bytes
    pieces: Sequence[tuple[int, OutputTensor]]
    size: int


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


def write_checkpoint(folder: Path, shards: Shards) -> dict[str, str]:
    """Write shards, and their index if there are several.

    Args:
        folder: An empty folder.
        shards: File names and their tensors, in the order to write them.

    Returns:
        SHA-256 of the shards, by name.

    Raises:
        AxtuneError: As `write_files`.
        OSError: When the disk fills up.
    """
    digests = write_files(_safetensors(folder / name, pieces) for name, pieces in shards.items())
    if list(shards) != [SINGLE]:
        weight_map = {piece.name: shard for shard, pieces in shards.items() for piece in pieces}
        write_index(folder, weight_map, total_bytes(shards))
    return digests


def write_index(folder: Path, weight_map: dict[str, str], nbytes: int) -> None:
    """Write the index of a checkpoint of several files.

    Args:
        folder: The checkpoint's.
        weight_map: Each tensor's file.
        nbytes: The size of all tensors together.
    """
    index = {
        "metadata": {"total_size": nbytes},
        "weight_map": dict(sorted(weight_map.items())),
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_files(files: Iterable[File]) -> dict[str, str]:
    """Write files of tensors, each flushed to the disk.

    Args:
        files: In the order to write them.

    Returns:
        SHA-256 of each, by its name: taken from memory on the way, the disk reads nothing back.

    Raises:
        AxtuneError: When a tensor would hold numbers that are not finite in its dtype.
        OSError: When the disk fills up.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)  # each worker computes by itself, and so does what prepares for them
    workers = ThreadPoolExecutor(_THREADS, "merge", torch.set_num_threads, (1,))
    flusher = ThreadPoolExecutor(1, "flush")
    writer = _Writer(workers)
    flushed = {}
    try:
        for file in files:
            futures, sink, digest = writer.start(file)
            flushed[file.path.name] = flusher.submit(_finish, futures, sink, digest, file.size)
        return {name: future.result() for name, future in flushed.items()}
    except BaseException:
        writer.stop()
        raise
    finally:
        workers.shutdown(wait=True, cancel_futures=True)
        flusher.shutdown(wait=True)
        writer.close()
        torch.set_num_threads(threads_before)


class DigestInOrder:
    """SHA-256 of a file whose blocks are written by several threads, each when its turn comes.

    Blocks are handed out in the order of the file, so that a thread waits only for those that other
    threads are at; meanwhile they read, compute and write.

    Args:
        header: The file's first bytes.
    """

    def __init__(self, header: bytes) -> None:
        self._sha = hashlib.sha256(header)
        self._end = len(header)
        self._turn = 0
        self._abandoned = False
        self._changed = threading.Condition()

    def add(self, turn: int, position: int, block: memoryview) -> None:
        """Add a block, after all that have an earlier turn; zeros lie before it.

        Args:
            turn: Of the block, from 0 on.
            position: In the file.
            block: Its bytes.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._turn >= turn or self._abandoned)
        self._zeros(position)
        self._sha.update(block)
        self._end = position + len(block)

    def passed(self, turn: int) -> None:
        """Let the next block have its turn, whether this one came to be written or not."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn >= turn or self._abandoned)
            self._turn = turn + 1
            self._changed.notify_all()

    def abandon(self) -> None:
        """Let nobody wait any more: of blocks that are cancelled, the turn never comes."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def result(self, size: int) -> str:
        """The file's digest, once all blocks are added.

        Args:
            size: Of the file, which ends with zeros where nothing was written.
        """
        self._zeros(size)
        return self._sha.hexdigest()

    def _zeros(self, position: int) -> None:
        while self._end < position:
            count = min(position - self._end, len(_ZEROS))
            self._sha.update(_ZEROS[:count])
            self._end += count


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a block goes."""

    file: DirectWriter
    digest: DigestInOrder
    turn: int
    position: int  # of its tensor


class _Writer:
    """Cuts tensors into blocks and hands them to the workers."""

    def __init__(self, workers: ThreadPoolExecutor) -> None:
        self.stopped = threading.Event()
        self._workers = workers
        self._sources: dict[Path, DirectReader] = {}
        self._sinks: list[DirectWriter] = []
        self._digests: list[DigestInOrder] = []
        self._own = threading.local()
        # So many blocks wait at most: those of a tensor hold its adapter's factors in memory.
        self._slots = threading.Semaphore(4 * _THREADS)

    def start(self, file: File) -> tuple[list[Future[None]], DirectWriter, DigestInOrder]:
        """Write a file's header and hand out its blocks.

        Returns:
            The blocks under way, the file, and its digest, which they add up to.
        """
        sink = DirectWriter(file.path, file.header, file.size)
        digest = DigestInOrder(file.header)
        self._sinks.append(sink)
        self._digests.append(digest)
        futures: list[Future[None]] = []
        for position, piece in file.pieces:
            if piece.source is not None:  # a file is zeros where nothing was written
                steps = tuple(piece.prepare()) if piece.prepare else ()
                if piece.source.file not in self._sources:
                    self._sources[piece.source.file] = DirectReader(piece.source.file)
                for start, stop in _row_blocks(piece):
                    self._slots.acquire()
                    if self.stopped.is_set():
                        return futures, sink, digest
                    target = _Target(sink, digest, len(futures), position)
                    job = self._workers.submit(self._block, piece, steps, start, stop, target)
                    futures.append(job)
        return futures, sink, digest

    def stop(self) -> None:
        """Begin no further block, and let those under way end."""
        self.stopped.set()
        for digest in self._digests:
            digest.abandon()

    def close(self) -> None:
        """Close all files."""
        for source in self._sources.values():
            source.close()
        for sink in self._sinks:
            sink.close()

    def _block(
        self,
        piece: OutputTensor,
        steps: Sequence[Step],
        start: int,
        stop: int,
        target: _Target,
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
            position = target.position + start * piece.row_bytes
            offset = source.offset + start * width * source.dtype.itemsize
            wanted = target.file.skip(position)
            size = count * source.dtype.itemsize
            skip = self._sources[source.file].read(own.read, offset, size, wanted)
            size = (stop - start) * piece.row_bytes
            in_place = piece.as_stored and skip == wanted
            buffer = own.read if in_place else own.write
            numbers = own.read.view(count, source.dtype, skip)
            if count_nonfinite(numbers):
                raise AxtuneError(
                    f"{source.name} in {source.file} holds {nonfinite_in(source):,} numbers that "
                    "are not finite.",
                    "Its training diverged, or the file is damaged; copy the weights again, or use "
                    "others.",
                )
            if steps or not in_place:
                rows = numbers.view(-1, width)
                kind = torch.uint8 if piece.packed else piece.dtype
                out = buffer.view(size // kind.itemsize, kind, wanted).view(len(rows), -1)
                if steps or not piece.as_stored:
                    _change(piece, rows, out, steps, start, own)
                else:
                    out.copy_(rows)
            memory = buffer.reserve(wanted + size)
            target.file.write(memory, position, wanted, size)
            target.digest.add(target.turn, position, memory[wanted : wanted + size])
        except BaseException:
            self.stop()
            raise
        finally:
            target.digest.passed(target.turn)
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
    piece: OutputTensor,
    rows: torch.Tensor,
    out: torch.Tensor,
    steps: Sequence[Step],
    start: int,
    own: _Own,
) -> None:
    """Take the steps in float32, and round once into `out`.

    `out` may be `rows` itself where the piece keeps its dtype and the order of its rows.
    """
    count, width = rows.shape
    # 4-bit blocks of 64 run on from row to row; a chunk must hold whole ones.
    unit = 64 // math.gcd(64, width)
    height = max(1, _CHUNK // width // unit) * unit
    largest = piece.packed.largest if piece.packed else torch.finfo(piece.dtype).max
    places = _interleaved(count, piece.head_rows) if piece.head_rows else None
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
                f"{piece.name} would hold numbers that are not finite in {_name(piece)} "
                f"({int((~(exact.abs() <= largest)).sum()):,} or more).",
                "Use an earlier checkpoint of the adapter (its training diverged), copy the "
                "weights again, or choose a dtype with a wider range.",
            )
        rounded = piece.packed.pack(exact) if piece.packed else exact
        if places is None:
            out[low:high].copy_(rounded)
        else:
            out.index_copy_(0, places[low:high], rounded.to(out.dtype))


def _interleaved(count: int, head_rows: int) -> torch.Tensor:
    """Where each row goes when the halves of every head are interleaved; `count` is whole heads."""
    return torch.arange(count).view(-1, head_rows // 2, 2).transpose(1, 2).reshape(-1)


def _finish(
    futures: Sequence[Future[None]], sink: DirectWriter, digest: DigestInOrder, size: int
) -> str:
    """Wait for a file's blocks and flush it, while the next one is being written."""
    for future in futures:
        future.result()
    sink.flush()
    return digest.result(size)


def _safetensors(path: Path, pieces: Sequence[OutputTensor]) -> File:
    position = 0
    places = []
    for piece in pieces:
        places.append(position)
        position += piece.nbytes
    header = header_bytes(
        (piece.name, piece.dtype, piece.shape, place)
        for place, piece in zip(places, pieces, strict=True)
    )
    placed = [(len(header) + place, piece) for place, piece in zip(places, pieces, strict=True)]
    return File(path, header, placed, len(header) + position)


def _row_blocks(piece: OutputTensor) -> Iterator[tuple[int, int]]:
    """Ranges of rows of about the size of a block."""
    width = _width(piece.shape)
    count = math.prod(piece.shape) // width if width else 0
    unit = math.lcm(64 // math.gcd(64, width), piece.head_rows or 1) if width else 1
    source = piece.source
    assert source is not None
    size = max(piece.row_bytes, width * source.dtype.itemsize)
    height = max(1, BLOCK_BYTES // size // unit) * unit if width else 1
    for start in range(0, count, height):
        yield start, min(start + height, count)


def _width(shape: tuple[int, ...]) -> int:
    """Numbers in a row; a vector's rows are its numbers."""
    return math.prod(shape[1:])


def _name(piece: OutputTensor) -> str:
    return piece.packed.name if piece.packed else dtype_name(piece.dtype)
