"""Documents cut to a length: where paragraphs end, and where one is too long, within it.

A paragraph that is longer than a piece may be is cut where its lines end; a line, where its
sentences end; a sentence, between any two tokens. The pieces, joined, are the text. What counts is
how many tokens a piece has by itself, and those are the ids that are learned.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from axtune.checkpoint.tokenizer import AxTokenizer

# Where a text may be cut, the best places first: behind each match.
_ENDS = (
    re.compile(r"\n(?:[^\S\n]*\n)+"),  # of paragraphs
    re.compile(r"\n"),
    re.compile(r"""[.!?…]["'”’」』)\]]*(?=\s)|[。．！？]["'”’」』)\]]*"""),  # of sentences
)
_LEAST_WINDOW = 1 << 16  # characters that are looked at together


class Piece(NamedTuple):
    """A part of a document.

    Attributes:
        text: Of the document, from where the piece before it ended.
        ids: The token ids of that text alone.
    """

    text: str
    ids: list[int]


def cut(tokenizer: AxTokenizer, text: str, limit: int) -> list[Piece]:
    """Cut a text into pieces of at most so many tokens; a short one is a single piece.

    Args:
        tokenizer: The checkpoint's.
        text: Of a document; of an empty one there is no piece.
        limit: Tokens of a piece.
    """
    pieces: list[Piece] = []
    begin, size = 0, max(_LEAST_WINDOW, 8 * limit)
    while begin < len(text):
        window = text[begin : begin + size]
        found = list(_cut_window(tokenizer, window, limit, last=begin + size >= len(text)))
        if not found:  # so few tokens in so many characters
            size *= 2
        pieces += found
        begin += sum(len(piece.text) for piece in found)
    return pieces


def _cut_window(tokenizer: AxTokenizer, window: str, limit: int, *, last: bool) -> Iterator[Piece]:
    """The pieces of the beginning of a text, as far as they are sure to end well within it.

    Args:
        tokenizer: The checkpoint's.
        window: That beginning.
        limit: Tokens of a piece.
        last: Whether it is all that there is of the text.
    """
    if last and len(ids := tokenizer.encode(window)) <= limit:
        yield Piece(window, ids)
        return
    offsets = tokenizer.backend.encode(window, add_special_tokens=False).offsets
    ends = [end for _, end in offsets]
    places = [[match.end() for match in form.finditer(window)] for form in _ENDS]
    # Tokens that are parts of a character have its place, all of them.
    places.append([end for (_, end), (start, _) in pairwise(offsets) if end <= start])
    begin = 0
    while begin < len(window):
        first = bisect_right(ends, begin)  # of the tokens that are left
        if not last and len(ends) - first <= 2 * limit:
            return
        most, ids = limit, []
        while not ids or len(ids) > limit:  # alone, a text's outer tokens may be others and more
            whole = len(ends) - first <= most
            end = len(window) if whole else _place(places, begin, ends[first + most - 1])
            ids = tokenizer.encode(window[begin:end])
            most = bisect_left(ends, end) - first
        yield Piece(window[begin:end], ids)
        begin = end


def _place(places: Sequence[Sequence[int]], begin: int, most: int) -> int:
    """The last of the best places behind `begin` and up to `most`."""
    for of_kind in places:
        found = bisect_right(of_kind, most) - 1
        if found >= 0 and of_kind[found] > begin:
            return of_kind[found]
    return most
