"""A page of a PDF in reading order: columns, paragraphs and tables."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from axtune.documents.lines import Line, Piece, lines_of_pieces
from axtune.documents.ruled import RuledTable

# A column is parted from its neighbour by at least so many heights of a letter.
_GUTTER = 0.8
# Lines of running text fill so much of their column; cells of tables do not.
_FILLED = 0.6
_COLUMN_LINES = 3
# What begins a line that begins a paragraph: bullets; numbers and articles, where they can.
_BULLET = re.compile(r"[•·◦▪■□○●◎◆◇▶▷►※☞✓✔–—‣∙⋅ㆍ]|[*-]\s|[①-⑳㉠-㉭⑴-⒇]")
_NUMBERED = re.compile(
    r"제\s?\d+\s?[장절조관편항]|\(?\d{1,2}[.)]\s?\D|\(?[가-하][.)]\s|\d+(\.\d+)+\.?\s|[IVX]+\.\s|\[\d+\]"
)
_LEADER = re.compile(r"([.·…‥]\s?){4,}\s*\d*$")  # of a table of contents
_ENDS = re.compile(r"[.!?。:;][\"”’」』)\]]*$")


@dataclass(slots=True)
class Paragraph:
    """Lines that belong together.

    Attributes:
        lines: From above.
        right: Where their column ends.
        opens: Whether it is the first of its column, where one from before may go on.
    """

    lines: list[Line]
    right: float
    opens: bool = False

    @property
    def size(self) -> float:
        """Height of its first line's font."""
        return self.lines[0].size


@dataclass(slots=True)
class AlignedTable:
    """Rows of a table without lines: their pieces are aligned."""

    rows: list[Line]


Item = Paragraph | AlignedTable | RuledTable


@dataclass(slots=True)
class _Region:
    """What stands in a column or across columns."""

    lines: list[Line]
    tables: list[RuledTable] = field(default_factory=list)


def items_of(pieces: Sequence[Piece], tables: Sequence[RuledTable]) -> list[Item]:
    """Paragraphs and tables of a page in reading order.

    Args:
        pieces: Text outside of ruled tables, without heads and feet.
        tables: Tables with lines.
    """
    items: list[Item] = []
    for region in _regions(list(pieces), list(tables), 0):
        own = _region_items(region)
        first = next((item for item in own if isinstance(item, Paragraph)), None)
        if first is not None:
            first.opens = True
        items += own
    return items


def _regions(pieces: list[Piece], tables: list[RuledTable], depth: int) -> list[_Region]:
    """Columns, in reading order; what goes across them parts those above from those below."""
    lines = lines_of_pieces(pieces)
    gutter = _gutter(lines) if depth < 3 else None
    if gutter is None:
        return [_Region(lines, tables)]
    across: list[tuple[float, list[Piece], list[RuledTable]]] = []
    beside: list[Piece] = []
    for line in lines:
        # A table without lines is a row, not two columns; it is told by its line.
        if any(piece.x0 < gutter - 1 and piece.x1 > gutter + 1 for piece in line.pieces):
            across.append((line.y, list(line.pieces), []))
        else:
            beside += line.pieces
    aside: list[RuledTable] = []
    for table in tables:
        if table.x0 < gutter < table.x1 and min(gutter - table.x0, table.x1 - gutter) > 10:
            across.append((table.y1, [], [table]))
        else:
            aside.append(table)
    across.sort(key=lambda one: -one[0])
    regions: list[_Region] = []
    ceiling = float("inf")
    for floor, own, own_tables in [*across, (float("-inf"), [], [])]:
        band = [p for p in beside if floor < p.y <= ceiling]
        band_tables = [t for t in aside if floor < t.y1 <= ceiling]
        for left in (True, False):
            column = [p for p in band if (p.x0 < gutter) == left]
            column_tables = [t for t in band_tables if ((t.x0 + t.x1) / 2 < gutter) == left]
            if column or column_tables:
                regions += _regions(column, column_tables, depth + 1)
        if own or own_tables:
            regions.append(_Region(lines_of_pieces(own), own_tables))
        ceiling = floor
    return _merged(regions, gutter)


def _merged(regions: list[_Region], gutter: float) -> list[_Region]:
    """Neighbouring regions that go across a gutter as one, so that their lines make paragraphs."""
    merged: list[_Region] = []
    for region in regions:
        if merged and _goes_across(region, gutter) and _goes_across(merged[-1], gutter):
            merged[-1].lines += region.lines
            merged[-1].tables += region.tables
        else:
            merged.append(region)
    return merged


def _goes_across(region: _Region, gutter: float) -> bool:
    ends = [(line.x0, line.x1) for line in region.lines] + [(t.x0, t.x1) for t in region.tables]
    return any(x0 < gutter - 1 and x1 > gutter + 1 for x0, x1 in ends)


def _gutter(lines: list[Line]) -> float | None:
    """Where two columns of running text are parted; None where there is one column."""
    if len(lines) < _COLUMN_LINES:
        return None
    pieces = [piece for line in lines for piece in line.pieces]
    left, right = min(p.x0 for p in pieces), max(p.x1 for p in pieces)
    size = median(piece.size for piece in pieces)
    width = round(right - left)
    if width < 12 * size:
        return None
    covered = [0] * (width + 2)
    for piece in pieces:
        for point in range(max(0, int(piece.x0 - left)), min(width, int(piece.x1 - left)) + 1):
            covered[point] += 1
    best: tuple[float, float] | None = None
    allowed = len(lines) * 0.25
    start = None
    last = int(width * 0.85)
    for point in range(int(width * 0.15), last + 1):
        if covered[point] <= allowed and point < last:
            start = point if start is None else start
            continue
        if start is not None and point - start >= _GUTTER * size:
            low, high = _emptiest(covered, start, point)
            best = _better(best, pieces, left + (low + high) / 2)
        start = None
    return None if best is None else best[1]


def _emptiest(covered: list[int], start: int, end: int) -> tuple[int, int]:
    """The widest stretch of a gap that the fewest pieces reach into."""
    fewest = min(covered[start:end])
    widest = start, start
    begin = None
    for point in range(start, end + 1):
        if point < end and covered[point] == fewest:
            begin = point if begin is None else begin
        elif begin is not None:
            widest = max(widest, (begin, point), key=lambda stretch: stretch[1] - stretch[0])
            begin = None
    return widest


def _better(
    best: tuple[float, float] | None,
    pieces: list[Piece],
    middle: float,
) -> tuple[float, float] | None:
    """The gutter with the most text on its thinner side, of the best so far and another."""
    sides = [p for p in pieces if p.x1 <= middle + 1], [p for p in pieces if p.x0 >= middle - 1]
    across = [p for p in pieces if p.x0 < middle - 1 and p.x1 > middle + 1]
    few, many = sorted(sides, key=len)
    if not _is_running_text(many):
        return best
    if len(few) < _COLUMN_LINES:
        # The last page's second column may hold a line; nothing goes across then.
        if not few or across or len(lines_of_pieces(many)) < 3 * _COLUMN_LINES:
            return best
    elif len(few) < len(across) // 3 or not _is_running_text(few):
        return best
    weight = min(sum(len(piece.text) for piece in side) for side in sides)
    return (weight, middle) if best is None or weight > best[0] else best


def _is_running_text(pieces: list[Piece]) -> bool:
    """Whether most lines fill their column, or columns: of those of tables few do."""
    left, right = min(p.x0 for p in pieces), max(p.x1 for p in pieces)
    lines = lines_of_pieces(pieces)
    if len(lines) < _COLUMN_LINES:
        return False
    filled = sum(sum(p.x1 - p.x0 for p in line.pieces) > _FILLED * (right - left) for line in lines)
    long = sum(len(line.text) for line in lines) / len(lines)
    if filled * 2 >= len(lines):
        return long >= 8
    return _gutter(lines) is not None


def _region_items(region: _Region) -> list[Item]:
    """Paragraphs and tables of one column, from above."""
    items: list[Item] = []
    tables = sorted(region.tables, key=lambda table: -table.y1)
    lines = sorted(region.lines, key=lambda line: -line.y)
    right = max((line.x1 for line in lines), default=0.0)
    run: list[Line] = []
    for line in lines:
        while tables and tables[0].y1 > line.y:
            items += _run_items(run, right)
            run = []
            items.append(tables.pop(0))
        run.append(line)
    return [*items, *_run_items(run, right), *tables]


def _run_items(lines: list[Line], right: float) -> list[Item]:
    """Paragraphs and tables without lines, of lines with no ruled table between them."""
    items: list[Item] = []
    waiting: list[Line] = []
    index = 0
    while index < len(lines):
        rows = _aligned_rows(lines, index)
        if rows > 1:
            items += _paragraphs(waiting, right)
            waiting = []
            items.append(AlignedTable(lines[index : index + rows]))
            index += rows
        else:
            waiting.append(lines[index])
            index += 1
    return [*items, *_paragraphs(waiting, right)]


def _aligned_rows(lines: list[Line], start: int) -> int:
    """How many lines from here are rows of a table: their pieces begin or end at one place."""
    rows = 0
    for line in lines[start:]:
        if len(line.pieces) < 2:
            break
        if rows and not _are_aligned(lines[start + rows - 1], line):
            break
        rows += 1
    return rows


def _are_aligned(above: Line, below: Line) -> bool:
    """Whether two lines share the places of two pieces, at their left, right or middle."""
    near = 0.6 * max(above.size, below.size)
    shared = sum(
        any(
            abs(one.x0 - other.x0) < near
            or abs(one.x1 - other.x1) < near
            or abs(one.x0 + one.x1 - other.x0 - other.x1) < near
            for other in above.pieces
        )
        for one in below.pieces
    )
    return shared >= 2


def _paragraphs(lines: list[Line], right: float) -> list[Paragraph]:
    if not lines:
        return []
    leading = _leading(lines)
    left = Counter(round(line.x0) for line in lines).most_common(1)[0][0]
    paragraphs = [Paragraph([lines[0]], right)]
    for above, line in itertools.pairwise(lines):
        if _begins(paragraphs[-1], above, line, leading, left):
            paragraphs.append(Paragraph([line], right))
        else:
            paragraphs[-1].lines.append(line)
    return paragraphs


def _leading(lines: list[Line]) -> float:
    """From one baseline to the next, in heights of the letters, as most lines have it."""
    gaps = [
        (above.y - line.y) / line.size
        for above, line in itertools.pairwise(lines)
        if abs(above.size - line.size) < 0.5
    ]
    return median(gaps) if gaps else 1.6


def _begins(paragraph: Paragraph, above: Line, line: Line, leading: float, left: float) -> bool:
    """Whether a line begins a paragraph of its own."""
    if abs(above.size - line.size) > 0.12 * max(above.size, line.size):
        return True
    if (above.y - line.y) / line.size > leading * 1.2:
        return True
    if _BULLET.match(line.text) or _LEADER.search(above.text):
        return True
    ended = bool(_ENDS.search(above.text))
    if _NUMBERED.match(line.text) and (ended or paragraph.right - above.x1 > 1.5 * line.size):
        return True
    word = line.size * min(len(line.text.split(" ", 1)[0]), 6)
    if paragraph.right - above.x1 > word + line.size:
        return True  # its first word would have found room above
    indented = line.x0 - above.x0 > 0.6 * line.size
    return indented and ended and len(paragraph.lines) > 1


def goes_on(above: Paragraph, below: Paragraph) -> bool:
    """Whether a paragraph goes on in the next column or page.

    Args:
        above: The last one of a column.
        below: The first one of the next.
    """
    last, first = above.lines[-1], below.lines[0]
    room = above.right - last.x1
    return (
        below.opens
        and abs(last.size - first.size) < 0.12 * last.size
        and not _ENDS.search(last.text)
        and not _BULLET.match(first.text)
        and room < 4 * last.size
        and (len(above.lines) > 1 or room < 2 * last.size)
    )
