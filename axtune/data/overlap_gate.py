"""Nothing twice, nothing leaked: rows that repeat an earlier row, or an item of a held-out file.

A row that is refused for another reason is no earlier row, so that what it repeats is never lost
with it. Of rows that repeat each other the first stays, in the order of the sources.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from axtune.config.recipe import Data
from axtune.data.held_out_items import Item, held_out_paths, read_items
from axtune.data.leakage import Leak, LeakIndex
from axtune.data.near_duplicates import NearDuplicates, Twin
from axtune.data.row_text import RowText
from axtune.data.sources import files_of
from axtune.data.statistics import RowResult
from axtune.errors import Fault, Severity

_SAME = ("duplicate", "near-duplicate")


def overlap_gate(data: Data, questions: Sequence[str] = ()) -> OverlapGate | None:
    """The gate that a recipe asks for; None where it asks for none.

    Args:
        data: The recipe's section.
        questions: Files of `evaluate.data`.

    Raises:
        AxtuneError: When a file of held-out items is not there or cannot be read.
        MissingPackageError: When near duplicates are sought and rensa is not installed.
    """
    if data.near_duplicates == "off" and not data.not_in:
        return None
    return OverlapGate(data, questions)


class OverlapGate:
    """Holds rows against held-out items and against the rows before them.

    Attributes:
        files: Of the held-out items, but those of ``data.eval``.

    Args:
        data: Says what is sought and what becomes of it.
        questions: Files of `evaluate.data`.
    """

    def __init__(self, data: Data, questions: Sequence[str] = ()) -> None:
        self._data = data
        given = (*(data.not_in or ()), *questions)
        self.files = list(dict.fromkeys(path for one in given for path in held_out_paths(one)))
        held_out = data.eval if isinstance(data.eval, list) else []
        own = [path for source in held_out for path in files_of(source)]
        self._leaks = LeakIndex(self._items(dict.fromkeys([*self.files, *own])))
        self._twins = NearDuplicates() if data.near_duplicates != "off" else None
        # Of the rows that repeat none: where they stand, and their keys.
        self._places: list[tuple[str, int]] = []
        self._keys = array("Q")
        # Rows of one key have to stay together also where one of them joins another key's rows.
        self._joined: dict[int, int] = {}

    def _items(self, files: dict[Path, None]) -> Iterator[Item]:
        limit = int(self._data.max_line_mb * 1e6)
        for file in files:
            yield from read_items(file, max_line_bytes=limit)

    def judge(self, rows: Sequence[tuple[RowResult, RowText]]) -> None:
        """Name, drop or refuse rows that are sound but for what they repeat.

        Args:
            rows: In the order of the files; results are changed.
        """
        left = []
        for result, text in rows:
            if leak := self._leaks.find(text):
                self._leaked(result, leak)
            if not result.refused and not result.dropped:
                left.append((result, text))
        if self._twins is None:
            return
        for (result, _), twin in zip(left, self._twins.find([t for _, t in left]), strict=True):
            key = result.key if twin is None else self._keys[twin.row]
            result.key = self._joined.setdefault(result.key, key)
            if twin is None:
                self._places.append((result.file, result.line))
                self._keys.append(result.key)
            else:
                self._repeated(result, twin)

    def _leaked(self, result: RowResult, leak: Leak) -> None:
        what = f"{leak.file}:{leak.line}" + (f" and {leak.others} more" if leak.others else "")
        said = (
            f"{leak.run} letters and digits in a row also stand in the held-out {what} "
            f"({leak.covered:.0%} of its {leak.size})"
        )
        if leak.same_form:
            message = f"{said}, with other numbers: the same form, not the same item."
            _found(result, "same-form", message, "warning")
        elif self._data.leaked == "drop":
            _found(result, "leaked", f"{said}; the row is dropped.", "warning")
            result.drop("leaked")
        else:
            message = f"{said}; remove the row, or set data.leaked: drop."
            _found(result, "leaked", message, "error")
            result.samples.clear()
            result.turns.clear()

    def _repeated(self, result: RowResult, twin: Twin) -> None:
        file, line = self._places[twin.row]
        code = "near-duplicate"
        if any(fault.code == "duplicate" for fault in result.faults):
            code = "duplicate"
        result.faults[:] = [fault for fault in result.faults if fault.code not in _SAME]
        same = "the same row as" if twin.similarity == 1 else "nearly the same row as"
        said = f"{same} {file}:{line}" + (
            "" if twin.similarity == 1 else f" ({twin.similarity:.2f})"
        )
        if self._data.near_duplicates == "drop":
            _found(result, code, f"{said}, which is kept; this row is dropped.", "warning")
            result.drop(code)
        else:
            message = f"{said}; data.near_duplicates: drop keeps that one alone."
            _found(result, code, message, "warning")


def _found(result: RowResult, code: str, message: str, severity: Severity) -> None:
    result.faults.append(Fault(result.file, result.line, code, message, severity))
    result.overlaps.append(code)
