"""Tables that are drawn with lines on a page of a PDF: which glyph stands in which cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from axtune.documents.glyphs import Glyph, Page, Rule

_NEAR = 3.0  # points within which lines meet, or are one
_MOST_CELLS = 20_000


@dataclass(eq=False, slots=True)
class RuledTable:
    """A table and the glyphs of its cells.

    Attributes:
        x0: Its left end, in points.
        x1: Its right end.
        y0: Its lower end.
        y1: Its upper end.
        cells: By row and column, both from the upper left: the glyphs there. Cells that are merged
            downwards are the same list in each row; the columns that one is merged across hold
            None.
        edges: Left and right end of each column.
    """

    x0: float
    x1: float
    y0: float
    y1: float
    cells: list[list[list[Glyph] | None]]
    edges: list[tuple[float, float]]


def ruled_tables(page: Page) -> tuple[list[RuledTable], list[Glyph]]:
    """The tables of a page, and the glyphs that stand in none."""
    across, down = _joined(page.across), _joined(page.down)
    tables = []
    rest = page.glyphs
    for flat, upright in _groups(across, down):
        grid = _Grid.of(flat, upright)
        if grid is None:
            continue
        inside = [g for g in rest if grid.holds(g)]
        if not inside:
            continue
        taken = set(map(id, inside))
        rest = [g for g in rest if id(g) not in taken]
        tables.append(grid.table(inside))
    return tables, rest


def _joined(rules: Sequence[Rule]) -> list[Rule]:
    """Lines of which pieces that touch are one."""
    joined: list[Rule] = []
    at_one: dict[float, list[Rule]] = defaultdict(list)
    for at, group in zip(*_clusters([rule.at for rule in rules]), strict=True):
        at_one[at] = [rules[index] for index in group]
    for at, pieces in at_one.items():
        pieces.sort(key=lambda rule: rule.start)
        start, end = pieces[0].start, pieces[0].end
        for piece in pieces[1:]:
            if piece.start <= end + _NEAR:
                end = max(end, piece.end)
            else:
                joined.append(Rule(at, start, end))
                start, end = piece.start, piece.end
        joined.append(Rule(at, start, end))
    return joined


def _clusters(values: Sequence[float]) -> tuple[list[float], list[list[int]]]:
    """Values that are near each other as one: their means, and which belong to each."""
    order = sorted(range(len(values)), key=values.__getitem__)
    groups: list[list[int]] = []
    for index in order:
        if groups and values[index] - values[groups[-1][0]] <= _NEAR:
            groups[-1].append(index)
        else:
            groups.append([index])
    return [sum(values[i] for i in group) / len(group) for group in groups], groups


def _groups(across: list[Rule], down: list[Rule]) -> list[tuple[list[Rule], list[Rule]]]:
    """Lines that meet, directly or through others: those of one table."""
    parent = list(range(len(across) + len(down)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for i, flat in enumerate(across):
        for j, upright in enumerate(down):
            if (
                flat.start - _NEAR <= upright.at <= flat.end + _NEAR
                and upright.start - _NEAR <= flat.at <= upright.end + _NEAR
            ):
                parent[root(i)] = root(len(across) + j)
    groups: dict[int, tuple[list[Rule], list[Rule]]] = {}
    for i, flat in enumerate(across):
        groups.setdefault(root(i), ([], []))[0].append(flat)
    for j, upright in enumerate(down):
        groups.setdefault(root(len(across) + j), ([], []))[1].append(upright)
    return [group for group in groups.values() if len(group[0]) > 1 and group[1]]


@dataclass(slots=True)
class _Grid:
    """Where the lines of a table are."""

    across: list[Rule]
    down: list[Rule]
    xs: list[float]  # from the left
    ys: list[float]  # from above

    @classmethod
    def of(cls, across: list[Rule], down: list[Rule]) -> _Grid | None:
        """None where the lines make no table: a frame around text, an axis with ticks."""
        # Tables are often open at their sides: lines end where a line could be.
        xs, _ = _clusters(
            [rule.at for rule in down]
            + [min(rule.start for rule in across), max(rule.end for rule in across)]
        )
        ys, _ = _clusters(
            [rule.at for rule in across]
            + [min(rule.start for rule in down), max(rule.end for rule in down)]
        )
        cells = (len(xs) - 1) * (len(ys) - 1)
        if len(xs) < 3 or not 1 < cells <= _MOST_CELLS:
            return None
        return cls(across, down, xs, ys[::-1])

    def holds(self, glyph: Glyph) -> bool:
        middle = (glyph.x0 + glyph.x1) / 2
        return self.xs[0] <= middle <= self.xs[-1] and self.ys[-1] <= glyph.middle <= self.ys[0]

    def table(self, glyphs: list[Glyph]) -> RuledTable:
        """The table, with glyphs in its cells."""
        heights, widths = len(self.ys) - 1, len(self.xs) - 1
        owner = {(row, column): (row, column) for row in range(heights) for column in range(widths)}
        for row in range(heights):
            for column in range(widths):
                if column and not self._parted(row, column):
                    owner[row, column] = owner[row, column - 1]
                elif row and not self._floored(row, column):
                    owner[row, column] = owner[row - 1, column]
        held: dict[tuple[int, int], list[Glyph]] = defaultdict(list)
        for glyph in glyphs:
            column = _place(self.xs, (glyph.x0 + glyph.x1) / 2)
            row = _place([-y for y in self.ys], -glyph.middle)
            held[owner[row, column]].append(glyph)
        cells: list[list[list[Glyph] | None]] = []
        for row in range(heights):
            line: list[list[Glyph] | None] = []
            for column in range(widths):
                mine = owner[row, column]
                across = column > 0 and owner[row, column - 1] == mine
                line.append(None if across else held[mine])
            cells.append(line)
        edges = list(zip(self.xs, self.xs[1:], strict=False))
        return RuledTable(self.xs[0], self.xs[-1], self.ys[-1], self.ys[0], cells, edges)

    def _parted(self, row: int, column: int) -> bool:
        """Whether a line stands between a cell and the one to its left."""
        y = (self.ys[row] + self.ys[row + 1]) / 2
        return any(
            abs(rule.at - self.xs[column]) <= _NEAR and rule.start <= y <= rule.end
            for rule in self.down
        )

    def _floored(self, row: int, column: int) -> bool:
        """Whether a line lies between a cell and the one above it."""
        x = (self.xs[column] + self.xs[column + 1]) / 2
        return any(
            abs(rule.at - self.ys[row]) <= _NEAR and rule.start <= x <= rule.end
            for rule in self.across
        )


def _place(edges: Sequence[float], value: float) -> int:
    """Between which two of ascending edges a value lies."""
    for index in range(len(edges) - 2):
        if value < edges[index + 1]:
            return index
    return len(edges) - 2
