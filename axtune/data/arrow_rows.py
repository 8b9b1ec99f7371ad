"""Rows of Parquet and Arrow files, a batch at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from axtune.data.compression import packed_as, require_pyarrow
from axtune.data.rows import Row
from axtune.errors import Fault


def read_table(path: Path, suffix: str) -> Iterator[Row]:
    """The rows of a file; one fault in their place when its columns have lost what rows said.

    Args:
        path: The file.
        suffix: ``.parquet`` or ``.arrow``.
    """
    form = "Parquet" if suffix == ".parquet" else "Arrow"
    pa = require_pyarrow(f"{form} files")
    name, code = str(path), f"not-{form.lower()}"
    try:
        schema, batches = (_parquet if form == "Parquet" else _arrow)(path)
    except (pa.ArrowException, OSError, ValueError):
        packed = path.is_file() and (packed_as(path) or zipfile.is_zipfile(path))
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
