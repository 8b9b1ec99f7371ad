from __future__ import annotations

import json
import pickle

import pytest

from axtune.documents.document import Content, Refused, as_document, missing_package


def test_a_row_has_the_text_and_where_it_is_from() -> None:
    document = as_document(Content(["휴가 규정", "제1조"], pages=2), "규정/휴가.pdf", "pdf", "ab")
    assert document.to_row() == {
        "text": "휴가 규정\n제1조",
        "meta": {
            "source": "규정/휴가.pdf",
            "title": "휴가 규정",
            "pages": 2,
            "format": "pdf",
            "sha256": "ab",
        },
    }


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("휴가 규정", "휴가 규정"),
        ("Microsoft Word - 휴가 규정.docx", "휴가 규정.docx"),
        ("PowerPoint 프레젠테이션", "첫 줄"),
        ("(anonymous)", "첫 줄"),
        ("제목 없음", "첫 줄"),
        ("문서1", "첫 줄"),
        ("", "첫 줄"),
    ],
)
def test_a_title_is_one_that_somebody_gave(written: str, title: str) -> None:
    assert as_document(Content(["첫 줄", "둘째 줄"], written), "a.pdf", "pdf", "").title == title


def test_text_is_composed_and_without_what_nobody_sees() -> None:
    hangul = "\u1112\u1161\u11ab\u1100\u1173\u11af  "
    lines = [hangul, "a\u200bb\xadc\x00d\xa0e", "", "", "", "끝\r\n"]
    assert as_document(Content(lines), "a", "txt", "").text == "한글\nabcd e\n\n끝"


def test_text_that_is_none_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        as_document(Content(["  ", ""]), "a", "txt", "")
    assert refused.value.code == "empty"
    with pytest.raises(Refused) as refused:
        as_document(Content(["가" * 98 + "\ufffd\ue001"]), "a", "txt", "")
    assert refused.value.code == "replacement-characters"


def test_a_few_replacement_characters_are_counted() -> None:
    document = as_document(Content(["가" * 200 + "\ufffd"]), "a", "txt", "")
    assert document.lost == {"replacement-characters": 1}
    assert json.loads(json.dumps(document.to_row()))["text"].endswith("\ufffd")


def test_refusals_travel_between_processes() -> None:
    refused = pickle.loads(pickle.dumps(Refused("broken", "It is damaged.")))
    assert (refused.code, refused.message) == ("broken", "It is damaged.")


def test_an_absent_library_is_named_with_the_way_to_it() -> None:
    error = missing_package(ImportError("", name="pypdfium2"))
    assert "pypdfium2" in error.found
    assert "axtune[documents]" in error.remedy


def test_a_heading_of_markdown_is_a_title_without_its_marks() -> None:
    for lines, title in ((["## 휴가 규정", "글"], "휴가 규정"), (["#", "글"], "#")):
        assert as_document(Content(lines), "a.md", "md", "").title == title
    assert as_document(Content(["#1 규정"]), "a.txt", "txt", "").title == "#1 규정"
