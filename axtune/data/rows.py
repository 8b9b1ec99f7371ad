"""A row of a file, and what keeps one from being read in any format."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Any

from axtune.errors import Fault

CHUNK = 1 << 20  # bytes or characters that are read at once


@dataclass(slots=True)
class Row:
    """One row of a file.

    Attributes:
        file: Path as the user would find it.
        line: 1-based line where the row begins; the row's number in a Parquet or Arrow file.
        value: The parsed row; None when it could not be read.
        fault: Why not.
        warning: What was lost of a row that could be read.
    """

    file: str
    line: int
    value: Any
    fault: Fault | None = None
    warning: Fault | None = None


def not_utf8(data: bytes) -> tuple[str, str]:
    """The code and the message of a line that is not UTF-8, by what it seems to be."""
    # Incremental decoders do not mind that the data may end in the middle of a character.
    try:
        codecs.getincrementaldecoder("utf-8")("surrogatepass").decode(data)
        return (
            "lone-surrogate",
            "half of a surrogate pair, encoded as if it were a character; remove it.",
        )
    except UnicodeDecodeError:
        pass
    try:
        codecs.getincrementaldecoder("cp949")().decode(data)
        return (
            "cp949",
            "the text is CP949 (EUC-KR), not UTF-8; convert it: iconv -f CP949 -t UTF-8.",
        )
    except UnicodeDecodeError:
        return "not-utf8", "the text is not UTF-8; convert it."


def too_large(name: str, number: int, limit: int) -> Fault:
    """The fault of a row of more bytes than a line may have."""
    message = f"the row is longer than {limit / 1e6:g} MB; raise data.max_line_mb, or shorten it."
    return Fault(name, number, "line-too-large", message)
