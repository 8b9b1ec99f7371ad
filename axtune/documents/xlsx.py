"""XLSX (XLSM, XLS): each sheet's name, then its rows; what formulas came to, never formulas."""

from __future__ import annotations

import datetime
import io
from typing import Any

from axtune.documents.blocks import row_line
from axtune.documents.document import Content, Refused, missing_package


def read_xlsx(data: bytes) -> Content:
    """The rows of all sheets that are shown.

    Merged cells: a value stands in each of the rows that it was merged down, in one column.
    Sheets that somebody has hidden are counted as lost.

    Raises:
        Refused: When it is encrypted or cannot be read.
    """
    try:
        import python_calamine as calamine
    except ImportError as error:
        raise missing_package(error) from None

    try:
        workbook = calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
    except calamine.PasswordError:
        raise Refused("encrypted", "A password protects it.") from None
    except calamine.CalamineError as error:
        raise Refused("broken", f"It cannot be read as a workbook: {_first_line(error)}") from None
    lines: list[str] = []
    hidden = shown = 0
    for sheet in workbook.sheets_metadata:
        if sheet.typ != calamine.SheetTypeEnum.WorkSheet:
            continue
        if sheet.visible != calamine.SheetVisibleEnum.Visible:
            hidden += 1
            continue
        shown += 1
        try:
            rows = _rows(workbook.get_sheet_by_name(sheet.name))
        except calamine.CalamineError as error:
            raise Refused("broken", f"A sheet cannot be read: {_first_line(error)}") from None
        if rows:
            lines += ["", sheet.name, *rows]
    return Content(lines, pages=shown, lost={"hidden-sheets": hidden} if hidden else {})


def _rows(sheet: Any) -> list[str]:
    rows = sheet.to_python(skip_empty_area=False)
    for (top, left), (bottom, _) in sheet.merged_cell_ranges or []:
        if top < len(rows) and left < len(rows[top]):
            for row in rows[top + 1 : bottom + 1]:
                row[left] = rows[top][left]
    cells = [[_cell(value) for value in row] for row in rows]
    # Columns that are empty throughout, such as a margin or what a merged cell covers, say nothing.
    used = [any(column) for column in zip(*cells, strict=True)]
    lines = [row_line([c for c, keep in zip(row, used, strict=True) if keep]) for row in cells]
    return [line for line in lines if line]


def _cell(value: Any) -> str:
    """A value as people write it: whole numbers without a point, dates in ISO's order."""
    match value:
        case bool():
            return str(value).upper()
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
        case datetime.datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S" if value.second else "%Y-%m-%d %H:%M")
        case datetime.time():
            return value.strftime("%H:%M:%S" if value.second else "%H:%M")
        case _:
            return str(value)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
