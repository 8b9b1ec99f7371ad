"""Paragraphs and tables as lines: a paragraph a line, a row of a table a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

CELL_SEPARATOR = " | "


@dataclass(eq=False, slots=True)
class Table:
    """A table: rows of cells, each cell what it holds.

    A cell that is merged downwards stands in each of its rows, the same list; one that is merged
    across columns stands once.
    """

    rows: list[list[list[Block]]]


Block = str | Table


def lines_of(blocks: Iterable[Block]) -> Iterator[str]:
    """The lines of paragraphs and tables, in their order.

    A table of one column is a box around its paragraphs, as reports and forms have it. A table in
    a cell comes behind the row that it stands in.
    """
    for block in blocks:
        if isinstance(block, str):
            if block.strip():
                yield block
        else:
            yield from _table_lines(block)


def _table_lines(table: Table) -> Iterator[str]:
    width = max(map(len, table.rows), default=0)
    said: set[int] = set()  # cells, by identity: what is merged downwards is one list
    for row in table.rows:
        if width == 1:
            for cell in row:
                if id(cell) not in said:
                    yield from lines_of(cell)
        elif line := row_line([" ".join(_paragraphs(cell)) for cell in row]):
            yield line
            for cell in row:
                if id(cell) not in said:
                    yield from lines_of(block for block in cell if isinstance(block, Table))
        else:
            yield from lines_of(
                block for cell in row if id(cell) not in said for block in cell
            )  # nothing but tables in it
        said.update(map(id, row))


def _paragraphs(cell: Sequence[Block]) -> list[str]:
    return [block.strip() for block in cell if isinstance(block, str) and block.strip()]


def row_line(cells: Sequence[str]) -> str:
    """A row of a table as a line; empty when its cells are. Empty cells at its end are left out."""
    flat = [" ".join(cell.split()) for cell in cells]
    while flat and not flat[-1]:
        flat.pop()
    return CELL_SEPARATOR.join(flat)
