"""A file becomes rows, each with its line.

Everything is read as a stream: memory holds one line (or one Parquet batch) at a time. Values stay
as the file has them; nothing is typed by column, so a date string stays a string, a big integer
stays exact, and a key that a row lacks stays absent.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from axtune.config.paths import data_suffix
from axtune.data.layouts import is_list, wrong_header, wrong_layout
from axtune.errors import Fault, MissingPackageError

_BOM = codecs.BOM_UTF8
_CHUNK = 1 << 20
_HEAD = 1 << 16  # what says of a file how it is laid out
_MAGIC = {
    ".gz": b"\x1f\x8b",
    ".zst": b"\x28\xb5\x2f\xfd",
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ",
}
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(slots=True)
class Row:
    """One row of a file.

    Attributes:
        file: Path as the user would find it.
        line: 1-based line where the row begins; the row's number in a Parquet or Arrow file.
        value: The parsed row; None when it could not be read.
        fault: Why not.
        warning: What was lost of a row that could be read.
    """

    file: str
    line: int
    value: Any
    fault: Fault | None = None
    warning: Fault | None = None


def read_rows(path: Path, *, max_line_bytes: int) -> Iterator[Row]:
    """Read a file row by row.

    Args:
        path: A JSONL, JSON, CSV, TSV, Parquet or Arrow file; texts also compressed.
        max_line_bytes: Longer lines are faults and are not kept in memory.

    Yields:
        Every row, in order; a fault in place of a row that cannot be read.
    """
    message = ""
    try:
        yield from _read(path, max_line_bytes)
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        message = "the archive is damaged or cut off; later rows are lost. Copy the file again."
        if isinstance(error, OSError) and error.strerror:  # the system's, not the archive's
            message = f"{error.strerror}."
    if message:
        yield Row(str(path), 0, None, Fault(str(path), 0, "unreadable", message))


def _read(path: Path, limit: int) -> Iterator[Row]:
    suffix = data_suffix(path)
    if suffix in (".parquet", ".arrow"):
        yield from _read_table(path, suffix)
        return
    with _open(path) as stream:
        head = stream.read(_HEAD)
    if found := wrong_layout(head, suffix):
        yield Row(str(path), found.line, None, Fault(str(path), found.line, *found.problem))
        return
    with _open(path) as stream:
        if suffix in (".csv", ".tsv"):
            # A byte that is not UTF-8 becomes half of a surrogate pair, and is found line by line.
            text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
            yield from _read_csv(path, text, limit, "\t" if suffix == ".tsv" else ",")
        elif is_list(head, suffix):
            yield from _read_json_list(path, stream, limit)
        else:
            yield from _read_lines(path, stream, limit)


def _open(path: Path) -> IO[bytes]:
    """The bytes of a file, decompressed if it is an archive by its first bytes.

    Raises:
        OSError: When it cannot be opened.
    """
    form = _packed_as(path)
    if not form and path.stat().st_size:
        form = path.suffix.lower()
    if form == ".zst":
        return io.BufferedReader(_pyarrow(".zst files").input_stream(path, compression="zstd"))
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return openers.get(form, Path.open)(path, "rb")  # type: ignore[no-any-return] # read only


def _packed_as(path: Path) -> str:
    """How a file is compressed, by its first bytes; empty when it is not."""
    with path.open("rb") as stream:
        begin = stream.read(8)
    return next((form for form, magic in _MAGIC.items() if begin.startswith(magic)), "")


def _pyarrow(what: str) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise MissingPackageError(
            f"{what} need the package pyarrow, which is not installed.",
            "Run `pip install pyarrow`.",
        ) from None
    return pyarrow


# --- JSON -------------------------------------------------------------------------------------


def _read_lines(path: Path, stream: IO[bytes], limit: int) -> Iterator[Row]:
    name = str(path)
    number = 0
    reader = _JsonReader(_refuse_constant)
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit and not line.endswith(b"\n"):
            while (rest := stream.readline(_CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield Row(name, number, None, _too_large(name, number, limit))
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


def _read_json_list(path: Path, stream: IO[bytes], limit: int) -> Iterator[Row]:
    """The items of one JSON list; a window of text slides over the file."""
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
            reader.repeated = False
            try:
                value, end = reader.decoder.raw_decode(window, at)
            except json.JSONDecodeError as error:
                cut = error.pos > len(window) - 10 or error.msg.startswith("Unterminated string")
                if cut and len(window) - at <= limit and grow():
                    constants.clear()
                    continue
                if len(window) - at > limit:
                    yield Row(name, line, None, _too_large(name, line, limit))
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
                yield Row(name, line, None, _too_large(name, line, limit))
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
        yield refused(*_encoding(error.object[error.start :]))


def _chunks(stream: IO[bytes]) -> Iterator[str]:
    """The text of a file piece by piece; all text before a broken character comes first.

    Raises:
        UnicodeDecodeError: Where the file is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    while True:
        data = stream.read(_CHUNK)
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
        self.repeated = False
        self.decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=constant)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            self.repeated |= any(value[key] != one for key, one in pairs)
        return value

    def warning(self, name: str, number: int) -> Fault | None:
        """What was lost of the value read last."""
        if not self.repeated:
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
        return Row(name, number, None, Fault(name, number, *_encoding(line)))
    reader.repeated = False
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


def _encoding(data: bytes) -> tuple[str, str]:
    """Name what a line that is not UTF-8 seems to be."""
    # Incremental decoders do not mind that the data may end in the middle of a character.
    try:
        codecs.getincrementaldecoder("utf-8")("surrogatepass").decode(data)
        return (
            "lone-surrogate",
            "half of a surrogate pair, encoded as if it were a character; remove it.",
        )
    except UnicodeDecodeError:
        pass
    try:
        codecs.getincrementaldecoder("cp949")().decode(data)
        return (
            "cp949",
            "the text is CP949 (EUC-KR), not UTF-8; convert it: iconv -f CP949 -t UTF-8.",
        )
    except UnicodeDecodeError:
        return "not-utf8", "the text is not UTF-8; convert it."


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _too_large(name: str, number: int, limit: int) -> Fault:
    message = f"the row is longer than {limit / 1e6:g} MB; raise data.max_line_mb, or shorten it."
    return Fault(name, number, "line-too-large", message)


# --- CSV, Parquet, Arrow --------------------------------------------------------------------------


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
            while (rest := self.text.readline(_CHUNK)) and not rest.endswith(("\n", "\r")):
                pass
            raise csv.Error("field larger")
        if not line.isascii():
            line.encode()
        return line


def _read_csv(path: Path, text: IO[str], limit: int, separator: str) -> Iterator[Row]:
    """Rows as texts by column; a row begins on the line after the one before it.

    Empty rows and columns without a name, which Excel leaves behind a table, carry nothing.
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
            fault = Fault(name, lines.number, *_encoding(data))
        except csv.Error as error:
            if "field larger" in str(error):
                fault = _too_large(name, begin, limit)
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


def _read_table(path: Path, suffix: str) -> Iterator[Row]:
    """The rows of a Parquet or an Arrow file, a batch at a time."""
    form = "Parquet" if suffix == ".parquet" else "Arrow"
    pa = _pyarrow(f"{form} files")
    name, code = str(path), f"not-{form.lower()}"
    try:
        schema, batches = (_parquet if form == "Parquet" else _arrow)(path)
    except (pa.ArrowException, OSError, ValueError):
        packed = path.is_file() and (_packed_as(path) or zipfile.is_zipfile(path))
        remedy = "it is compressed once more; unpack it" if packed else "copy it again"
        message = f"the file is not {form}; {remedy}."
        yield Row(name, 0, None, Fault(name, 0, code, message))
        return
    if len(set(schema.names)) < len(schema.names):
        message = "two columns have the same name, of which one would be lost; rename one."
        yield Row(name, 0, None, Fault(name, 0, "duplicate-key", message))
        return
    if column := _typed_object(schema):
        message = (
            f"{column} is stored as typed columns, which fill absent keys with null and retype "
            "values; store it as JSON text, or give the JSONL that the file was made from."
        )
        yield Row(name, 0, None, Fault(name, 0, "typed-columns", message))
        return
    number = 0
    try:
        for batch in batches:
            for value in batch.to_pylist():
                number += 1
                yield Row(name, number, value)
    except (pa.ArrowException, OSError, ValueError, OverflowError):
        number += 1
        fault = Fault(name, number, code, "the file is broken here; later rows are lost.")
        yield Row(name, number, None, fault)


def _parquet(path: Path) -> tuple[Any, Iterator[Any]]:
    """The schema of a Parquet file, and its batches."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    return file.schema_arrow, file.iter_batches(batch_size=256)


def _arrow(path: Path) -> tuple[Any, Iterator[Any]]:
    """The schema of an Arrow file, as `datasets` writes it or with an index, and its batches."""
    import pyarrow as pa

    source = pa.memory_map(str(path))
    with_index = source.read(6) == b"ARROW1"
    source.seek(0)
    if with_index:
        file = pa.ipc.open_file(source)
        stored = map(file.get_batch, range(file.num_record_batches))
        schema = file.schema
    else:
        stored = pa.ipc.open_stream(source)
        schema = stored.schema
    return schema, (
        batch.slice(at, 256) for batch in stored for at in range(0, batch.num_rows, 256)
    )


# Where tools keep arguments and schemas: objects whose keys differ from row to row.
_OBJECTS = (
    "arguments", "args", "tool_input", "kwargs", "parameters", "params", "input_schema",
    "inputSchema", "parametersJsonSchema", "parameters_json_schema", "args_schema",
)  # fmt: skip


def _typed_object(schema: Any) -> str | None:
    """The column in which call arguments or tool schemas lie as structs, if one does."""
    import pyarrow as pa

    def search(kind: pa.DataType, path: str) -> str | None:
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return search(kind.value_type, path)
        if not pa.types.is_struct(kind):
            return None
        within, _, name = path.rpartition(".")
        if name in _OBJECTS or (within and name == "input"):  # Anthropic's, not a column of items
            return path
        fields = (kind.field(index) for index in range(kind.num_fields))
        return next(filter(None, (search(f.type, f"{path}.{f.name}") for f in fields)), None)

    return next(filter(None, (search(field.type, field.name) for field in schema)), None)
