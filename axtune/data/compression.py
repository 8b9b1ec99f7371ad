"""The bytes of a file, however it is compressed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import IO, Any

from axtune.errors import MissingPackageError

_MAGIC = {
    ".gz": b"\x1f\x8b",
    ".zst": b"\x28\xb5\x2f\xfd",
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ",
}


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a file, decompressed if it is an archive by its first bytes.

    Raises:
        OSError: When it cannot be opened.
    """
    form = packed_as(path)
    if not form and path.stat().st_size:
        form = path.suffix.lower()
    if form == ".zst":
        return io.BufferedReader(
            require_pyarrow(".zst files").input_stream(path, compression="zstd")
        )
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return openers.get(form, Path.open)(path, "rb")  # type: ignore[no-any-return] # read only


def packed_as(path: Path) -> str:
    """How a file is compressed, by its first bytes; empty when it is not."""
    with path.open("rb") as stream:
        begin = stream.read(8)
    return next((form for form, magic in _MAGIC.items() if begin.startswith(magic)), "")


def require_pyarrow(what: str) -> Any:
    """The package pyarrow.

    Args:
        what: What needs it, in the plural.

    Raises:
        MissingPackageError: When it is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise MissingPackageError(
            f"{what} need the package pyarrow, which is not installed.",
            "Run `pip install pyarrow`.",
        ) from None
    return pyarrow
