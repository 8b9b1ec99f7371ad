"""Text and Markdown: UTF-8, UTF-16 and UTF-32 by their marks, CP949."""

from __future__ import annotations

import codecs

from axtune.documents.document import Content, Refused

# The longer mark first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_plain(data: bytes) -> Content:
    """The lines of a text file.

    Raises:
        Refused: When it is in no encoding that is known for certain.
    """
    return Content(decoded(data).splitlines())


def decoded(data: bytes) -> str:
    """Bytes as text: by their mark, or else strict UTF-8, UTF-16 without a mark, strict CP949.

    Raises:
        Refused: When they are none of these; a guess would be learned as if it were the text.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strictly(data, encoding).removeprefix("\ufeff")
    if b"\0" in data:  # in no text but UTF-16, as Notepad once wrote it, without a mark
        return _without_mark(data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _strictly(data, "cp949")


def _strictly(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        tried = "UTF-8 and CP949" if encoding == "cp949" else encoding.upper()
        raise Refused(
            "broken", f"It is not text in {tried}; save it as UTF-8 in the program it is from."
        ) from None


def _without_mark(data: bytes) -> str:
    """UTF-16 by where its zeros stand: ASCII (spaces and line ends too) has one in two bytes."""
    even, odd = data[::2].count(0), data[1::2].count(0)
    text = ""
    if max(even, odd) > 8 * min(even, odd):
        try:
            text = data.decode("utf-16-le" if odd > even else "utf-16-be")
        except UnicodeDecodeError:
            text = ""
    if not text or "\0" in text:
        raise Refused("unknown-format", "It is named as text and holds binary data.")
    return text
