"""Tables of text become rows; a broken row is a fault at its line."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import read


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
