"""Files past the page cache, for weights: read once, written once, larger than memory.

Through the page cache a copy of a checkpoint is bound by the kernel's work on fresh pages, not by
the disk (2 cores, 14.5 GB: `cp` takes 49 s, a whole merge past the cache 28 s). A file that is in
the cache already is read from there, and file systems without direct transfers are used as ever.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import torch

from axtune.errors import CheckpointError

# What memory, place and length of direct transfers are multiples of; enough for all disks.
ALIGNMENT = 4096


class Buffer:
    """Memory that grows to the largest block ever asked of it, and is used again for all others."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, ALIGNMENT)

    def view(self, count: int, dtype: torch.dtype, skip: int = 0) -> torch.Tensor:
        """`count` numbers, flat, from byte `skip` on, which is a multiple of their size."""
        self.reserve(skip + count * dtype.itemsize)
        return torch.frombuffer(self._memory, dtype=dtype, count=count, offset=skip)

    def reserve(self, size: int) -> memoryview:
        """All of its bytes, at least `size`, beginning at a multiple of `ALIGNMENT`."""
        if size > len(self._memory):
            self._memory = mmap.mmap(-1, size + -size % ALIGNMENT)
        return memoryview(self._memory)


class DirectReader:
    """A file to read from, by several threads at once."""

    def __init__(self, file: Path) -> None:
        self._name = file.name
        self._direct = not _is_cached(file)
        try:
            self._descriptor = os.open(file, os.O_RDONLY | (os.O_DIRECT if self._direct else 0))
        except OSError:  # a file system without direct input
            self._direct = False
            self._descriptor = os.open(file, os.O_RDONLY)

    def read(self, buffer: Buffer, offset: int, size: int, skip: int) -> int:
        """Read bytes into a buffer.

        Args:
            buffer: Where to; what it held is lost.
            offset: Of the first byte in the file.
            size: How many.
            skip: Where in the buffer they would best begin.

        Returns:
            Where in the buffer they begin.

        Raises:
            CheckpointError: When the file ends before.
        """
        before = 0
        if self._direct:
            before = skip = offset % ALIGNMENT
        length = before + size
        memory = buffer.reserve(skip + size + ALIGNMENT)
        view = memory[skip - before :][: length + (-length % ALIGNMENT if self._direct else 0)]
        done = 0
        while done < length:  # a file's end need not be aligned
            count = os.preadv(self._descriptor, [view[done:]], offset - before + done)
            if count == 0:
                raise CheckpointError(
                    f"{self._name} became shorter while it was being read.",
                    "Wait until nothing writes to it, and start again.",
                )
            done += count
        if skip % 8:  # numbers must lie at multiples of their size; a file may have them elsewhere
            memory[:size] = memory[skip : skip + size]
            skip = 0
        return skip

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class DirectWriter:
    """A new file to write to, by several threads at once.

    Args:
        file: Its path, where nothing is yet.
        header: Its first bytes.
        size: Of the whole file; it is zeros where nothing is written.
    """

    def __init__(self, file: Path, header: bytes, size: int) -> None:
        self._cached = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._direct: int | None
        try:
            self._direct = os.open(file, os.O_WRONLY | os.O_DIRECT)
        except OSError:  # a file system without direct output
            self._direct = None
        os.ftruncate(self._cached, size)
        write_at(self._cached, memoryview(header), 0)

    def skip(self, position: int) -> int:
        """Where in a buffer bytes best begin that are to be written at a position."""
        # Numbers lie at multiples of their size; where a file has them elsewhere, the cache helps.
        return 0 if position % 8 else position % ALIGNMENT

    def write(self, memory: memoryview, position: int, skip: int, size: int) -> None:
        """Write bytes ``[skip, skip + size)`` of a buffer at a position of the file.

        Whole aligned blocks go to the disk past the page cache; what sticks out on either side
        shares its block with a neighbour and goes through the cache.
        """
        end = position + size
        first, last = position + -position % ALIGNMENT, end - end % ALIGNMENT
        if self._direct is None or skip != position % ALIGNMENT or first >= last:
            first = last = end
        else:
            write_at(self._direct, memory[skip + first - position : skip + last - position], first)
        write_at(self._cached, memory[skip : skip + first - position], position)
        write_at(self._cached, memory[skip + last - position : skip + end - position], last)

    def flush(self) -> None:
        """Wait until all of it is on the disk."""
        os.fsync(self._cached)

    def close(self) -> None:
        """Close the file."""
        os.close(self._cached)
        if self._direct is not None:
            os.close(self._direct)


def _is_cached(file: Path) -> bool:
    """Whether most of a file is in the page cache, and so better read from there.

    Asked of mincore(2): a read that must not wait would start reading ahead.
    """
    size = file.stat().st_size
    if size == 0:
        return True
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None)  # Python's own mmap tells its address of writable memory only
    libc.mmap.restype = ctypes.c_void_p
    with file.open("rb") as stream:
        number, first = stream.fileno(), ctypes.c_long(0)
        address = libc.mmap(
            None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, number, first
        )
    if address in (None, ctypes.c_void_p(-1).value):
        return True  # cannot be told; reading as ever is right for all
    area = ctypes.c_void_p(address), ctypes.c_size_t(size)
    failed = libc.mincore(*area, pages)
    libc.munmap(*area)
    resident = bytes(pages).count(1)  # the lowest bit; the others are not in use
    return bool(failed) or resident > 0.75 * len(pages)


def write_at(descriptor: int, view: memoryview, position: int) -> None:
    """Write all of some bytes at a position of an open file."""
    while len(view):
        count = os.pwrite(descriptor, view, position)
        view, position = view[count:], position + count
