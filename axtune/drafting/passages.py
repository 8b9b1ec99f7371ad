"""Documents in passages that a question can be asked of, cut where paragraphs end.

Personal data is masked before anything is sent or written; offsets are those of the document's own
text, as the corpus has it.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axtune.data.readers import read_rows
from axtune.errors import AxtuneError
from axtune.privacy.scrub import Known, Scrubber

LEAST = 40  # letters and digits of a passage that says something
_LARGEST_LINE = int(64e6)  # bytes: a document is a line
# A passage may be longer by this share where little would be left for the next one.
_OVER = 0.2
_PARAGRAPH_END = re.compile("\n+")
_SENTENCE_END = re.compile(r"(?<=[.!?。])[\"'”’)\]]?\s+")
_CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?(?:think|tool_call|tool_output)>|\[/?INST\]")
_NO_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document.

    Attributes:
        text: With masks in the place of personal data.
        begin: Where it begins in the document's text, in characters.
        end: Where it ends.
        source: The document's name.
        title: The document's.
        pages: How many the document has; None where it has none.
        document: SHA-256 of the document.
    """

    text: str
    begin: int
    end: int
    source: str
    title: str
    pages: int | None
    document: str

    @property
    def place(self) -> str:
        """Which one it is, for people."""
        return f"{self.source} [{self.begin}:{self.end}]"

    @property
    def digest(self) -> str:
        """SHA-256 of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def key(self) -> str:
        """What its drafts are found again by."""
        facts = (self.document, str(self.begin), str(self.end), self.title, self.text)
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()

    def to_meta(self) -> dict[str, Any]:
        """The part of a row's ``meta`` that says where its question comes from."""
        return {
            "source": self.source,
            "title": self.title,
            "pages": self.pages,
            "sha256": self.document,
            "begin": self.begin,
            "end": self.end,
            "passage_sha256": self.digest,
            "passage": self.text,
        }


@dataclass(slots=True)
class Passages:
    """The passages of a corpus.

    Attributes:
        asked: Those that are asked of, in order.
        documents: How many documents there are.
        left_out: How many passages are not asked of, by reason.
        masked: Personal data masked, by kind.
    """

    asked: list[Passage] = field(default_factory=list)
    documents: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)


def read_passages(files: Sequence[Path], longest: int, scrubber: Scrubber) -> Passages:
    """Cut the documents of a corpus into passages.

    Args:
        files: As ``axtune data import`` writes them.
        longest: Characters of a passage.
        scrubber: Finds personal data.

    Raises:
        AxtuneError: When a row is no document, or there is none.
    """
    found = Passages()
    seen: set[str] = set()
    for text, meta in _documents(files):
        found.documents += 1
        known: Known = {}
        found.masked += scrubber.scrub(text, known=known).counts
        for name in ("source", "title"):
            meta[name] = scrubber.scrub(meta[name], known=known).text
        taken = [(one.begin, one.end) for one in scrubber.find(text)]
        for begin, end in cut(text, longest, taken):
            if has_control_token(scrubber.without_masks(text[begin:end])):
                found.left_out["control-token"] += 1
                continue
            # What only the whole document names a number as is masked in each of its passages.
            passage = scrubber.scrub(text[begin:end], known=known).text
            letters = _NO_WORD.sub("", passage).casefold()
            if len(letters) < LEAST:
                found.left_out["too-short"] += 1
            elif letters in seen:
                found.left_out["duplicate-passage"] += 1
            else:
                seen.add(letters)
                found.asked.append(Passage(passage, begin, end, **meta))
    if not found.documents:
        names = ", ".join(map(str, files))
        raise AxtuneError(
            f"{names}: there are no documents.", "Make a corpus with axtune data import."
        )
    return found


def _documents(files: Iterable[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The text of each document, and what a passage says of it."""
    for file in files:
        for row in read_rows(file, max_line_bytes=_LARGEST_LINE):
            place = f"{row.file}:{row.line}" if row.line else row.file
            if row.fault:
                raise AxtuneError(f"{row.fault}", "Mend the file, or import the documents again.")
            text = row.value.get("text") if isinstance(row.value, dict) else None
            if not isinstance(text, str):
                keys = sorted(row.value) if isinstance(row.value, dict) else []
                has = "messages" if "messages" in keys else ""
                raise AxtuneError(
                    f"{place} is no document: it has no text"
                    f"{', but messages: a conversation' if has else ''}.",
                    'Give files of axtune data import, with rows such as {"text": …, "meta": …}.',
                )
            meta = row.value.get("meta")
            meta = meta if isinstance(meta, dict) else {}
            digest, pages = meta.get("sha256"), meta.get("pages")
            yield (
                text,
                {
                    "source": _text(meta.get("source")) or f"{file.name}:{row.line}",
                    "title": _text(meta.get("title")),
                    "pages": pages if isinstance(pages, int) else None,
                    "document": _text(digest) or hashlib.sha256(text.encode()).hexdigest(),
                },
            )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def cut(
    text: str, longest: int, taken: Sequence[tuple[int, int]] = ()
) -> Iterator[tuple[int, int]]:
    """Where the passages of a text begin and end, without the white space around them.

    A passage ends with a paragraph; one that is too long is cut at the end of a sentence, or else
    between words, or else anywhere.

    Args:
        text: Of a document; a paragraph is a line.
        longest: Characters of a passage; it may have a fifth more where a text ends.
        taken: Stretches that are not cut into, in order and apart.
    """
    begin = 0
    while begin < len(text):
        if len(text) - begin <= longest * (1 + _OVER):
            end = len(text)
        else:
            end = _end(text, begin, begin + longest, taken)
        inside = text[begin:end]
        first = begin + len(inside) - len(inside.lstrip())
        last = begin + len(inside.rstrip())
        if first < last:
            yield first, last
        begin = end


def _end(text: str, begin: int, limit: int, taken: Sequence[tuple[int, int]]) -> int:
    """The best place to cut between half of a passage and all of it, or before."""
    for least in (begin + (limit - begin) // 2, begin):
        for ends in (_PARAGRAPH_END, _SENTENCE_END):
            for place in reversed([match.end() for match in ends.finditer(text, least, limit)]):
                if not _inside(place, taken):
                    return place
    space = text.rfind(" ", begin + 1, limit)
    for place in (space + 1, limit):
        if place > begin and not _inside(place, taken):
            return place
    # The stretch that is not to be cut stands over the limit.
    return next(end for start, end in taken if start < limit < end)


def has_control_token(text: str) -> bool:
    """Whether a text holds what a tokenizer takes for more than text.

    Args:
        text: Without masks, which are such tokens too.
    """
    return _CONTROL.search(text) is not None


def _inside(place: int, taken: Sequence[tuple[int, int]]) -> bool:
    """Whether a place is inside of a stretch; these are in order and apart."""
    before = bisect_left(taken, (place, 0)) - 1
    return before >= 0 and place < taken[before][1]
