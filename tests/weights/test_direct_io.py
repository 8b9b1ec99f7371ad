"""Reading and writing past the page cache: the same bytes, however they lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from axtune.errors import CheckpointError
from axtune.weights import direct_io
from axtune.weights.direct_io import ALIGNMENT, Buffer, DirectReader, DirectWriter


def test_any_bytes_are_read_and_written(way: str, tmp_path: Path) -> None:
    content = os.urandom(5 * ALIGNMENT + 1234)
    (tmp_path / "source").write_bytes(content)
    source = DirectReader(tmp_path / "source")
    buffer = Buffer()
    for offset, size in (
        (0, len(content)), (0, 1), (8, 100), (7, 9000), (ALIGNMENT, ALIGNMENT),
        (ALIGNMENT - 8, 2 * ALIGNMENT + 16), (5 * ALIGNMENT, 1234), (len(content) - 3, 3),
    ):  # fmt: skip
        for wanted in (0, 8, ALIGNMENT - 8):
            skip = source.read(buffer, offset, size, wanted)
            assert skip % 8 == 0
            assert buffer.reserve(0)[skip : skip + size] == content[offset : offset + size]
    with pytest.raises(CheckpointError, match="source became shorter"):
        source.read(buffer, 0, len(content) + 8, 0)
    source.close()

    for header, step in ((1, 700), (8, ALIGNMENT), (ALIGNMENT, 2 * ALIGNMENT), (4000, 9000)):
        file = tmp_path / f"sink{header}"
        sink = DirectWriter(file, content[:header], len(content) + 10)
        for start in reversed(range(header, len(content), step)):
            part = content[start : start + step]
            for skip in {sink.skip(start), 16}:  # the second is not where it best begins
                memory = buffer.reserve(skip + len(part))
                memory[skip : skip + len(part)] = part
                sink.write(memory, start, skip, len(part))
        sink.flush()
        sink.close()
        assert file.read_bytes() == content + bytes(10)


def test_a_file_just_written_is_in_the_cache_and_a_dropped_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1 << 20))
    assert direct_io._is_cached(file)
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    if direct_io._is_cached(file):
        pytest.skip("this file system keeps its files in memory")
