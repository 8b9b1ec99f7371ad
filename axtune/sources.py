"""Files, folders, globs and Hub data sets become rows, each with its file and line.

Everything is read as a stream: memory holds one line (or one Parquet batch) at a time. Values stay
as the file has them; nothing is typed by column, so a date string stays a string, a big integer
stays exact, and a key that a row lacks stays absent.
"""

from __future__ import annotations

import codecs
import csv
import glob
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from axtune.errors import AxtuneError, Fault, MissingPackageError
from axtune.recipe import Source

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
_BOM = codecs.BOM_UTF8
_CHUNK = 1 << 20


@dataclass(slots=True)
class Row:
    """One row of a file.

    Attributes:
        file: Path as the user would find it.
        line: 1-based line where the row begins; the row's number in a Parquet file.
        value: The parsed row; None when it could not be read.
        fault: Why not.
    """

    file: str
    line: int
    value: Any
    fault: Fault | None = None


def files_of(source: Source) -> list[Path]:
    """The files that a source stands for, sorted by name.

    Raises:
        AxtuneError: When there is no such file, or none of a form that is read.
    """
    if source.path.startswith("hf:"):
        return _split_files(_download(source), source.split, source.path)
    path = Path(source.path).expanduser()
    if path.is_file():
        if path.suffix.lower() not in _SUFFIXES:
            raise AxtuneError(
                f"{source.path} is not a form that is read.", f"Read are {', '.join(_SUFFIXES)}."
            )
        return [path]
    found = (
        sorted(path.rglob("*")) if path.is_dir() else [*map(Path, sorted(glob.glob(source.path)))]
    )
    files = [file for file in found if file.suffix.lower() in _SUFFIXES and file.is_file()]
    if not files:
        what = "holds no" if path.is_dir() else "is no file, folder or pattern of"
        raise AxtuneError(
            f"{source.path} {what} data files ({', '.join(_SUFFIXES)}).",
            f"Paths are relative to the current folder, {Path.cwd()}.",
        )
    return files


def read_rows(path: Path, *, max_line_bytes: int) -> Iterator[Row]:
    """Read a file row by row.

    Args:
        path: A JSONL, JSON, CSV or Parquet file.
        max_line_bytes: Longer lines are faults and are not kept in memory.

    Yields:
        Every row, in order; a fault in place of a row that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from _read_parquet(path)
        return
    with path.open("rb") as stream:
        if stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            message = "the file is UTF-16; convert it: iconv -f UTF-16 -t UTF-8."
            yield Row(str(path), 0, None, Fault(str(path), 0, "not-utf8", message))
            return
        stream.seek(0)
        if suffix == ".csv":
            yield from _read_csv(path, stream, max_line_bytes)
        elif suffix == ".json" and _begins_with_list(stream):
            yield from _read_json_list(path, stream, max_line_bytes)
        else:
            yield from _read_lines(path, stream, max_line_bytes)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- JSON -------------------------------------------------------------------------------------


def _read_lines(path: Path, stream: IO[bytes], limit: int) -> Iterator[Row]:
    name = str(path)
    number = 0
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
                    "a byte order mark in the middle of the file, as when files are joined; "
                    "remove it: sed -i 's/^\\xEF\\xBB\\xBF//'."
                )
                yield Row(name, number, None, Fault(name, number, "bom", message))
                continue
            line = line[len(_BOM) :]
        if line.isspace() or not line:
            continue
        yield _parse(name, number, line)


def _begins_with_list(stream: IO[bytes]) -> bool:
    head = stream.read(4096).removeprefix(_BOM).lstrip()
    stream.seek(0)
    return head.startswith(b"[")


def _read_json_list(path: Path, stream: IO[bytes], limit: int) -> Iterator[Row]:
    """The items of one JSON list; a window of text slides over the file."""
    name = str(path)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    window, line, at_end = "", 1, False
    expect = "["
    try:
        while True:
            stripped = window.lstrip()
            line += window.count("\n", 0, len(window) - len(stripped))
            window = stripped
            if not window and not at_end:
                window = text.read(_CHUNK)
                at_end = not window
                continue
            if expect and window[:1] == expect:
                window, expect = window[1:], ""
                continue
            if window[:1] == "]" and expect in ("", ","):
                return
            if expect or (at_end and not window):
                message = f"expected {expect or 'a row'} in the list; the JSON is broken here."
                yield Row(name, line, None, Fault(name, line, "not-json", message))
                return
            try:
                value, end = decoder.raw_decode(window)
                # A number may go on behind the window; objects and lists end where they end.
                if end == len(window) and not at_end:
                    raise ValueError
            except (ValueError, RecursionError) as error:
                more = "" if len(window) > limit else text.read(max(_CHUNK, len(window)))
                if more:
                    window += more
                    continue
                if len(window) > limit:
                    fault = _too_large(name, line, limit)
                else:
                    at = line + window.count("\n", 0, getattr(error, "pos", 0))
                    fault = Fault(
                        name, at, "not-json", "the list is broken here; later rows are lost."
                    )
                yield Row(name, line, None, fault)
                return
            raw = window[:end]
            yield Row(name, line, value, _surrogates(name, line, raw, value))
            line += raw.count("\n")
            window, expect = window[end:], ","
    except UnicodeDecodeError as error:
        yield Row(name, line, None, Fault(name, line, *_encoding(error.object)))


def _parse(name: str, number: int, line: bytes) -> Row:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return Row(name, number, None, Fault(name, number, *_encoding(line)))
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        message = f"{error.msg} (column {error.colno})."
        return Row(name, number, None, Fault(name, number, "not-json", message))
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        message = (
            "nested too deeply." if deep else "a number that JSON cannot say (NaN, or too long)."
        )
        return Row(name, number, None, Fault(name, number, "not-json", message))
    return Row(name, number, value, _surrogates(name, number, text, value))


def _surrogates(name: str, number: int, text: str, value: Any) -> Fault | None:
    """Half of a surrogate pair, written as an escape, which no tokenizer can encode."""
    if "\\ud" not in text and "\\uD" not in text:
        return None
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "an escape such as \\ud83d is half of a surrogate pair; the text was cut there."
        return Fault(name, number, "lone-surrogate", message)
    return None


def _encoding(data: bytes) -> tuple[str, str]:
    """Name what a line that is not UTF-8 seems to be."""
    try:
        data.decode("utf-8", "surrogatepass")
        return "lone-surrogate", "half of a surrogate pair, encoded as if it were a character."
    except UnicodeDecodeError:
        pass
    try:
        data.decode("cp949")
        return "cp949", "the line is CP949 (EUC-KR), not UTF-8; convert: iconv -f CP949 -t UTF-8."
    except UnicodeDecodeError:
        return "not-utf8", "the line is not UTF-8 text."


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _too_large(name: str, number: int, limit: int) -> Fault:
    message = f"the row is longer than {limit / 1e6:g} MB; raise data.max_line_mb, or shorten it."
    return Fault(name, number, "line-too-large", message)


# --- CSV and Parquet --------------------------------------------------------------------------


def _read_csv(path: Path, stream: IO[bytes], limit: int) -> Iterator[Row]:
    """Rows as texts by column; a row begins on the line behind the one before it."""
    name = str(path)
    csv.field_size_limit(limit)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(text, strict=True)
    begin = 1
    try:
        columns = reader.fieldnames or []
        begin = reader.line_num + 1
        for row in reader:
            if None in row or None in row.values():
                message = f"the row has not the {len(columns)} columns of the head line."
                yield Row(name, begin, None, Fault(name, begin, "bad-csv-row", message))
            else:
                yield Row(name, begin, row)
            begin = reader.line_num + 1
    except UnicodeDecodeError as error:
        code, message = _encoding(error.object)
        yield Row(name, begin, None, Fault(name, begin, code, message.replace("line", "file")))
    except csv.Error as error:
        if "field larger" in str(error):
            yield Row(name, begin, None, _too_large(name, begin, limit))
        else:
            fault = Fault(name, begin, "bad-csv-row", f"{error}; later rows are not read.")
            yield Row(name, begin, None, fault)


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingPackageError("Parquet files need pyarrow.", "pip install pyarrow") from None
    name = str(path)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError):
        yield Row(name, 0, None, Fault(name, 0, "not-parquet", "the file is not Parquet."))
        return
    if column := _typed_object(file.schema_arrow):
        message = (
            f"{column} is stored as typed columns, which fill absent keys with null and retype "
            "values; store it as JSON text, or give the JSONL that the file was made from."
        )
        yield Row(name, 0, None, Fault(name, 0, "typed-columns", message))
        return
    number = 0
    for batch in file.iter_batches(batch_size=256):
        for value in batch.to_pylist():
            number += 1
            yield Row(name, number, value)


def _typed_object(schema: Any) -> str | None:
    """The column in which call arguments or tool schemas lie as structs, if one does."""
    import pyarrow as pa

    def search(kind: pa.DataType, path: str) -> str | None:
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return search(kind.value_type, path)
        if not pa.types.is_struct(kind):
            return None
        if path.rpartition(".")[2] in ("arguments", "parameters"):
            return path
        fields = (kind.field(index) for index in range(kind.num_fields))
        return next(filter(None, (search(f.type, f"{path}.{f.name}") for f in fields)), None)

    return next(filter(None, (search(field.type, field.name) for field in schema)), None)


# --- Hub data sets ----------------------------------------------------------------------------


def _download(source: Source) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    name = source.path.removeprefix("hf:")
    patterns = [f"*{suffix}" for suffix in _SUFFIXES]
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
    except RepositoryNotFoundError:
        raise AxtuneError(f"The Hugging Face Hub has no data set {name}.") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        raise AxtuneError(
            f"The data set {name} is neither in the cache of this machine nor reachable on the "
            "Hugging Face Hub.",
            "Copy its files here and give their folder.",
        ) from None


def _split_files(folder: Path, split: str, name: str) -> list[Path]:
    """The data files of a split: those with its name in theirs, or all when no split is named."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    files = [file for file in files if file.name not in ("dataset_infos.json", "dataset_dict.json")]
    splits = ("train", "test", "validation", "valid", "dev", "eval")

    def named(words: Iterable[str]) -> list[Path]:
        return [f for f in files if any(w in str(f.relative_to(folder)).lower() for w in words)]

    chosen = named([split]) or ([] if named(splits) else files)
    if not chosen:
        raise AxtuneError(f"{name} has no split {split}.", "Set split: to one that it has.")
    return chosen
