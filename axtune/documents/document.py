"""What a document is read as, and why one is refused."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from axtune.errors import MissingPackageError

Format = Literal["pdf", "docx", "html", "hwpx", "hwp", "xlsx", "pptx", "txt", "md"]
# Why a document gives no text; each is counted in the report of an import.
Reason = Literal[
    "scanned-pdf",
    "encrypted",
    "broken",
    "empty",
    "unknown-format",
    "too-large",
    "replacement-characters",
    "time-limit",
    "crashed",
    "duplicate",
]
# Of a hundred characters; more of them and the text is not what the page shows.
_UNREADABLE_SHARE = 1
_TITLE_LENGTH = 200
# What Word, Hancom Office and printers write where nobody gave a title.
_NO_TITLE = re.compile(
    r"untitled|\(?(anonymous|unspecified)\)?|제목 ?없음|(문서|document|slide) ?\d*"
    r"|powerpoint 프레젠테이션|powerpoint presentation|word document",
    re.IGNORECASE,
)
_MADE_BY = re.compile(r"^Microsoft (Word|PowerPoint|Excel) - ")
# C0 but tab and newline, C1, and what marks directions or widths and is never seen.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff]")


class Refused(Exception):
    """A document that gives no text.

    Args:
        code: Why, for counting.
        message: Why, a sentence; never the content of the document.
    """

    def __init__(self, code: Reason, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(code, message)  # both, so that it can be pickled


@dataclass(frozen=True, slots=True)
class Content:
    """What the reader of a format found.

    Attributes:
        lines: Paragraphs and rows of tables in reading order.
        title: As the document's own properties have it; empty where they have none.
        pages: Pages, slides or sheets; None where the format has none.
        lost: What could not be read, by kind, such as ``scanned-pages``.
    """

    lines: list[str]
    title: str = ""
    pages: int | None = None
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """A document as text.

    Attributes:
        text: Lines in reading order; cells of a table's row are joined with `` | ``.
        source: Its name below the path that was given, with the archives it lies in.
        title: From its properties, or else its first line.
        pages: Pages, slides or sheets; None where the format has none.
        format: What it was read as.
        sha256: Of its bytes, in hexadecimal.
        lost: What could not be read, by kind.
    """

    text: str
    source: str
    title: str
    pages: int | None
    format: Format
    sha256: str
    lost: Mapping[str, int] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """The row of a corpus: ``text``, and ``meta`` with all the rest."""
        meta = {
            "source": self.source,
            "title": self.title,
            "pages": self.pages,
            "format": self.format,
            "sha256": self.sha256,
        }
        return {"text": self.text, "meta": meta}


def as_document(content: Content, source: str, kind: Format, sha256: str) -> Document:
    """A document of what a reader found.

    Args:
        content: From the reader of its format.
        source: As in `Document`.
        kind: The format.
        sha256: As in `Document`.

    Raises:
        Refused: When there is no text, or much of it is not what the document shows.
    """
    text = _cleaned(content.lines)
    if not text:
        raise Refused("empty", "There is no text in it.")
    seen = len(re.sub(r"\s", "", text))
    unreadable = sum(map(_is_unreadable, text))
    if unreadable * 100 > seen * _UNREADABLE_SHARE:
        raise Refused(
            "replacement-characters",
            f"{unreadable:,} of {seen:,} characters have no meaning: its fonts or its encoding do "
            "not say which letters they are.",
        )
    lost = dict(content.lost)
    if unreadable:
        lost["replacement-characters"] = unreadable
    first = text.split("\n", 1)[0]
    if kind == "md":
        first = first.lstrip("#").strip() or first
    title = _title(content.title) or first[:_TITLE_LENGTH]
    return Document(text, source, title, content.pages, kind, sha256, lost)


def _cleaned(lines: list[str]) -> str:
    """Lines without what nobody sees, trailing spaces and runs of empty ones; Hangul composed."""
    text = unicodedata.normalize("NFC", "\n".join(lines))
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " ").replace("\xad", "")
    text = re.sub("[\x0b\x0c\x85\u2028\u2029]", "\n", text)
    text = "\n".join(line.rstrip() for line in _UNSEEN.sub("", text).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def _is_unreadable(character: str) -> bool:
    """A replacement character, or one of a font's own: private use stands for no letter."""
    return character == "\ufffd" or "\ue000" <= character <= "\uf8ff" or character >= "\U000f0000"


def _title(title: str) -> str:
    title = _MADE_BY.sub("", " ".join(_UNSEEN.sub("", title).split()))
    return "" if _NO_TITLE.fullmatch(title) else title[:_TITLE_LENGTH]


def missing_package(error: ImportError) -> MissingPackageError:
    """What is said of a format whose library is not installed.

    Args:
        error: From importing the library.
    """
    return MissingPackageError(
        f"Reading documents needs the package {error.name}, which is not installed.",
        "Run `pip install 'axtune[documents]'`.",
    )
