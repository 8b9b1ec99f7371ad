from __future__ import annotations

from support.documents import text_glyphs, wrapped

from axtune.documents.layout import AlignedTable, Paragraph, goes_on, items_of
from axtune.documents.lines import Piece, pieces_of

LEFT = (
    "왼쪽 단의 글은 이렇게 이어지며 여러 줄에 걸쳐 단의 폭을 채우고 나서 다음 단으로 넘어가게 된다 "
)
RIGHT = (
    "오른쪽 단의 글도 마찬가지로 여러 줄에 걸쳐 있고 왼쪽의 글이 모두 끝난 다음에 읽어야 맞는다 "
)


def column(text: str, x: float, y: float, letters: int = 22, size: float = 10) -> list[Piece]:
    lines = wrapped(text, letters)
    return pieces_of(
        [g for i, line in enumerate(lines) for g in text_glyphs(line, x, y - 16 * i, size)]
    )


def texts(pieces: list[Piece]) -> list[str]:
    return [
        " ".join(line.text for line in item.lines)
        for item in items_of(pieces, [])
        if isinstance(item, Paragraph)
    ]


def test_columns_are_read_one_after_the_other_below_what_goes_across() -> None:
    title = pieces_of(text_glyphs("두 단 위에 걸쳐 있는 제목이 여기에 있다", 100, 740, 18))
    pieces = title + column(RIGHT * 2, 300, 700) + column(LEFT * 2, 50, 695)
    assert texts(pieces) == [
        "두 단 위에 걸쳐 있는 제목이 여기에 있다",
        (LEFT * 2).strip(),
        (RIGHT * 2).strip(),
    ]


def test_three_columns() -> None:
    pieces = [
        p for i in (2, 0, 1) for p in column(f"{i}번째 단. " + LEFT * 3, 40 + 180 * i, 700, 16)
    ]
    starts = [text[:4] for text in texts(pieces) if "번째 단" in text]
    assert starts == ["0번째 ", "1번째 ", "2번째 "]


def test_rows_that_are_aligned_are_a_table_and_no_columns() -> None:
    rows = [("이름", "요금", "설명"), ("컬러링", "990", "연결음"), ("차단", "0", "알림")]
    glyphs = [
        g
        for i, row in enumerate(rows)
        for j, cell in enumerate(row)
        for g in text_glyphs(cell, 50 + 120 * j, 700 - 16 * i)
    ]
    (table,) = items_of(pieces_of(glyphs), [])
    assert isinstance(table, AlignedTable)
    assert [[p.text for p in line.pieces] for line in table.rows] == [list(row) for row in rows]


def test_paragraphs_begin_at_gaps_bullets_numbers_indents_and_after_short_lines() -> None:
    written = [
        (50, 700, "첫 문단의 첫 줄은 단의 오른쪽 끝까지 채워져 있고"),
        (50, 684, "둘째 줄은 짧다."),
        (50, 668, "• 목록의 첫 줄은 단의 오른쪽 끝까지 채워져 있는"),
        (62, 652, "둘째 줄이다."),
        (50, 636, "제2조 다음 조는 단의 오른쪽 끝까지 채워져 있으며"),
        (50, 620, "이어진다."),
        (50, 580, "떨어진 문단"),
    ]
    glyphs = [g for x, y, text in written for g in text_glyphs(text, x, y)]
    assert [text.split()[0] for text in texts(pieces_of(glyphs))] == ["첫", "•", "제2조", "떨어진"]


def test_a_paragraph_goes_on_in_the_next_column_unless_it_ended() -> None:
    def paragraph(*lines: str) -> Paragraph:
        glyphs = [g for i, line in enumerate(lines) for g in text_glyphs(line, 50, 700 - 16 * i)]
        (item,) = items_of(pieces_of(glyphs), [])
        assert isinstance(item, Paragraph)
        return item

    long = "단의 오른쪽 끝까지 채워져 있는 줄이 있고"
    assert goes_on(paragraph(long, long), paragraph("이어진다."))
    assert not goes_on(paragraph(long, "끝났다."), paragraph("다음"))
    assert not goes_on(paragraph(long, long), paragraph("• 목록"))


def test_each_line_of_a_table_of_contents_is_its_own() -> None:
    lines = [f"제{i}장 총칙 {'.' * 60} {i}" for i in (1, 2)]
    glyphs = [g for i, line in enumerate(lines) for g in text_glyphs(line, 50, 700 - 16 * i)]
    assert [text[:3] for text in texts(pieces_of(glyphs))] == ["제1장", "제2장"]
