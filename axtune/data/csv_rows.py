"""Rows of CSV and TSV files: texts by column."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from axtune.data.layouts import wrong_header
from axtune.data.rows import CHUNK, Row, not_utf8, too_large
from axtune.errors import Fault


class _CsvLines:
    """Lines of text for `csv.reader`, counted; it can be asked on after an error."""

    def __init__(self, text: IO[str], limit: int) -> None:
        self.text = text
        self.limit = limit
        self.number = 0

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        line = self.text.readline(self.limit + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > self.limit and not line.endswith(("\n", "\r")):
            while (rest := self.text.readline(CHUNK)) and not rest.endswith(("\n", "\r")):
                pass
            raise csv.Error("field larger")
        if not line.isascii():
            line.encode()
        return line


def read_csv(path: Path, text: IO[str], limit: int, separator: str) -> Iterator[Row]:
    """Rows as texts by column; a row begins on the line after the one before it.

    Empty rows and columns without a name, which Excel leaves behind a table, carry nothing.

    Args:
        path: The file, as faults name it.
        text: Its text; a byte that is not UTF-8 stands in it as half of a surrogate pair.
        limit: Longer lines are faults and are not kept in memory.
        separator: Of the columns.
    """
    name = str(path)
    csv.field_size_limit(limit)
    lines = _CsvLines(text, limit)
    reader = csv.reader(lines, strict=True, delimiter=separator)
    columns: list[str] = []
    while True:
        begin = lines.number + 1
        fault = None
        cells: list[str] = []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except UnicodeEncodeError as error:
            data = error.object.encode("utf-8", "surrogateescape")
            fault = Fault(name, lines.number, *not_utf8(data))
        except csv.Error as error:
            if "field larger" in str(error):
                fault = too_large(name, begin, limit)
            else:
                fault = Fault(name, begin, "bad-csv-row", f"{error}; later rows are not read.")
        if fault is None and not any(map(str.strip, cells)):
            continue
        if fault is None and not columns:
            columns = cells
            if wrong := wrong_header(cells, separator):
                fault = Fault(name, begin, "bad-csv-row", wrong)
        elif fault is None:
            if len(cells) > len(columns) and not any(cells[len(columns) :]):
                del cells[len(columns) :]
            if len(cells) != len(columns):
                message = (
                    f"the row has {len(cells)} columns, and the header line has {len(columns)}; "
                    "quote cells that hold commas or line breaks."
                )
                yield Row(name, begin, None, Fault(name, begin, "bad-csv-row", message))
                continue
            row = dict(zip(columns, cells, strict=True))
            row.pop("", None)
            if any(cell.strip() for column, cell in zip(columns, cells, strict=True) if not column):
                message = "a cell stands in a column without a name; name it in the header line."
                yield Row(name, begin, None, Fault(name, begin, "bad-csv-row", message))
                continue
            yield Row(name, begin, row)
        if fault:
            yield Row(name, fault.line, None, fault)
            if fault.code == "bad-csv-row" or not columns:  # what follows cannot be told apart
                return
