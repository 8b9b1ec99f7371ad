from __future__ import annotations

from support.documents import text_glyphs

from axtune.documents.glyphs import Page
from axtune.documents.lines import Piece, pieces_of
from axtune.documents.running import body_size, without_running

Written = list[tuple[float, float, float, str]]
BODY: Written = [(50, 700 - 16 * i, 10, f"본문 {'가나다라마바사'[i] * 12}") for i in range(7)]


def kept(pages: list[Written]) -> list[list[str]]:
    pieces: list[list[Piece]] = [
        pieces_of([g for x, y, size, text in page for g in text_glyphs(text, x, y, size)])
        for page in pages
    ]
    empty = Page([], [], [], 595, 842, False)
    left = without_running([empty] * len(pages), pieces)
    return [[p.text for p in page if not p.text.startswith("본문")] for page in left]


def test_what_stands_on_pages_at_one_place_goes_with_its_numbers() -> None:
    pages = [
        [
            (50, 810, 8, "사규집 제1판"),
            *BODY[i:],
            (50, 30, 8, "대외비"),
            (500, 30, 8, f"{i + 1} 쪽"),
        ]
        for i in range(3)
    ]
    assert kept(pages) == [[], [], []]


def test_a_title_and_text_that_is_there_once_stay() -> None:
    pages = [
        [(50, 780, 18, "휴가 신청서"), *BODY, (50, 560, 10, f"{name}의 신청")] for name in "가나다"
    ]
    assert kept(pages) == [["휴가 신청서", f"{name}의 신청"] for name in "가나다"]


def test_the_first_lines_of_pages_that_are_alike_stay() -> None:
    lines: Written = [(50, 780 - 16 * i, 10, f"같은 글 {'가나'[i] * 9}") for i in range(2)]
    body: Written = [(x, y + 48, size, text) for x, y, size, text in BODY]
    assert kept([lines + body] * 2) == [[text for *_, text in lines]] * 2


def test_the_number_of_a_single_page_goes_with_what_is_small_beside_it() -> None:
    page = [(50, 815, 7, "기술문서 TD-0512"), *BODY, (50, 25, 7, "원본"), (500, 25, 7, "- 1 -")]
    assert kept([page]) == [[]]
    unnumbered = [*BODY, (50, 25, 7, "문의: 총무팀")]
    assert kept([unnumbered]) == [["문의: 총무팀"]]


def test_the_size_of_the_text_is_that_of_most_letters() -> None:
    glyphs = text_glyphs("제목", 50, 700, 18) + text_glyphs("긴 본문의 글", 50, 600, 10)
    assert body_size([pieces_of(glyphs)]) == 10
