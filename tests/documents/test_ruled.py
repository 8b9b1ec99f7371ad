from __future__ import annotations

from support.documents import text_glyphs

from axtune.documents.glyphs import Page, Rule
from axtune.documents.ruled import ruled_tables


def page(texts: list[tuple[float, float, str]], across: list[Rule], down: list[Rule]) -> Page:
    glyphs = [glyph for x, y, text in texts for glyph in text_glyphs(text, x, y)]
    return Page(glyphs, across, down, 595, 842, False)


def cells(found: Page) -> list[list[str | None]]:
    (table,) = ruled_tables(found)[0]
    return [
        [None if cell is None else "".join(g.text for g in cell) for cell in row]
        for row in table.cells
    ]


TEXTS: list[tuple[float, float, str]] = [
    (55, 705, "구분"),
    (155, 705, "값"),
    (55, 685, "결혼"),
    (155, 685, "본인"),
    (155, 665, "자녀"),
    (50, 600, "표 밖의 글"),
]


def test_glyphs_are_in_their_cells_and_merged_cells_in_each_row() -> None:
    across = [Rule(y, 50, 250) for y in (720, 700, 660)] + [Rule(680, 150, 250)]
    down = [Rule(x, 660, 720) for x in (50, 150, 250)]
    found = page(TEXTS, across, down)
    assert cells(found) == [["구분", "값"], ["결혼", "본인"], ["결혼", "자녀"]]
    assert "".join(glyph.text for glyph in ruled_tables(found)[1]) == "표밖의글"


def test_a_cell_across_columns_stands_once_and_open_sides_are_cells() -> None:
    across = [Rule(y, 50, 250) for y in (720, 700, 680, 660)]
    down = [Rule(50, 660, 720), Rule(150, 660, 700), Rule(250, 660, 720)]
    assert cells(page(TEXTS, across, down)) == [["구분값", None], ["결혼", "본인"], ["", "자녀"]]
    open_sides = [Rule(150, 660, 720)]
    assert cells(page(TEXTS, across, open_sides))[0] == ["구분", "값"]


def test_lines_in_pieces_are_one() -> None:
    across = [Rule(y, x, x + 100) for y in (720, 700, 680, 660) for x in (50, 151)]
    down = [Rule(x + 0.4, y - 20, y) for x in (50, 150, 250) for y in (720, 700, 680)]
    assert cells(page(TEXTS, across, down))[2] == ["", "자녀"]


def test_a_frame_around_text_and_lines_apart_are_no_tables() -> None:
    frame = [Rule(720, 50, 250), Rule(580, 50, 250)], [Rule(50, 580, 720), Rule(250, 580, 720)]
    assert ruled_tables(page(TEXTS, *frame))[0] == []
    assert ruled_tables(page(TEXTS, [Rule(720, 50, 250), Rule(700, 50, 250)], []))[0] == []
