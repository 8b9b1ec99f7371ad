"""PPTX: each slide's title, then its shapes, tables, diagrams and charts, then its notes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from axtune.documents.blocks import Block, Table, lines_of
from axtune.documents.document import Content, missing_package
from axtune.documents.ooxml import broken, diagram_lines

_EMU = 914_400  # units of PowerPoint in an inch
# Shapes whose tops lie within this are beside each other, the left one first.
_SAME_HEIGHT = _EMU // 8


def read_pptx(data: bytes) -> Content:
    """The text of a presentation, slide by slide.

    Numbers, dates and feet of slides are left out, and slides that are hidden in the show are
    read. Shapes are read from top to bottom, those of a group together.

    Raises:
        Refused: When it cannot be read.
    """
    try:
        import pptx
    except ImportError as error:
        raise missing_package(error) from None

    try:
        presentation = pptx.Presentation(io.BytesIO(data))
        lines: list[str] = []
        for slide in presentation.slides:
            lines += ["", *lines_of(_slide(slide))]
        return Content(lines, presentation.core_properties.title, len(presentation.slides))
    except Exception as error:  # what the library meets in a damaged package is anything
        raise broken(error) from None


def _slide(slide: Any) -> Iterator[Block]:
    title = slide.shapes.title
    if title is not None:
        yield from _paragraphs(title.text_frame)
    shapes = [s for s in slide.shapes if title is None or s.shape_id != title.shape_id]
    for shape in _in_reading_order(shapes):
        yield from _shape(shape, slide.part)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        yield from _paragraphs(slide.notes_slide.notes_text_frame)


def _in_reading_order(shapes: Iterable[Any]) -> list[Any]:
    """From top to bottom; beside each other from left to right; without a place last."""
    placed = sorted(shapes, key=lambda shape: (shape.top is None, shape.top or 0))
    ordered: list[Any] = []
    band: list[Any] = []
    for shape in placed:
        if band and (shape.top or 0) - (band[0].top or 0) > _SAME_HEIGHT:
            ordered += sorted(band, key=lambda shape: shape.left or 0)
            band = []
        band.append(shape)
    return ordered + sorted(band, key=lambda shape: shape.left or 0)


def _shape(shape: Any, part: Any) -> Iterator[Block]:
    from pptx.enum.shapes import MSO_SHAPE_TYPE, PP_PLACEHOLDER

    if shape.is_placeholder and shape.placeholder_format.type in (
        PP_PLACEHOLDER.SLIDE_NUMBER,
        PP_PLACEHOLDER.DATE,
        PP_PLACEHOLDER.FOOTER,
        PP_PLACEHOLDER.HEADER,
    ):
        return
    if shape.shape_type == MSO_SHAPE_TYPE.GROUP:
        for inner in _in_reading_order(shape.shapes):
            yield from _shape(inner, part)
    elif getattr(shape, "has_table", False):
        yield _table(shape.table)
    elif getattr(shape, "has_chart", False):
        yield from _chart(shape.chart)
    elif shape.has_text_frame:
        yield from _paragraphs(shape.text_frame)
    else:
        yield from diagram_lines(part, shape.element)


def _paragraphs(frame: Any) -> list[Block]:
    return [paragraph.text.replace("\v", "\n") for paragraph in frame.paragraphs]


def _table(table: Any) -> Table:
    """Cells that are merged downwards in each row, those merged across once."""
    rows: list[list[list[Block]]] = []
    above: dict[int, list[Block]] = {}
    for row in table.rows:
        cells: list[list[Block]] = []
        for column, cell in enumerate(row.cells):
            if cell.is_spanned and cell._tc.hMerge:
                continue
            if not (cell.is_spanned and column in above):
                above[column] = _paragraphs(cell.text_frame)
            cells.append(above[column])
        rows.append(cells)
    return Table(rows)


def _chart(chart: Any) -> Iterator[Block]:
    """A chart's title and its figures, the categories in the first column."""
    if chart.has_title and chart.chart_title.has_text_frame:
        yield from _paragraphs(chart.chart_title.text_frame)
    for plot in chart.plots:
        series = list(plot.series)
        head: list[list[Block]] = [[""], *[_cell(one.name) for one in series]]
        values = [list(one.values) for one in series]
        rows: list[list[list[Block]]] = [head]
        for index, category in enumerate(plot.categories):
            figures = [column[index] if index < len(column) else None for column in values]
            rows.append([_cell(category), *map(_cell, figures)])
        yield Table(rows)


def _cell(value: Any) -> list[Block]:
    if isinstance(value, float):
        return [f"{value:g}"]
    return ["" if value is None else str(value)]
