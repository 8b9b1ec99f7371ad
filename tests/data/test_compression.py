"""Compressed texts are read, whatever their name says."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from support.files import GOOD, ROW, read

from axtune.data.compression import packed_as, require_pyarrow
from axtune.errors import MissingPackageError


def test_compressed_texts(tmp_path: Path) -> None:
    data = (ROW + "\n" + ROW).encode()
    packed = {
        ".gz": gzip.compress(data),
        ".zst": pa.compress(data, codec="zstd", asbytes=True),
        ".bz2": bz2.compress(data),
        ".xz": lzma.compress(data),
    }
    for suffix, archive in packed.items():
        assert read(tmp_path, f"a.jsonl{suffix}", archive) == [(1, GOOD), (2, GOOD)]
        assert read(tmp_path, "a.jsonl", archive) == [(1, GOOD), (2, GOOD)]
        assert read(tmp_path, f"a.jsonl{suffix}", archive[:-9])[-1] == (0, "!unreadable")
        assert read(tmp_path, f"a.jsonl{suffix}", b"junk" + archive) == [(0, "!unreadable")]
    assert read(tmp_path, "a.csv.gz", gzip.compress(b"a,b\n1,2\n")) == [(2, {"a": "1", "b": "2"})]


def test_the_form_is_told_by_the_first_bytes(tmp_path: Path) -> None:
    for form, pack in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        (tmp_path / "file").write_bytes(pack(b"text"))
        assert packed_as(tmp_path / "file") == form
    (tmp_path / "file").write_bytes(b"")
    assert packed_as(tmp_path / "file") == ""


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"^\.zst files need the package pyarrow"):
        require_pyarrow(".zst files")
