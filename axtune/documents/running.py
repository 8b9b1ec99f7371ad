"""Running heads, feet and page numbers of a PDF: what frames pages and is no part of the text."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median

from axtune.documents.glyphs import Page
from axtune.documents.lines import Line, Piece, lines_of_pieces
from axtune.documents.ruled import RuledTable

# Heads and feet are among so many lines from a page's upper and lower end.
_EDGE_LINES = 3
# Of the page's height: where heads and feet are, and where nothing else is.
_ZONE = 0.15
_MARGIN = 0.06
# A page number that stands alone: 1, - 1 -, 1 쪽, 1/3, 1 / 3 페이지, Page 1 of 3, iv.
_PAGE_NUMBER = re.compile(
    r"([-–—~<\[(]\s*)?(page|p\.|쪽|제)?\s*(\d{1,4}|[ivxl]{1,6})\s*(쪽|페이지|면|page)?"
    r"(\s*(/|of|중|-)\s*\d{1,4}\s*(쪽|페이지|면)?)?(\s*[-–—~>\])])?",
    re.IGNORECASE,
)
# Larger than the text, and it is a title, however often; smaller, and it may be of the frame.
_TITLE, _NOT_LARGER, _SMALL = 1.15, 1.03, 0.92


def body_size(pieces: Sequence[Sequence[Piece]]) -> float:
    """The height of the font that most letters of a document have."""
    sizes: Counter[float] = Counter()
    for page in pieces:
        for piece in page:
            sizes[round(piece.size * 2) / 2] += len(piece.text)
    return sizes.most_common(1)[0][0] if sizes else 0.0


def without_running(pages: Sequence[Page], pieces: Sequence[Sequence[Piece]]) -> list[list[Piece]]:
    """Pieces of each page without running heads, feet and page numbers.

    Running is what stands near an end of the page, at the same place and saying the same on other
    pages, numbers aside. On a page with a number of its own, what stands alone in the
    margin is of the frame as well, though it is there once.

    Args:
        pages: For their heights.
        pieces: Of each page, those of tables left out.
    """
    body = body_size(pieces)
    edges = [_edge(lines_of_pieces(own), page) for own, page in zip(pieces, pages, strict=True)]
    seen: dict[tuple[str, int], set[int]] = defaultdict(set)
    for index, edge in enumerate(edges):
        for piece, _ in edge:
            seen[_pattern(piece.text), round(piece.y / 4)].add(index)
    kept = []
    for own, edge, page in zip(pieces, edges, pages, strict=True):
        dropped = {id(p) for p, alone in edge if _is_running(p, alone, body, seen, len(pages))}
        dropped |= _frame(own, edge, page, body)
        kept.append([piece for piece in own if id(piece) not in dropped])
    return kept


def _edge(lines: list[Line], page: Page) -> list[tuple[Piece, bool]]:
    """Pieces near the ends of a page, and whether a gap parts them from the text."""
    gaps = [above.y - line.y for above, line in itertools.pairwise(lines)]
    usual = median(gaps) if gaps else 0.0
    edge: list[tuple[Piece, bool]] = []
    for order, steps in ((lines, gaps), (lines[::-1], gaps[::-1])):
        near = [
            line
            for line in order[:_EDGE_LINES]
            if not _ZONE * page.height < line.y < (1 - _ZONE) * page.height
        ]
        for index, line in enumerate(near):
            alone = any(gap > usual * 1.2 for gap in steps[index : len(near)])
            edge += [(piece, alone) for piece in line.pieces]
    return edge


def _is_running(
    piece: Piece,
    alone: bool,
    body: float,
    seen: dict[tuple[str, int], set[int]],
    pages: int,
) -> bool:
    """Whether a piece is a head or a foot, by how many pages say the same there."""
    slot = round(piece.y / 4)
    pattern = _pattern(piece.text)
    on = set().union(*(seen.get((pattern, slot + off), set()) for off in (-1, 0, 1)))
    framed = alone or piece.size < body * _SMALL
    needed = 2 if framed and pages < 8 else 3
    return len(on) >= needed and piece.size <= body * _TITLE


def _frame(
    own: Sequence[Piece], edge: Sequence[tuple[Piece, bool]], page: Page, body: float
) -> set[int]:
    """By identity: a page's number in its margin, and what stands alone there."""
    outer = [p for p, _ in edge if not _MARGIN * page.height < p.y < (1 - _MARGIN) * page.height]
    apart = set(map(id, outer))
    numbers = [
        piece
        for piece, alone in edge
        if _PAGE_NUMBER.fullmatch(piece.text.strip())
        and (alone or piece.size < body * _SMALL)
        and not any(  # a number among words, in a line that is spread over its column
            abs(other.y - piece.y) < 2 and other.size >= body * _SMALL
            for other in own
            if other is not piece and id(other) not in apart
        )
    ]
    if not numbers:
        return set()
    inner = [p.y for p in own if id(p) not in apart] or [page.height / 2]
    small = [
        p
        for p in outer
        if p.size <= body * _NOT_LARGER and min(abs(p.y - y) for y in inner) > 1.5 * body
    ]
    return set(map(id, [*numbers, *small]))


def without_running_tables(
    pages: Sequence[Page], tables: Sequence[Sequence[RuledTable]]
) -> list[list[RuledTable]]:
    """Tables of each page without those that head or foot pages, as forms of companies have them.

    Args:
        pages: For their heights.
        tables: Of each page.
    """
    seen: Counter[tuple[str, int]] = Counter()
    for page, own in zip(pages, tables, strict=True):
        seen.update(_place(table) for table in own if _is_at_end(table, page))
    return [
        [t for t in own if not (_is_at_end(t, page) and seen[_place(t)] > 1)]
        for page, own in zip(pages, tables, strict=True)
    ]


def _is_at_end(table: RuledTable, page: Page) -> bool:
    return table.y0 > (1 - _ZONE) * page.height or table.y1 < _ZONE * page.height


def _place(table: RuledTable) -> tuple[str, int]:
    letters = (glyph.text for row in table.cells for cell in row for glyph in cell or ())
    return _pattern("".join(letters)), round(table.y1 / 4)


def _pattern(text: str) -> str:
    """A text with its numbers as one sign: page and chapter numbers run on."""
    return re.sub(r"\d+", "#", "".join(text.split()))
