from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axtune.documents.blocks import Block, Table, lines_of, row_line


def test_a_row_is_a_line_and_a_table_in_a_cell_follows_it() -> None:
    inner = Table([[["안"], ["쪽"]]])
    table = Table([[["구분"], ["내용"]], [["1"], ["여러", "줄\n셀", inner]]])
    assert list(lines_of(["앞", table, "뒤"])) == [
        "앞",
        "구분 | 내용",
        "1 | 여러 줄 셀",
        "안 | 쪽",
        "뒤",
    ]


def test_a_box_of_one_column_is_its_paragraphs() -> None:
    inner = Table([[["가"], ["나"]]])
    assert list(lines_of([Table([[["제목", "문단", inner]]])])) == ["제목", "문단", "가 | 나"]


def test_a_cell_merged_downwards_is_said_in_each_row_and_its_table_once() -> None:
    merged: list[Block] = ["결혼", Table([[["가"], ["나"]]])]
    table = Table([[merged, ["본인"]], [merged, ["자녀"]]])
    assert list(lines_of([table])) == ["결혼 | 본인", "가 | 나", "결혼 | 자녀"]


@given(st.lists(st.text(), max_size=5))
def test_a_row_is_one_line_with_all_that_its_cells_say(cells: list[str]) -> None:
    line = row_line(cells)
    assert len(line.splitlines()) <= 1
    said, meant = ("".join(text.split()).replace("|", "") for text in (line, "".join(cells)))
    assert said == meant


def test_empty_cells_keep_their_place_but_at_the_end() -> None:
    assert row_line(["", "가", "", "나", " "]) == " | 가 |  | 나"
    assert row_line(["", " "]) == ""
