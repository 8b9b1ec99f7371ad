"""What a table's header says about the columns below it.

A table is a run of lines with the same separator (tab, ``|``, comma, semicolon), most of them as
many times as the first, which is its header. Commas inside of quotes separate nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import pairwise

_QUOTED = re.compile(r'"[^"\n]*"')
_SEPARATORS = "\t|,;"
_LONGEST = 24  # characters of a header's cell


class Tables:
    """The tables of a text.

    Attributes:
        text: Folded, in lower case.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = [0, *(match.end() for match in re.finditer("\n", text)), len(text) + 1]
        self._headers: list[int] | None = None

    def header(self, place: int) -> tuple[int, str] | None:
        """The header of the column that a place of the text stands in.

        Returns:
            A number that is the same for the whole column, and the header's text; None outside of
            tables and in their first lines.
        """
        line = bisect_right(self._starts, place) - 1
        if line == 0:
            return None
        if self._headers is None:
            self._headers = self._find_headers()
        top = self._headers[line]
        if top == line:
            return None
        begin = self._starts[line]
        separator, _ = _signature(self._line(line))
        column = _unquoted(self.text[begin:place]).count(separator)
        cells = _cells(self._line(top), separator)
        cell = cells[column].strip(" \"'*:\r")
        return self._starts[top] + column, cell if len(cell) <= _LONGEST else ""

    def _line(self, number: int) -> str:
        return self.text[self._starts[number] : self._starts[number + 1] - 1]

    def _find_headers(self) -> list[int]:
        """The header's line of each line: its own where it is in no table, or heads one."""
        headers: list[int] = []
        top, of_table = 0, ("", 0)
        for number, (begin, end) in enumerate(pairwise(self._starts)):
            signature = _signature(self.text[begin : end - 1])
            if signature == of_table and signature[1]:
                headers.append(top)
                continue
            headers.append(number)
            # A row that is longer, with a comma that separates nothing, does not end its table.
            if signature[0] != of_table[0] or number == top + 1:
                top, of_table = number, signature
        return headers


def _signature(line: str) -> tuple[str, int]:
    """The separator of a line's cells, and how often it stands there."""
    line = _unquoted(line)
    for separator in _SEPARATORS:
        if count := line.count(separator):
            return separator, count
    return "", 0


def _unquoted(line: str) -> str:
    """A line with other characters in the place of those in quotes."""
    if '"' not in line:
        return line
    return _QUOTED.sub(lambda quoted: "x" * len(quoted.group()), line)


def _cells(line: str, separator: str) -> list[str]:
    bare = _unquoted(line)
    ends = [index for index, letter in enumerate(bare) if letter == separator]
    return [line[a + 1 : b] for a, b in pairwise([-1, *ends, len(line)])]
