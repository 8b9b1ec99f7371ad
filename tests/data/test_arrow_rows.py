"""Parquet and Arrow become rows; columns that lost what rows said are refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from support.files import LIMIT, ROW, read

from axtune.data.readers import read_rows


def write_parquet(path: Path, table: pa.Table) -> list[tuple[int, Any]]:
    pq.write_table(table, path)
    return read(path.parent, path.name, path.read_bytes())


def test_parquet_with_texts_and_lists_of_structs(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    assert write_parquet(path, pa.table({"messages": [ROW, ROW]})) == [
        (1, {"messages": ROW}),
        (2, {"messages": ROW}),
    ]
    turns = [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": None}]
    assert write_parquet(path, pa.Table.from_pylist([{"messages": turns}])) == [
        (1, {"messages": turns})
    ]
    written = {"name": "f", "arguments": '{"날짜": "2026-03-14"}'}
    called = [{"role": "assistant", "tool_calls": [{"type": "function", "function": written}]}]
    ((_, row),) = write_parquet(path, pa.Table.from_pylist([{"messages": called}]))
    assert row["messages"][0]["tool_calls"][0]["function"] == written
    assert write_parquet(path, pa.table({"messages": pa.array([], pa.string())})) == []


def test_parquet_with_typed_arguments_is_refused(tmp_path: Path) -> None:
    called = {"function": {"name": "f", "arguments": {"a": 1}}}
    table = pa.Table.from_pylist([{"messages": [{"role": "assistant", "tool_calls": [called]}]}])
    assert write_parquet(tmp_path / "a.parquet", table) == [(0, "!typed-columns")]
    tool = {"function": {"name": "f", "parameters": {"type": "object"}}}
    table = pa.Table.from_pylist([{"messages": ROW, "tools": [tool]}])
    assert write_parquet(tmp_path / "a.parquet", table) == [(0, "!typed-columns")]


def test_broken_parquet(tmp_path: Path) -> None:
    assert read(tmp_path, "a.parquet", b"") == [(0, "!not-parquet")]
    assert read(tmp_path, "a.parquet", b"PAR1 is not enough PAR1") == [(0, "!not-parquet")]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [f"질문 {n}" * 9 for n in range(500)]}), path, compression="none")
    data = bytearray(path.read_bytes())
    data[20:4000] = bytes(3980)
    rows = read(tmp_path, "a.parquet", bytes(data))
    assert rows[-1][1] == "!not-parquet"
    assert rows[-1][0] == len(rows)
    cp949 = pa.array(["글".encode("cp949")]).view(pa.string())
    assert write_parquet(path, pa.table({"a": cp949})) == [(1, "!not-parquet")]


def test_parquet_that_is_compressed_once_more_is_told_so(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["글"]}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    with zipfile.ZipFile(tmp_path / "zipped.parquet", "w") as archive:
        archive.writestr("a.parquet", data)
    for name, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        (tmp_path / f"{name}.parquet").write_bytes(pack(data))
    for name in ("zipped", "gz", "bz2", "xz"):
        (row,) = read_rows(tmp_path / f"{name}.parquet", max_line_bytes=LIMIT)
        assert row.fault is not None
        assert row.fault.message.endswith("it is compressed once more; unpack it.")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["output", "output"])
    assert write_parquet(tmp_path / "a.parquet", table) == [(0, "!duplicate-key")]


def test_arrow(tmp_path: Path) -> None:
    table = pa.table({"messages": [ROW] * 300})
    for new in (pa.ipc.new_stream, pa.ipc.new_file):
        with new(str(tmp_path / "made"), table.schema) as writer:
            writer.write_table(table)
        rows = read(tmp_path, "a.arrow", (tmp_path / "made").read_bytes())
        assert rows == [(n, {"messages": ROW}) for n in range(1, 301)]
    assert read(tmp_path, "a.arrow", b"junk") == [(0, "!not-arrow")]
