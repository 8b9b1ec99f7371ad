"""A file becomes rows, each with its line.

Everything is read as a stream: memory holds one line (or one Parquet batch) at a time. Values stay
as the file has them; nothing is typed by column, so a date string stays a string, a big integer
stays exact, and a key that a row lacks stays absent.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path

from axtune.config.paths import data_suffix, is_document
from axtune.data.arrow_rows import read_table
from axtune.data.compression import open_bytes
from axtune.data.csv_rows import read_csv
from axtune.data.documents import read_document_file
from axtune.data.json_rows import read_json_lines, read_json_list
from axtune.data.layouts import is_list, wrong_layout
from axtune.data.rows import Row
from axtune.errors import Fault

_HEAD = 1 << 16  # what says of a file how it is laid out


def read_rows(path: Path, *, max_line_bytes: int) -> Iterator[Row]:
    """Read a file row by row.

    Args:
        path: A JSONL, JSON, CSV, TSV, Parquet or Arrow file, texts also compressed; or a document.
        max_line_bytes: Longer lines are faults and are not kept in memory.

    Yields:
        Every row, in order; a fault in place of a row that cannot be read.
    """
    message = ""
    try:
        yield from _read(path, max_line_bytes)
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        message = "the archive is damaged or cut off; later rows are lost. Copy the file again."
        if isinstance(error, OSError) and error.strerror:  # the system's, not the archive's
            message = f"{error.strerror}."
    if message:
        yield Row(str(path), 0, None, Fault(str(path), 0, "unreadable", message))


def _read(path: Path, limit: int) -> Iterator[Row]:
    suffix = data_suffix(path)
    if not suffix and is_document(path):
        yield from read_document_file(path, limit)
        return
    if suffix in (".parquet", ".arrow"):
        yield from read_table(path, suffix)
        return
    with open_bytes(path) as stream:
        head = stream.read(_HEAD)
    if found := wrong_layout(head, suffix):
        yield Row(str(path), found.line, None, Fault(str(path), found.line, *found.problem))
        return
    with open_bytes(path) as stream:
        if suffix in (".csv", ".tsv"):
            # A byte that is not UTF-8 becomes half of a surrogate pair, and is found line by line.
            text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
            yield from read_csv(path, text, limit, "\t" if suffix == ".tsv" else ",")
        elif is_list(head, suffix):
            yield from read_json_list(path, stream, limit)
        else:
            yield from read_json_lines(path, stream, limit)
