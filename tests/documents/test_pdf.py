from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.documents import PdfPage, letters, pdf, wrapped

from axtune.documents.document import Refused
from axtune.documents.pdf import read_pdf

TEXT = (
    "이 규정은 가상통신에 근무하는 모든 임직원의 휴가에 관한 사항을 정하여 휴식과 업무의 균형을 "
    "이루고 건전한 조직 문화를 만드는 것을 목적으로 하며, 각 휴가의 일수와 신청 절차는 "
    "아래에서 정하는 바에 따른다."
)


def framed(number: int) -> PdfPage:
    page = PdfPage().write(50, 812, "가상통신 사규집", 8).write(50, 25, "대외비", 8)
    return page.write(520, 25, f"{number} 쪽", 8)


def test_a_paragraph_and_a_table_go_on_over_pages_without_heads_feet_and_notes() -> None:
    first, second = framed(1), framed(2)
    first.write(50, 760, "휴가 규정", 16)
    lines = wrapped(TEXT, 30)
    for page, part, top in ((first, lines[:2], 720), (second, lines[2:], 760)):
        for index, line in enumerate(part):
            page.write(50, top - 16 * index, line)
    first.write(50, 60, "1) 각주의 글이다.", 8)
    second.table(50, 700, [100, 100], [("구분", "일수"), ("결혼", "5일"), ("사망", "3일")])
    third = framed(3)
    third.table(50, 760, [100, 100], [("구분", "일수"), ("출산", "20일")])
    content = read_pdf(pdf([first, second, third], "휴가 규정"))
    assert content.title == "휴가 규정"
    assert content.pages == 3
    assert content.lines == [
        "휴가 규정",
        TEXT,
        "1) 각주의 글이다.",
        "구분 | 일수",
        "결혼 | 5일",
        "사망 | 3일",
        "출산 | 20일",
    ]


@pytest.mark.parametrize("pages", [2, 3])
def test_a_title_stays_before_its_table_however_many_pages_that_has(pages: int) -> None:
    parts = [PdfPage() for _ in range(pages)]
    for page, part in enumerate(parts):
        part.table(50, 700, [100, 100], [("구분", "일수"), (f"휴가 {page}", "5일")])
    parts[0].write(50, 760, "휴가 일수")
    parts[-1].write(50, 500, "이상 휴가 일수이다.")
    assert read_pdf(pdf(parts)).lines == [
        "휴가 일수",
        "구분 | 일수",
        *(f"휴가 {page} | 5일" for page in range(pages)),
        "이상 휴가 일수이다.",
    ]


def test_pages_that_are_pictures_are_refused_or_counted() -> None:
    with pytest.raises(Refused) as refused:
        read_pdf(pdf([PdfPage(picture=True), PdfPage(picture=True).write(500, 30, "2")]))
    assert refused.value.code == "scanned-pdf"
    content = read_pdf(pdf([PdfPage().write(50, 700, "글이 있는 쪽"), PdfPage(picture=True)]))
    assert (content.lines, content.lost) == (["글이 있는 쪽"], {"scanned-pages": 1})


def test_a_landscape_page_that_is_turned_is_read_upright() -> None:
    assert read_pdf(pdf([PdfPage(rotate=90).write(50, 700, "누운 쪽의 글")])).lines == [
        "누운 쪽의 글"
    ]


def test_encrypted_damaged_and_empty_files_are_refused_by_name() -> None:
    locked = pdf([PdfPage()]).replace(
        b"/Info 7 0 R",
        b"/Info 7 0 R /ID [<00><00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 "
        b"/O <" + b"41" * 32 + b"> /U <" + b"42" * 32 + b"> >>",
    )
    for data, code in (
        (locked, "encrypted"),
        (b"%PDF-1.7\nnothing", "broken"),
        (pdf([PdfPage()]), "empty"),
    ):
        with pytest.raises(Refused) as refused:
            read_pdf(data)
        assert refused.value.code == code


@pytest.mark.parametrize("name", ["leave.pdf", "router.pdf"])
def test_samples_are_whole_in_order_and_without_boilerplate(shared: Path, name: str) -> None:
    folder = shared / "domain" / "documents"
    if not folder.is_dir():
        pytest.skip("there are no sample documents")
    expected = (folder / "expected" / f"{name}.txt").read_text("utf-8").splitlines()
    absent = json.loads((folder / "expected" / "absent.json").read_text("utf-8"))[name]
    lines = read_pdf((folder / name).read_bytes()).lines
    text = letters("".join(lines))
    place = 0
    for block in expected:
        assert letters(block) in text[place:], block
        place = text.index(letters(block), place) + len(letters(block))
    assert not [words for words in absent if words in "\n".join(lines)]
    rows = [row for row in expected if " | " in row]
    assert sum(row in lines for row in rows) >= 0.75 * len(rows)
    got, meant = " ".join(lines).split(), " ".join(expected).split()
    shared_words = sum(min(got.count(word), meant.count(word)) for word in set(meant))
    assert shared_words >= 0.95 * len(meant)
