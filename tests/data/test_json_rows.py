"""Lines and lists of JSON become rows; broken ones are faults at their line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import GOOD, LIMIT, ROW, read
from support.strategies import json_values

from axtune.data import json_rows
from axtune.data.readers import read_rows


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
    monkeypatch.setattr(json_rows, "CHUNK", chunk)
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
        patch.setattr(json_rows, "CHUNK", chunk)
        rows = read(tmp_path_factory.getbasetemp(), "list.json", text)
    assert json.dumps([value for _, value in rows]) == json.dumps(items)
    lines = text.split("\n")
    for line, value in rows:
        begin = json.dumps(value, ensure_ascii=ascii_only, indent=indent).split("\n")[0]
        assert begin in lines[line - 1]


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
