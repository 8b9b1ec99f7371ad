from __future__ import annotations

import pypdfium2
import pytest
from support.documents import PAGE_WIDTH, PdfPage, pdf

from axtune.documents import glyphs
from axtune.documents.glyphs import Page, read_page


def page_of(page: PdfPage) -> Page:
    file = pypdfium2.PdfDocument(pdf([page]))
    found = read_page(file[0])
    file.close()
    return found


def text_of(page: Page) -> str:
    return "".join(f"{' ' if g.space else ''}{g.text}" for g in page.glyphs)


def test_glyphs_have_their_places_and_spaces() -> None:
    page = page_of(PdfPage().write(50, 700, "가나 다"))
    first, second, third = page.glyphs
    assert (first.text, round(first.x0), round(first.x1), round(first.y)) == ("가", 50, 60, 700)
    assert [glyph.space for glyph in (first, second, third)] == [False, False, True]
    assert round(third.x0) == 75


def test_bold_that_is_printed_twice_is_one_letter() -> None:
    page = PdfPage().write(50, 700, "가가나").write(50.3, 700, "가가나")
    assert text_of(page_of(page)) == "가가나"


def test_turned_text_is_no_part_of_the_page() -> None:
    page = PdfPage().write(50, 700, "본문이 길게 있다")
    page.turned.append((200, 300, 60, "대외비"))
    assert text_of(page_of(page)) == "본문이 길게 있다"


def test_what_lies_outside_of_the_page_is_left_out() -> None:
    page = PdfPage().write(50, 700, "안에").write(PAGE_WIDTH + 40, 700, "밖에")
    assert text_of(page_of(page)) == "안에"


def test_rules_are_horizontal_and_vertical() -> None:
    page = PdfPage().write(50, 700, "가")
    page.rules += [(40, 720, 200, 720), (40, 720, 40, 680), (40, 600, 200, 500)]
    found = page_of(page)
    (flat,), (upright,) = found.across, found.down  # with half a line's width at their ends
    assert (flat.at, flat.start, flat.end) == pytest.approx((720, 40, 200), abs=1)
    assert (upright.at, upright.start, upright.end) == pytest.approx((40, 680, 720), abs=1)


@pytest.mark.parametrize(("picture", "said"), [(False, False), (True, True)])
def test_pictures_are_noticed(picture: bool, said: bool) -> None:
    assert page_of(PdfPage(picture=picture)).pictures is said


def test_ligatures_are_their_letters_at_one_place() -> None:
    def marks(text: str, x: float) -> list[tuple[int, float, float, float, float, float, float]]:
        return [(ord(letter), x, 700.0, x, 698.0, x + 6, 708.0) for letter in text]

    placed = glyphs._placed([*marks("ffi", 50), *marks("x", 56)], (0, 0, 595, 842))
    assert [(g.text, g.x0) for g in placed] == [("ffi", 50), ("x", 56)]
    hyphen = glyphs._placed([(2, 50, 700, 50, 698, 54, 708)], (0, 0, 595, 842))
    assert [g.text for g in hyphen] == ["-"]
