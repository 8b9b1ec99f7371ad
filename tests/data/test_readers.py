"""Files become rows with their line; what cannot be read is a fault that says what it is."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import json_values

from axtune.config.recipe import Source
from axtune.data import readers
from axtune.data.readers import read_rows
from axtune.data.sources import files_of
from axtune.errors import AxtuneError

ROW = '{"messages": [{"role": "user", "content": "안녕"}]}'
LIMIT = 16_000_000


def read(folder: Path, name: str, data: bytes | str, limit: int = LIMIT) -> list[tuple[int, Any]]:
    """Each row's line with its value, or with the code of its fault after an exclamation mark."""
    path = folder / name
    path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
    out = []
    for row in read_rows(path, max_line_bytes=limit):
        assert row.file == str(path)
        if row.fault:
            assert (row.fault.file, row.fault.severity) == (str(path), "error")
            assert "안녕" not in row.fault.message
        out.append((row.line, f"!{row.fault.code}" if row.fault else row.value))
    return out


GOOD = json.loads(ROW)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("", []),
        ("\n \n\r\n", []),
        (ROW, [(1, GOOD)]),
        (ROW + "\r\n" + ROW + "\r\n", [(1, GOOD), (2, GOOD)]),
        ("\n" + ROW + "\n\n" + ROW, [(2, GOOD), (4, GOOD)]),
        ("\ufeff" + ROW, [(1, GOOD)]),
        (ROW + "\n\ufeff" + ROW + "\n" + ROW, [(1, GOOD), (2, "!bom"), (3, GOOD)]),
        (ROW + "\noops\n" + ROW, [(1, GOOD), (2, "!not-json"), (3, GOOD)]),
        (ROW + "\n" + ROW + ROW, [(1, GOOD), (2, "!not-json")]),
        ('{"a": NaN}\n{"a": -Infinity}\n' + ROW, [(1, "!not-json"), (2, "!not-json"), (3, GOOD)]),
        ('{"a": 1' + "0" * 5000 + "}\n" + ROW, [(1, "!not-json"), (2, GOOD)]),
        (ROW + "\n" + "[" * 100_000 + "\n" + ROW, [(1, GOOD), (2, "!not-json"), (3, GOOD)]),
        ('{"a": "\\ud83d"}\n{"a": "\\ud83d\\ude00"}', [(1, "!lone-surrogate"), (2, {"a": "😀"})]),
        ('{"a": "\ud83d"}\n' + ROW, [(1, "!lone-surrogate"), (2, GOOD)]),
        (
            ROW.encode() + b"\n" + ROW.encode("cp949") + b"\n" + ROW.encode(),
            [(1, GOOD), (2, "!cp949"), (3, GOOD)],
        ),
        (b'{"a": "\xff\xfe\xff"}\n' + ROW.encode(), [(1, "!not-utf8"), (2, GOOD)]),
        (ROW.encode("utf-16"), [(0, "!not-utf8")]),
        (ROW.encode("utf-16-le"), [(1, "!not-utf8")]),
        ('"\u2028\x85"\n' + ROW, [(1, "\u2028\x85"), (2, GOOD)]),
    ],
)
def test_jsonl(tmp_path: Path, data: bytes | str, wanted: list[tuple[int, Any]]) -> None:
    assert read(tmp_path, "a.jsonl", data) == wanted
    assert read(tmp_path, "a.NDJSON", data) == wanted


def test_a_line_too_large_is_not_kept(tmp_path: Path) -> None:
    long = json.dumps({"a": "가" * 100}, ensure_ascii=False)
    lines = f"{ROW}\n{long}\n{ROW}\n{long}"
    wanted = [(1, GOOD), (2, "!line-too-large"), (3, GOOD), (4, "!line-too-large")]
    assert read(tmp_path, "a.jsonl", lines, 200) == wanted
    exact = len(long.encode())
    assert [value for _, value in read(tmp_path, "a.jsonl", lines, exact)] == [
        GOOD,
        json.loads(long),
        GOOD,
        json.loads(long),
    ]
    assert read(tmp_path, "a.json", f"[{ROW},\n{long},\n{ROW}]", 200) == wanted[:3]
    assert read(tmp_path, "a.csv", "a\nx\n" + "가" * 300 + "\ny\n", 200) == [
        (2, {"a": "x"}),
        (3, "!line-too-large"),
        (4, {"a": "y"}),
    ]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("[]", []),
        ("", []),
        (f"[{ROW}]", [(1, GOOD)]),
        (f"\ufeff \n[\n{ROW},\n\n{ROW}\n]\n", [(3, GOOD), (5, GOOD)]),
        (" " * 5000 + f"[{ROW}]", [(1, GOOD)]),
        (f"{ROW}\n{ROW}", [(1, GOOD), (2, GOOD)]),
        ('{\n "messages": []\n}', [(1, "!not-json")]),
        (f"[{ROW},]", [(1, GOOD), (1, "!not-json")]),
        (f"[{ROW}] [{ROW}]", [(1, GOOD), (1, "!not-json")]),
        (f"[{ROW}\n{ROW}]", [(1, GOOD), (2, "!not-json")]),
        (f"[{ROW}", [(1, GOOD), (1, "!not-json")]),
        (f"[{ROW},", [(1, GOOD), (1, "!not-json")]),
        (f"[\n{ROW},\n{ROW[:20]}", [(2, GOOD), (3, "!not-json")]),
        (f"[\n{ROW},\noops,\n{ROW}]", [(2, GOOD), (3, "!not-json")]),
        (f'[\n{ROW},\n{{"a":\n\noops}},\n{ROW}]', [(2, GOOD), (5, "!not-json")]),
        (f'[\n{ROW},\n{{"a": NaN}},\n{ROW}]', [(2, GOOD), (3, "!not-json"), (4, GOOD)]),
        (f'[{{"a": "\\ud83d"}},\n{ROW}]', [(1, "!lone-surrogate"), (2, GOOD)]),
        (f"[{ROW},\n{'[' * 100_000}", [(1, GOOD), (2, "!not-json")]),
        (f"[{ROW},\n{'9' * 5000}]", [(1, GOOD), (2, "!not-json")]),
        (f"[1,\n{ROW}]", [(1, 1), (2, GOOD)]),
        (f"[{ROW},\n".encode() + ROW.encode("cp949") + b"]", [(1, GOOD), (2, "!cp949")]),
        (f"[{ROW},\n".encode() + b'"\xed\xa0\xbd"]', [(1, GOOD), (2, "!lone-surrogate")]),
        (f"[{ROW}]".encode("utf-16"), [(0, "!not-utf8")]),
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_json_list(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes | str,
    wanted: list[tuple[int, Any]],
    chunk: int,
) -> None:
    if len(data) > 5000:
        chunk *= 1000  # as large in tiny pieces says nothing more
    monkeypatch.setattr(readers, "_CHUNK", chunk)
    assert read(tmp_path, "a.json", data) == wanted


@given(
    st.lists(json_values, max_size=6),
    st.integers(1, 40),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_json_list_reads_what_json_reads(
    tmp_path_factory: pytest.TempPathFactory,
    items: list[Any],
    chunk: int,
    indent: int | None,
    ascii_only: bool,
) -> None:
    text = json.dumps(items, ensure_ascii=ascii_only, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_CHUNK", chunk)
        rows = read(tmp_path_factory.getbasetemp(), "list.json", text)
    assert json.dumps([value for _, value in rows]) == json.dumps(items)
    lines = text.split("\n")
    for line, value in rows:
        begin = json.dumps(value, ensure_ascii=ascii_only, indent=indent).split("\n")[0]
        assert begin in lines[line - 1]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("", []),
        ("a,b\n", []),
        ("a,b\n1,2\r\n\n3,\n", [(2, {"a": "1", "b": "2"}), (4, {"a": "3", "b": ""})]),
        ("\ufeffa\n글\n", [(2, {"a": "글"})]),
        ("a\r1\r2\r", [(2, {"a": "1"}), (3, {"a": "2"})]),
        (
            'a,b\n"1\n\n""2""",x\n3,4\n',
            [(2, {"a": '1\n\n"2"', "b": "x"}), (5, {"a": "3", "b": "4"})],
        ),
        (
            "a,b\n1\n1,2\n1,2,3\n",
            [(2, "!bad-csv-row"), (3, {"a": "1", "b": "2"}), (4, "!bad-csv-row")],
        ),
        ('a,b\n1,2\n"3,4\n5,6\n', [(2, {"a": "1", "b": "2"}), (3, "!bad-csv-row")]),
        ('a,b\n"1"x,2\n3,4\n', [(2, "!bad-csv-row")]),
        ("a,a\n1,2\n", [(1, "!bad-csv-row")]),
        (
            b"a\nx\n" + "글\n".encode("cp949") + b"y\n",
            [(2, {"a": "x"}), (3, "!cp949"), (4, {"a": "y"})],
        ),
        ("제목\n글\n".encode("cp949"), [(1, "!cp949")]),
        ("a\nx\n".encode("utf-16"), [(0, "!not-utf8")]),
    ],
)
def test_csv(tmp_path: Path, data: bytes | str, wanted: list[tuple[int, Any]]) -> None:
    assert read(tmp_path, "a.csv", data) == wanted


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), max_size=4)
)
def test_csv_returns_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerows([["a", "b"], *([cell, "x"] for cell in cells)])
    rows = read(tmp_path_factory.getbasetemp(), "written.csv", stream.getvalue())
    assert [value for _, value in rows] == [{"a": cell, "b": "x"} for cell in cells]


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


def test_compressed_texts(tmp_path: Path) -> None:
    data = (ROW + "\n" + ROW).encode()
    packed = {
        ".gz": gzip.compress(data),
        ".zst": pa.compress(data, codec="zstd", asbytes=True),
        ".bz2": bz2.compress(data),
        ".xz": lzma.compress(data),
    }
    for suffix, archive in packed.items():
        assert read(tmp_path, f"a.jsonl{suffix}", archive) == [(1, GOOD), (2, GOOD)]
        assert read(tmp_path, "a.jsonl", archive) == [(1, GOOD), (2, GOOD)]
        assert read(tmp_path, f"a.jsonl{suffix}", archive[:-9])[-1] == (0, "!unreadable")
        assert read(tmp_path, f"a.jsonl{suffix}", b"junk" + archive) == [(0, "!unreadable")]
    assert read(tmp_path, "a.csv.gz", gzip.compress(b"a,b\n1,2\n")) == [(2, {"a": "1", "b": "2"})]


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


def names(path: str) -> list[str]:
    return [file.name for file in files_of(Source(path=path))]


def test_files_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.jsonl", "a.csv", "deep/c.parquet", "deep/er/d.JSON", "notes.txt", "[x].jsonl"):
        (tmp_path / name).touch()
    assert names(str(tmp_path)) == ["[x].jsonl", "a.csv", "b.jsonl", "c.parquet", "d.JSON"]
    assert names(str(tmp_path / "*.jsonl")) == ["[x].jsonl", "b.jsonl"]
    assert names(str(tmp_path / "**" / "*")) == names(str(tmp_path))
    assert names(str(tmp_path / "[x].jsonl")) == ["[x].jsonl"]  # a file before a pattern
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names("~/b.jsonl") == names("~/b*.jsonl") == ["b.jsonl"]


@pytest.mark.parametrize(
    "path", ["none.jsonl", "*.none", "", "~nobody-here/a.jsonl", "a" * 5000 + ".jsonl", "a\0.jsonl"]
)
def test_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AxtuneError):
        names(path)


def test_a_file_of_another_form_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(AxtuneError, match=r"of no format that axtune reads\.\nIt reads \.jsonl"):
        names(str(tmp_path / "a.txt"))


def test_hub_data_set_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("hf:owner/name", "hf:not a name"):
        with pytest.raises(AxtuneError, match="neither in the cache"):
            names(name)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_key_that_stands_twice_is_said_where_something_is_lost(
    tmp_path: Path, suffix: str
) -> None:
    lines = [
        '{"output": "여섯 시", "output": "모름"}',
        '{"output": "여섯 시", "output": "여섯 시"}',
        '{"messages": [{"role": "user", "role": "assistant"}]}',
        '{"output": "여섯 시"}',
    ]
    path = tmp_path / f"a{suffix}"
    text = "\n".join(lines) if suffix == ".jsonl" else "[" + ",\n".join(lines) + "]"
    path.write_text(text, encoding="utf-8")
    rows = list(read_rows(path, max_line_bytes=LIMIT))
    assert [row.value.get("output") for row in rows] == ["모름", "여섯 시", None, "여섯 시"]
    assert all(row.fault is None for row in rows)
    warned = [row.warning for row in rows if row.warning]
    assert [(w.line, w.code, w.severity) for w in warned] == [
        (1, "duplicate-key", "warning"),
        (3, "duplicate-key", "warning"),
    ]
    assert "output" not in str(warned[0])


def test_a_repeated_key_of_a_broken_row_is_not_said_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"b": {"a": 1, "a": 2}, oops\n{"a": 1}\n')
    assert [row.warning for row in read_rows(path, max_line_bytes=LIMIT)] == [None, None]


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize(
    ("line", "column", "said"),
    [
        ('{"messages": ㅇㅇ}', 14, "Expecting value"),
        ('\t{"messages": ㅇㅇ}', 15, "Expecting value"),
        ('{"내용": "가나다 😀", x}', 17, "Expecting property name"),
        ('\ufeff{"messages": ㅇㅇ}', 14, "Expecting value"),  # an editor shows no byte order mark
        ('{"messages": [1, 2', 19, "Expecting ',' delimiter"),
        ("  [1,", 6, "Expecting value"),
        ('{"가": "나', 7, "Unterminated string starting (column"),
        ('{"가": "나\t다"}', 9, "Invalid control character (column"),
        ('{"a": 1}\r\r{"b": 2}', 11, "Extra data"),
    ],
)
def test_the_column_is_that_of_the_character(
    tmp_path: Path, line: str, column: int, said: str, end: str
) -> None:
    file = tmp_path / "rows.jsonl"
    first = "" if line.startswith("\ufeff") else ROW + "\n"
    file.write_bytes((first + line + end).encode())
    row = list(read_rows(file, max_line_bytes=1_000))[-1]
    assert row.fault is not None
    assert row.fault.message.endswith(f"(column {column}).")
    assert said in row.fault.message
