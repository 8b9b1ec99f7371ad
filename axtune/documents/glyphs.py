"""The characters of a PDF page and where they stand, from pdfium."""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple


class Glyph(NamedTuple):
    """A character that is shown.

    Attributes:
        text: The character; several for a ligature.
        x0: Left end of its advance, in points from the page's left.
        x1: Right end of its advance.
        y: Its baseline, in points from the page's foot.
        size: Height of its font.
        space: Whether a space stands before it in the page's own text.
    """

    text: str
    x0: float
    x1: float
    y: float
    size: float
    space: bool

    @property
    def middle(self) -> float:
        """The middle of its height, for finding the cell that it stands in."""
        return self.y + self.size * 0.35


class Rule(NamedTuple):
    """A straight line that is drawn: horizontal at a height, or vertical at a distance.

    Attributes:
        at: Its height, or its distance from the left.
        start: Where it begins, on the other axis.
        end: Where it ends.
    """

    at: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Page:
    """What is on a page.

    Attributes:
        glyphs: Characters in the order of the file, those of turned text left out.
        across: Horizontal rules.
        down: Vertical rules.
        width: Of the page in points.
        height: Of the page in points.
        pictures: Whether it shows pictures.
    """

    glyphs: list[Glyph]
    across: list[Rule]
    down: list[Rule]
    width: float
    height: float
    pictures: bool


# Paths on a page: with more than this it is a drawing, whose lines are no tables'.
_MOST_PATHS = 4000
_HYPHEN = 2  # as pdfium marks one that breaks a word at the end of a line
_LIGATED = "filt"  # behind another letter, what a glyph such as ﬃ stands for; all at one place
_THIN = 3.0  # points: a filled box of this width is a line
_SHORTEST_RULE = 6.0


def read_page(page: Any) -> Page:
    """Characters and rules of a page of pypdfium2, turned upright when its text lies on its side.

    Args:
        page: A ``pypdfium2.PdfPage``; it is closed by the caller.
    """
    import pypdfium2.raw as raw

    left, bottom, right, top = page.get_cropbox()
    text_page = page.get_textpage()
    try:
        marks, angle = _characters(text_page, raw)
    finally:
        text_page.close()
    across, down = _rules(page, raw)
    turn = round(angle / (math.pi / 2)) % 4
    if turn:
        marks = [_turned_mark(mark, turn) for mark in marks]
        corners = [_turned(x, y, turn) for x in (left, right) for y in (bottom, top)]
        left, right = min(x for x, _ in corners), max(x for x, _ in corners)
        bottom, top = min(y for _, y in corners), max(y for _, y in corners)
        across, down = _turned_rules(across, down, turn)
    pictures = any(True for _ in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=4))
    glyphs = _placed(marks, (left, bottom, right, top))
    return Page(
        glyphs,
        [Rule(at - bottom, start - left, end - left) for at, start, end in across],
        [Rule(at - left, start - bottom, end - bottom) for at, start, end in down],
        right - left,
        top - bottom,
        pictures,
    )


# Code, origin, loose box (left, bottom, right, top).
_Mark = tuple[int, float, float, float, float, float, float]


def _characters(text_page: Any, raw: Any) -> tuple[list[_Mark], float]:
    """All characters in the direction that most of them have, and that direction in radians."""
    angles: Counter[int] = Counter()
    marks: list[tuple[int, _Mark]] = []
    x, y, box = ctypes.c_double(), ctypes.c_double(), raw.FS_RECTF()
    handle = text_page.raw
    baseline, degrees = math.inf, 0
    high = 0  # the first half of a character beyond 16 bits
    for index in range(text_page.count_chars()):
        code = raw.FPDFText_GetUnicode(handle, index)
        if code <= 32 and raw.FPDFText_IsGenerated(handle, index):
            if code == 32:
                marks.append((-1, (32, 0, 0, 0, 0, 0, 0)))
            continue
        if 0xD800 <= code < 0xDC00:
            high = code
            continue
        if 0xDC00 <= code < 0xE000:
            code = 0x10000 + ((high & 0x3FF) << 10 | code & 0x3FF) if high else 0xFFFD
            high = 0
        raw.FPDFText_GetCharOrigin(handle, index, x, y)
        raw.FPDFText_GetLooseCharBox(handle, index, box)
        if y.value != baseline:  # on one baseline all letters lie one way
            baseline = y.value
            degrees = round(math.degrees(raw.FPDFText_GetCharAngle(handle, index))) % 360
        if code > 32:
            angles[degrees] += 1
        if code == 0 or (code >= 0xE000 and raw.FPDFText_HasUnicodeMapError(handle, index) == 1):
            code = 0xFFFD
        mark = (code, x.value, y.value, box.left, box.bottom, box.right, box.top)
        marks.append((degrees, mark))
    upright = angles.most_common(1)[0][0] if angles else 0
    near = {(upright + off) % 360 for off in (-2, -1, 0, 1, 2)} | {-1}
    return [mark for degrees, mark in marks if degrees in near], math.radians(upright)


def _turned(x: float, y: float, quarters: int) -> tuple[float, float]:
    """A point after the page is turned back by quarters, so that its text is upright."""
    for _ in range(quarters):
        x, y = -y, x
    return x, y


def _turned_mark(mark: _Mark, turn: int) -> _Mark:
    code, x, y, left, bottom, right, top = mark
    x, y = _turned(x, y, turn)
    (a, b), (c, d) = _turned(left, bottom, turn), _turned(right, top, turn)
    return code, x, y, min(a, c), min(b, d), max(a, c), max(b, d)


def _turned_rules(across: list[Rule], down: list[Rule], turn: int) -> tuple[list[Rule], list[Rule]]:
    turned: tuple[list[Rule], list[Rule]] = ([], [])
    for rules, flat in ((across, True), (down, False)):
        for at, start, end in rules:
            ends = [(start, at), (end, at)] if flat else [(at, start), (at, end)]
            (x0, y0), (x1, y1) = (_turned(x, y, turn) for x, y in ends)
            if abs(y0 - y1) < abs(x0 - x1):
                turned[0].append(Rule(y0, min(x0, x1), max(x0, x1)))
            else:
                turned[1].append(Rule(x0, min(y0, y1), max(y0, y1)))
    return turned


def _placed(marks: list[_Mark], box: tuple[float, float, float, float]) -> list[Glyph]:
    """Glyphs inside of the page, each once: bold is often the same letter printed twice."""
    left, bottom, right, top = box
    glyphs: list[Glyph] = []
    printed: dict[tuple[int, int], list[float]] = {}  # by letter and height: its places
    space = False
    last = (math.inf, math.inf)
    for code, x, y, x0, y0, x1, y1 in marks:
        if code in (32, 9, 10, 13, 0xA0, 0x3000):
            space = True
            continue
        code = ord("-") if code == _HYPHEN else code
        if not (left - 1 <= x <= right + 1 and bottom - 1 <= y <= top + 1) or code < 32:
            continue
        size = max(y1 - y0, 1.0)
        if chr(code) in _LIGATED and glyphs and (x, y) == last:
            glyphs[-1] = glyphs[-1]._replace(text=glyphs[-1].text + chr(code))
            continue
        last = x, y
        places = printed.setdefault((code, round(y)), [])
        if places and min(abs(place - x) for place in places) < size * 0.15:
            continue
        places.append(x)
        glyphs.append(Glyph(chr(code), x0 - left, x1 - left, y - bottom, size, space))
        space = False
    return glyphs


def _rules(page: Any, raw: Any) -> tuple[list[Rule], list[Rule]]:
    """Horizontal and vertical lines of a page's paths."""
    across: list[Rule] = []
    down: list[Rule] = []
    for index, path in enumerate(page.get_objects(filter=[raw.FPDF_PAGEOBJ_PATH], max_depth=4)):
        if index >= _MOST_PATHS:
            return [], []
        x0, y0, x1, y1 = path.get_bounds()
        if y1 - y0 <= _THIN < x1 - x0:
            across.append(Rule((y0 + y1) / 2, x0, x1))
        elif x1 - x0 <= _THIN < y1 - y0:
            down.append(Rule((x0 + x1) / 2, y0, y1))
        elif _is_stroked(path, raw):
            for (ax, ay), (bx, by) in _segments(path, raw):
                if abs(ay - by) < 1 and abs(ax - bx) > _SHORTEST_RULE:
                    across.append(Rule((ay + by) / 2, min(ax, bx), max(ax, bx)))
                elif abs(ax - bx) < 1 and abs(ay - by) > _SHORTEST_RULE:
                    down.append(Rule((ax + bx) / 2, min(ay, by), max(ay, by)))
    return across, down


def _is_stroked(path: Any, raw: Any) -> bool:
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    raw.FPDFPath_GetDrawMode(path.raw, fill, stroke)
    return bool(stroke.value)


def _segments(path: Any, raw: Any) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The straight pieces of a path, in the page's coordinates."""
    matrix = path.get_matrix()
    x, y = ctypes.c_float(), ctypes.c_float()
    pieces = []
    start = here = (0.0, 0.0)
    for index in range(min(raw.FPDFPath_CountSegments(path.raw), _MOST_PATHS)):
        segment = raw.FPDFPath_GetPathSegment(path.raw, index)
        raw.FPDFPathSegment_GetPoint(segment, x, y)
        point = matrix.on_point(x.value, y.value)
        kind = raw.FPDFPathSegment_GetType(segment)
        if kind == raw.FPDF_SEGMENT_MOVETO:
            start = point
        elif kind == raw.FPDF_SEGMENT_LINETO:
            pieces.append((here, point))
        here = point
        if raw.FPDFPathSegment_GetClose(segment):
            pieces.append((here, start))
            here = start
    return pieces
