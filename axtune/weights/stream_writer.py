"""Writing a checkpoint from another one: a stream of tensors, changed on their way.

A few threads each read a block, compute and write it, with buffers of their own: while one waits
for the disk another computes. Buffers are allocated once and used for all blocks, because fresh
memory (page faults) costs more than the arithmetic. Nothing else of the weights is in memory.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from axtune.checkpoint.atomic import write_text
from axtune.checkpoint.locate import INDEX, SINGLE
from axtune.errors import AxtuneError
from axtune.model.dtypes import dtype_name
from axtune.model.finite import count_nonfinite
from axtune.weights.direct_io import Buffer, DirectReader, DirectWriter
from axtune.weights.file_digest import DigestInOrder
from axtune.weights.output_tensor import OutputTensor, Shards, Step, row_width, total_bytes
from axtune.weights.safetensors_file import BLOCK_BYTES, header_bytes, nonfinite_in

# Float32 numbers worked on at once: with their scratch they stay in a core's cache.
_CHUNK = 1 << 18
_THREADS = 4


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
    """Write the index of a checkpoint of several files, whole or not at all.

    Args:
        folder: The checkpoint's.
        weight_map: Each tensor's file.
        nbytes: The size of all tensors together.
    """
    index = {
        "metadata": {"total_size": nbytes},
        "weight_map": dict(sorted(weight_map.items())),
    }
    write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")


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
            width = row_width(source.shape)
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
    width = row_width(piece.shape)
    count = math.prod(piece.shape) // width if width else 0
    unit = math.lcm(64 // math.gcd(64, width), piece.head_rows or 1) if width else 1
    source = piece.source
    assert source is not None
    size = max(piece.row_bytes, width * source.dtype.itemsize)
    height = max(1, BLOCK_BYTES // size // unit) * unit if width else 1
    for start in range(0, count, height):
        yield start, min(start + height, count)


def _name(piece: OutputTensor) -> str:
    return piece.packed.name if piece.packed else dtype_name(piece.dtype)
