"""What a held-out file or a benchmark asks, item by item, whatever its form.

A row that training takes says by its roles what is asked and what is answered. Of any other (BFCL,
FunctionChat-Bench, questions with choices) every text counts that is no declaration of a tool, no
name and no instruction. Of a document each line is an item.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from axtune.config.paths import HUB, data_suffix, item_files
from axtune.config.recipe import Source
from axtune.config.splits import AUTO
from axtune.data.parse import read_row
from axtune.data.readers import read_rows
from axtune.data.row_text import Said, as_json, row_text
from axtune.data.rows import Row
from axtune.data.sources import files_of
from axtune.documents.document import Refused
from axtune.documents.reading import read_document
from axtune.errors import AxtuneError, DataError

# What stands beside an item's texts and is none of them, in the forms that are in use.
_NO_TEXT = frozenset(
    (
        *("tools", "input_tools", "function", "functions", "parameters", "schema"),
        *("id", "name", "role", "type", "type_of_output", "function_name", "function_info"),
        *(
            "meta",
            "metadata",
            "category",
            "subject",
            "source",
            "path",
            "url",
            "license",
            "split",
            "tool_call_id",
        ),
    )
)
_INSTRUCTIONS = ("system", "developer")


class Item(NamedTuple):
    """One item that no training row may repeat.

    Attributes:
        file: As the user would find it.
        line: Where it begins.
        said: Its texts.
        separate: Whether each text is for itself, as in a row that asks several questions; else
            what is asked is one text, and what is answered.
    """

    file: str
    line: int
    said: list[Said]
    separate: bool = False


def held_out_paths(given: str) -> list[Path]:
    """The files that a path, a glob or ``hf:owner/name`` stands for, as ``data.not_in`` takes it.

    Raises:
        AxtuneError: When there is no such file.
    """
    if given.startswith(HUB):
        return files_of(Source.model_validate({"path": given, "split": AUTO}))
    return item_files(given)


def read_items(path: Path, *, max_line_bytes: int) -> Iterator[Item]:
    """The items of a file: of data its rows, of a document its lines.

    Raises:
        AxtuneError: When it is a document that gives no text.
        DataError: When one of its rows cannot be read, so that nobody would know of its item.
    """
    if not data_suffix(path):
        yield from _lines(path)
        return
    for row in read_rows(path, max_line_bytes=max_line_bytes):
        if row.fault:
            raise DataError(
                f"{path} cannot be read, so that no row can be held against it.",
                [row.fault],
                "Repair it, or leave it out.",
            )
        yield _item(row)


def _lines(path: Path) -> Iterator[Item]:
    try:
        text = read_document(path.read_bytes(), path.name).text
    except Refused as refused:
        raise AxtuneError(
            f"{path} gives no text. {refused.message}", "Give another file."
        ) from None
    except OSError as error:
        remedy = "Give a file that you may read."
        raise AxtuneError(f"{path} cannot be read: {error.strerror}.", remedy) from None
    for number, line in enumerate(text.splitlines(), 1):
        yield Item(str(path), number, [Said("question", line)])


def _item(row: Row) -> Item:
    """A row without what instructs the model."""
    try:
        read, problems = read_row(row.value)
    except RecursionError:
        return Item(row.file, row.line, [])
    if read is not None and all(problem.severity == "warning" for problem in problems):
        return Item(row.file, row.line, row_text(read).said)
    said = list(dict.fromkeys(_texts(row.value, "question")))
    return Item(row.file, row.line, said, separate=True)


def _texts(value: Any, part: str) -> Iterator[Said]:
    """Every text inside a value but those of `_NO_TEXT`; a turn's role says whose it is."""
    if isinstance(value, str):
        if (inner := as_json(value)) is not None:
            yield from _texts(inner, part)
        else:
            yield Said("answer" if part == "answer" else "question", value)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, part)
    elif isinstance(value, dict) and value.get("role") not in _INSTRUCTIONS:
        inside = "answer" if value.get("role") == "assistant" else part
        for key, item in value.items():
            if key not in _NO_TEXT:
                answered = key in ("ground_truth", "answer", "output", "completion")
                yield from _texts(item, "answer" if answered else inside)
