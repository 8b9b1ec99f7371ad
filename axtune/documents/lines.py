"""Lines of a page: glyphs on one baseline, in pieces where the gap is wider than a space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from axtune.documents.glyphs import Glyph

# In heights of the font: what is wider than a space, and what parts words where no space is set.
_WIDE_GAP = 1.3
_WORD_GAP = 0.22
_SAME_LINE = 0.35
_FIRST_WIDE = "\u1100"  # Hangul, kana and Chinese characters follow


@dataclass(slots=True)
class Piece:
    """Glyphs that follow each other on a baseline.

    Attributes:
        text: With single spaces between words.
        x0: Left end, in points.
        x1: Right end.
        y: Baseline.
        size: Height of the font.
        led: Whether a space stands before it.
        first: Width of its first character.
        spaces: Widths of its spaces.
    """

    text: str
    x0: float
    x1: float
    y: float
    size: float
    led: bool
    first: float
    spaces: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Line:
    """Pieces on one baseline, from the left."""

    pieces: list[Piece]

    @property
    def x0(self) -> float:
        """Left end, in points."""
        return self.pieces[0].x0

    @property
    def x1(self) -> float:
        """Right end."""
        return max(piece.x1 for piece in self.pieces)

    @property
    def y(self) -> float:
        """Baseline."""
        return self.pieces[0].y

    @property
    def size(self) -> float:
        """Height of the larger part's font."""
        return max(self.pieces, key=lambda piece: len(piece.text)).size

    @property
    def text(self) -> str:
        """Its text, a space between pieces."""
        return " ".join(piece.text for piece in self.pieces)


def pieces_of(glyphs: Iterable[Glyph]) -> list[Piece]:
    """Pieces in the order of the file, which is the order of reading within each."""
    pieces: list[Piece] = []
    letters: list[str] = []
    last: Glyph | None = None
    for glyph in glyphs:
        if last is not None and _follows(last, glyph):
            piece = pieces[-1]
            gap = glyph.x0 - last.x1
            if (glyph.space and gap > -0.1 * last.size) or gap > _word_gap(last, glyph):
                letters.append(" ")
                piece.spaces.append(gap)
            letters.append(glyph.text)
            piece.x1 = max(piece.x1, glyph.x1)
            piece.size = max(piece.size, glyph.size)
        else:
            if pieces:
                pieces[-1].text = "".join(letters)
            letters = [glyph.text]
            width = glyph.x1 - glyph.x0
            pieces.append(Piece("", glyph.x0, glyph.x1, glyph.y, glyph.size, glyph.space, width))
        last = glyph
    if pieces:
        pieces[-1].text = "".join(letters)
    return pieces


def _follows(last: Glyph, glyph: Glyph) -> bool:
    size = max(last.size, glyph.size)
    if not -0.6 * size <= glyph.x0 - last.x1 <= _WIDE_GAP * size:
        return False
    smaller = min(last.size, glyph.size)
    raised = 0.5 * size if smaller < 0.8 * size else 0.0
    return glyph.y == last.y or abs(glyph.y - last.y) <= max(_SAME_LINE * smaller, raised)


def _word_gap(last: Glyph, glyph: Glyph) -> float:
    """How wide a gap is a space: Hangul that is spread evenly over a line has none at half that."""
    wide = last.text >= _FIRST_WIDE and glyph.text >= _FIRST_WIDE
    return (2 * _WORD_GAP if wide else _WORD_GAP) * min(last.size, glyph.size)


def lines_of_pieces(pieces: Sequence[Piece]) -> list[Line]:
    """Lines from above to below; pieces on one baseline from left to right."""
    lines: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -piece.y):
        # A raised or lowered piece belongs to the line that it is nearest to.
        near = next(
            (
                line
                for line in reversed(lines[-3:])
                if abs(line[0].y - piece.y) <= _SAME_LINE * max(line[0].size, piece.size)
                and not any(_overlap(piece, other) for other in line)
            ),
            None,
        )
        if near is None:
            lines.append([piece])
        else:
            near.append(piece)
    return [_line(line) for line in lines]


def _overlap(one: Piece, other: Piece) -> bool:
    return min(one.x1, other.x1) - max(one.x0, other.x0) > 0.5 * min(one.size, other.size)


def _line(pieces: list[Piece]) -> Line:
    """Pieces from the left; those that touch are one, whatever order the file has them in."""
    pieces.sort(key=lambda piece: piece.x0)
    joined = [pieces[0]]
    for piece in pieces[1:]:
        last = joined[-1]
        gap = piece.x0 - last.x1
        if gap > _WIDE_GAP * max(last.size, piece.size):
            joined.append(piece)
            continue
        spaced = gap > _WORD_GAP * min(last.size, piece.size) or (piece.led and gap > 0)
        joined[-1] = Piece(
            f"{last.text}{' ' if spaced else ''}{piece.text}",
            last.x0,
            max(last.x1, piece.x1),
            last.y if len(last.text) >= len(piece.text) else piece.y,
            max(last.size, piece.size),
            last.led,
            last.first,
            [*last.spaces, *([gap] if spaced else []), *piece.spaces],
        )
    return Line(joined)
