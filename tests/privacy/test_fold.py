"""Folding makes one of what is written in many ways, and keeps every place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axtune.privacy.fold import fold


def test_what_people_write_for_digits_dashes_and_spaces() -> None:
    assert fold("０１０－１２３４‑５６７８").text == "010-1234-5678"
    assert fold("（02）\u3000123·4567").text == "(02) 123.4567"
    assert fold("AB").lower == "ab"


def test_numbers_that_are_read_aloud() -> None:
    assert fold("공일공 일칠육일 칠사공구이에요").text == "010 1761 7409이에요"
    assert fold("공일공 1234 5678").text == "010 1234 5678"
    assert fold("이사 오면 구이 삼일치").text == "이사 오면 구이 삼일치"


def test_the_escapes_of_json_at_any_depth() -> None:
    assert fold(r"a\nb\\\"c").text == 'a \nb   "c'
    folded = fold(r"x\u0031\\u0032y")
    assert folded.text == "x12y"
    assert folded.span(1, 3) == (1, 14)


def test_what_urls_escape() -> None:
    folded = fold("%2B82%2010%2d1 5%2A %2D")
    assert folded.text == "+82 10-1 5%2A %2D"
    assert folded.span(0, 3) == (0, 5)


def test_zero_width_characters_separate_nothing() -> None:
    folded = fold("010\u200b12")
    assert folded.text == "01012"
    assert folded.span(2, 4) == (2, 5)


def test_a_mask_names_nothing() -> None:
    assert "telephone" not in fold("<|telephone|> 1588").text


@given(st.text(alphabet=st.characters(), max_size=60))
def test_every_place_stays(text: str) -> None:
    folded = fold(text)
    assert len(folded.lower) == len(folded.text)
    if folded.places is None:
        assert len(folded.text) == len(text)
    else:
        spans = [folded.span(at, at + 1) for at in range(len(folded.text))]
        assert spans == sorted(spans)
        assert all(0 <= begin < end <= len(text) for begin, end in spans)
