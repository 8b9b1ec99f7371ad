"""Rows of JSONL files, and of JSON files that are one list."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from axtune.data.literals import RepeatedKeys
from axtune.data.rows import CHUNK, Row, not_utf8, too_large
from axtune.errors import Fault

_BOM = codecs.BOM_UTF8
_SPACE = re.compile(r"[ \t\r\n]*")


def read_json_lines(path: Path, stream: IO[bytes], limit: int) -> Iterator[Row]:
    """A row of every line that is not empty.

    Args:
        path: The file, as faults name it.
        stream: Its bytes.
        limit: Longer lines are faults and are not kept in memory.
    """
    name = str(path)
    number = 0
    reader = _JsonReader(_refuse_constant)
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit and not line.endswith(b"\n"):
            while (rest := stream.readline(CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield Row(name, number, None, too_large(name, number, limit))
            continue
        if line.startswith(_BOM):
            if number > 1:
                message = (
                    "a byte order mark in the middle of the file, from joining files; "
                    "remove it: sed -i 's/^\\xEF\\xBB\\xBF//'."
                )
                yield Row(name, number, None, Fault(name, number, "bom", message))
                continue
            line = line[len(_BOM) :]
        if line.isspace() or not line:
            continue
        yield _parse(name, number, line, reader)


def read_json_list(path: Path, stream: IO[bytes], limit: int) -> Iterator[Row]:
    """The items of one JSON list; a window of text slides over the file.

    Args:
        path: The file, as faults name it.
        stream: Its bytes.
        limit: Items of more bytes are faults.
    """
    name = str(path)
    chunks = _chunks(stream)
    constants: list[str] = []
    reader = _JsonReader(constants.append)
    window, at, line, expect = "", 0, 1, "["

    def refused(code: str, message: str, where: int = 0) -> Row:
        return Row(name, where or line, None, Fault(name, where or line, code, message))

    def grow() -> bool:
        """Read on; whether there was more."""
        nonlocal window, at
        more = next(chunks, None)
        if more is not None:
            window, at = window[at:] + more, 0
        return more is not None

    try:
        while True:
            begin = at
            at = _SPACE.match(window, begin).end()  # type: ignore[union-attr] # it always matches
            line += window.count("\n", begin, at)
            if at == len(window):
                if grow():
                    continue
                if expect:
                    message = (
                        "the list is not closed; the file ends before it does. Copy the file again."
                    )
                    yield refused("not-json", message)
                return
            if not expect:
                yield refused(
                    "not-json",
                    "there is text after the end of the list, which is not read; remove it.",
                )
                return
            character = window[at]
            if character == "]" and expect in ("row or ]", ", or ]"):
                expect, at = "", at + 1
                continue
            if not expect.startswith("row"):
                if character != expect[0]:
                    message = f"expected {expect} in the list; later rows are lost."
                    yield refused("not-json", message)
                    return
                expect, at = "row or ]" if expect == "[" else "row", at + 1
                continue
            reader.keys.found = False
            try:
                value, end = reader.decoder.raw_decode(window, at)
            except json.JSONDecodeError as error:
                cut = error.pos > len(window) - 10 or error.msg.startswith("Unterminated string")
                if cut and len(window) - at <= limit and grow():
                    constants.clear()
                    continue
                if len(window) - at > limit:
                    yield Row(name, line, None, too_large(name, line, limit))
                else:
                    where = line + window.count("\n", at, error.pos)
                    yield refused("not-json", f"{error.msg}; later rows are lost.", where)
                return
            except (ValueError, RecursionError) as error:
                yield refused("not-json", f"{_not_json(error)} Later rows are lost.")
                return
            # A number may go on behind the window; all else ends where it ends.
            if isinstance(value, (int, float)) and end > len(window) - 4 and grow():
                continue
            raw = window[at:end]
            if len(raw) > limit // 4 and len(raw.encode("utf-8", "surrogatepass")) > limit:
                yield Row(name, line, None, too_large(name, line, limit))
            elif constants:
                yield refused("not-json", _not_json(ValueError()))
                constants.clear()
            else:
                lost = reader.warning(name, line)
                yield Row(name, line, value, _surrogates(name, line, raw, value), lost)
            line += raw.count("\n")
            at, expect = end, ", or ]"
    except UnicodeDecodeError as error:
        line += window.count("\n", at)
        yield refused(*not_utf8(error.object[error.start :]))


def _chunks(stream: IO[bytes]) -> Iterator[str]:
    """The text of a file piece by piece; all text before a broken character comes first.

    Raises:
        UnicodeDecodeError: Where the file is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    while True:
        data = stream.read(CHUNK)
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            yield error.object[: error.start].decode()
            raise
        if text:
            yield text
        if not data:
            return


class _JsonReader:
    """JSON with an eye for keys that stand twice in an object, of which Python keeps the last.

    Args:
        constant: Called with NaN and its like, which Python's JSON takes and JSON does not have.
    """

    def __init__(self, constant: Callable[[str], Any]) -> None:
        self.keys = RepeatedKeys()
        hook = self.keys.object_of
        self.decoder = json.JSONDecoder(object_pairs_hook=hook, parse_constant=constant)

    def warning(self, name: str, number: int) -> Fault | None:
        """What was lost of the value read last."""
        if not self.keys.found:
            return None
        message = (
            "a key stands twice in an object, with different values, and the last one is read; "
            "keep one, or give the other a name of its own."
        )
        return Fault(name, number, "duplicate-key", message, "warning")


def _parse(name: str, number: int, line: bytes, reader: _JsonReader) -> Row:
    try:
        # Without its end: what is cut off is missing behind its last character, on this line.
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        return Row(name, number, None, Fault(name, number, *not_utf8(line)))
    reader.keys.found = False
    try:
        value = reader.decoder.decode(text)
    except json.JSONDecodeError as error:
        message = f"{error.msg.removesuffix(' at')} (column {error.pos + 1})."
        return Row(name, number, None, Fault(name, number, "not-json", message))
    except (ValueError, RecursionError) as error:
        return Row(name, number, None, Fault(name, number, "not-json", _not_json(error)))
    lost = reader.warning(name, number)
    return Row(name, number, value, _surrogates(name, number, text, value), lost)


def _not_json(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply."
    return "a number that JSON cannot express (NaN, or too long)."


def _surrogates(name: str, number: int, text: str, value: Any) -> Fault | None:
    """Half of a surrogate pair, written as an escape, which no tokenizer can encode."""
    if "\\ud" not in text and "\\uD" not in text:
        return None
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "an escape such as \\ud83d is half of a surrogate pair, cut in two; remove it."
        return Fault(name, number, "lone-surrogate", message)
    return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
