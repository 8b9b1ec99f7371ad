from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.documents import text_glyphs

from axtune.documents.lines import lines_of_pieces, pieces_of


def test_spaces_are_those_of_the_file_and_gaps_that_are_wide_enough() -> None:
    glyphs = text_glyphs("가나 다라", 50, 700) + text_glyphs("마바", 105, 700)
    assert [piece.text for piece in pieces_of(glyphs)] == ["가나 다라 마바"]


def test_a_wide_gap_parts_pieces_and_a_line_holds_them_from_the_left() -> None:
    glyphs = text_glyphs("오른쪽", 300, 700) + text_glyphs("왼쪽", 50, 700.5)
    (line,) = lines_of_pieces(pieces_of(glyphs))
    assert [piece.text for piece in line.pieces] == ["왼쪽", "오른쪽"]
    assert line.text == "왼쪽 오른쪽"


def test_letters_that_are_written_apart_and_out_of_order_are_one_piece() -> None:
    glyphs = [
        glyph
        for place, letter in ((60, "나"), (70, "다"), (50, "가"))
        for glyph in text_glyphs(letter, place, 700)
    ]
    (line,) = lines_of_pieces(pieces_of(glyphs))
    assert line.text == "가나다"


def test_a_raised_mark_stays_in_its_line() -> None:
    glyphs = (
        text_glyphs("본문", 50, 700) + text_glyphs("1)", 70, 704, 6) + text_glyphs("이", 76, 700)
    )
    assert [line.text for line in lines_of_pieces(pieces_of(glyphs))] == ["본문1)이"]


@given(st.lists(st.text("가나다라 ", min_size=1, max_size=12), min_size=1, max_size=6))
def test_no_letter_is_lost(texts: list[str]) -> None:
    glyphs = [g for i, text in enumerate(texts) for g in text_glyphs(text, 50, 700 - 16 * i)]
    lines = lines_of_pieces(pieces_of(glyphs))
    assert [line.text for line in lines] == [" ".join(t.split()) for t in texts if t.strip()]
