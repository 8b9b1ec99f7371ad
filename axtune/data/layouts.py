"""What a file as a whole is, when it is not rows in the form that its name says.

One cause is named once, where reading on would find the same fault on every line.
"""

from __future__ import annotations

import ast
import codecs
import json
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from axtune.errors import Problem

# Columns of the row shapes, to tell a header that is written in another way from one of other keys.
_COLUMNS = frozenset(
    (
        *("messages", "conversations", "instruction", "input", "output", "system", "prompt"),
        *("completion", "response", "chosen", "rejected", "label", "tools", "text"),
    )
)
# Keys under which rows lie in one object (AI Hub, KorQuAD, the Hub's own viewer).
_HOLDERS = ("data", "rows", "train", "examples", "instances", "items", "records", "dataset")
_ONE_OBJECT = "the file is one JSON object"
_EXPECTED = "expected a list of rows, or a row on each line"


class Layout(NamedTuple):
    """Why a file is not read, and on which line that shows; 0 for the whole."""

    line: int
    problem: Problem


def wrong_layout(head: bytes, suffix: str) -> Layout | None:
    """What keeps a text file from being read at all.

    Args:
        head: Its first bytes, decompressed: all of a small file.
        suffix: Its form, such as ``.jsonl``.
    """
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        message = "the file is UTF-16; convert it: iconv -f UTF-16 -t UTF-8."
        return Layout(0, Problem("not-utf8", message))
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    for begin, message in (
        (b"version https://git-lfs", "the file is a pointer of Git LFS; run `git lfs pull`."),
        (b"<!DOCTYPE", "the file is a web page; download the file itself."),
        (b"<!doctype", "the file is a web page; download the file itself."),
        (b"<html", "the file is a web page; download the file itself."),
        (b"PK\x03\x04", "the file is a ZIP archive or an Excel sheet; unpack it or save as CSV."),
        (b"PAR1", "the file is Parquet; name it .parquet."),
    ):
        if text.startswith(begin):
            return Layout(0, Problem("wrong-form", message))
    if suffix in (".csv", ".tsv") or text.startswith(b"["):
        return None
    line = head[: len(head) - len(text)].count(b"\n") + 1
    message = _wrong_json(text, suffix)
    return Layout(line, Problem("not-json", message)) if message else None


def is_list(head: bytes, suffix: str) -> bool:
    """Whether a file is one JSON list of rows, and not lines of which each is a list.

    Args:
        head: As `wrong_layout` takes it.
        suffix: As `wrong_layout` takes it.
    """
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text.startswith(b"["):
        return False
    first, _, rest = text.partition(b"\n")
    return suffix == ".json" or not rest.strip() or not isinstance(_value(first), list)


def wrong_header(cells: Sequence[str], separator: str) -> str:
    """What is wrong with the header line of a table; empty when nothing is."""
    named = [cell for cell in cells if cell]
    if len(set(named)) < len(named):
        return "two columns have the same name; rename one."
    for other, name in ((";", "semicolons"), ("\t", "tabs"), (",", "commas"), ("|", "bars")):
        if len(cells) == 1 and other != separator and other in cells[0]:
            return (
                f"the columns are separated by {name}; .csv is read with commas and .tsv with "
                "tabs. Save it like that."
            )
    alike = {cell.strip().strip("\ufeff").lower() for cell in named} & _COLUMNS
    if meant := sorted(alike - set(named)):
        return (
            f"the header line writes {', '.join(meant)} with capitals or spaces; "
            "write the names just so."
        )
    return ""


def _wrong_json(text: bytes, suffix: str) -> str:
    """What is wrong with JSON that is no list, as its first line shows it."""
    first, _, rest = text.partition(b"\n")
    first = first.strip()
    if not first:
        return ""
    value = _value(first)
    if isinstance(value, dict):
        return "" if rest.strip() else _one_object(value)
    if isinstance(value, str):
        inner = _value(value.encode("utf-8", "surrogatepass"))
        if isinstance(inner, dict):
            return (
                "each line is JSON text that holds the JSON of a row: it was encoded twice. "
                "Write the row itself."
            )
        return ""
    if first.endswith(b",") and isinstance(_value(first[:-1]), dict):
        return (
            "lines end in a comma, as inside of a list; remove it (sed -i 's/,\\r*$//'), or put "
            "the rows in [ and ] and name the file .json."
        )
    if first.startswith(b"{") and _is_python(first):
        return "the line is a Python dict, not JSON; write rows with json.dumps(row)."
    if first.startswith(b"{") and _is_open(first):
        whole = _value(text)
        if isinstance(whole, dict):
            return _one_object(whole) or f"{_ONE_OBJECT}; {_EXPECTED} (jq -c . FILE)."
        if isinstance(_value(rest.lstrip().partition(b"\n")[0]), dict):
            return ""  # a first row that is cut off, and more rows
        if suffix == ".json":
            return f"{_ONE_OBJECT} over many lines, or several; {_EXPECTED} (jq -c . FILE)."
        return f"an object goes over several lines; {_EXPECTED}: jq -c . FILE."
    return ""


def _one_object(value: dict[str, Any]) -> str:
    """What an object is that is a whole file, when it is no row."""
    if {"columns", "data"} <= value.keys() and isinstance(value["columns"], list):
        return (
            f'{_ONE_OBJECT} of columns and data (pandas\' orient="split"); {_EXPECTED}: '
            'to_json(orient="records", lines=True, force_ascii=False).'
        )
    for key in _HOLDERS:
        if isinstance(rows := value.get(key), list) and rows and isinstance(rows[0], dict):
            return f"{_ONE_OBJECT} that holds its rows under {key}; {_EXPECTED}: jq -c '.{key}[]'."
    parts = list(value.values())
    if len(parts) > 1 or (parts and set(value) <= {"0"}):
        numbered = all(isinstance(part, dict) and _is_numbered(part) for part in parts)
        if numbered or _are_columns(parts):
            return (
                f"{_ONE_OBJECT} that holds column by column (pandas' to_json without orient); "
                f'{_EXPECTED}: to_json(orient="records", lines=True, force_ascii=False).'
            )
        if _is_numbered(value) and all(isinstance(part, dict) for part in parts):
            return f"{_ONE_OBJECT} that numbers its rows; {_EXPECTED}: jq -c '.[]'."
    return ""


def _are_columns(parts: list[Any]) -> bool:
    """Whether the values of an object are the columns of a table, rather than the lists of a row.

    Turns, parts, calls and tools are objects; a column of conversations holds lists of them.
    """
    return (
        all(isinstance(part, list) for part in parts)
        and len({len(part) for part in parts}) == 1
        and len(parts[0]) > 1
        and not any(isinstance(cell, dict) for part in parts for cell in part)
    )


def _is_numbered(value: dict[str, Any]) -> bool:
    return bool(value) and all(key.isdigit() for key in value)


def _is_open(line: bytes) -> bool:
    """Whether a line is the beginning of a JSON value that goes on."""
    try:
        text = line.decode()
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) and not error.msg.startswith("Unterminated")
    except (ValueError, RecursionError):
        return False
    return False


def _is_python(line: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in its strings
        try:
            return isinstance(ast.literal_eval(line.decode()), dict)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return False


def _value(text: bytes) -> Any:
    """What JSON says; None when it is none."""
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
