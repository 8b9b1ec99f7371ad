"""Rows that are documents, and files that are documents themselves."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from support.rows import chat, check_rows, codes

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.documents import DocumentRow, read_document_file
from axtune.data.parse import read_row
from axtune.data.readers import read_rows
from axtune.errors import AxtuneError

LIMIT = 1_000_000
TEXT = "휴가 규정\n\n제1조 목적\n"


def problems_of(row: Any, **options: Any) -> list[str]:
    return [f"{problem.severity} {problem.code}" for problem in read_row(row, **options)[1]]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"text": TEXT}, []),
        ({"text": TEXT, "meta": {"source": "a.pdf", "title": "제목"}}, []),
        ({"text": TEXT, "meta": None, "messages": None, "id": None, "tags": []}, []),
        ({"text": TEXT, "id": 3, "title": "제목"}, ["warning unread-key"]),
        ({"text": TEXT, "label": 1}, ["warning unread-key"]),
        ({"text": 5}, ["error bad-content"]),
        ({"text": ["가", "나"]}, ["error bad-content"]),
        ({"text": {"a": "나"}}, ["error bad-content"]),
        ({"body": TEXT}, ["error unknown-shape"]),
    ],
)
def test_what_a_row_with_text_is(row: Any, found: list[str]) -> None:
    assert problems_of(row) == found


def test_unread_keys_are_named_and_never_what_they_say() -> None:
    _, (problem,) = read_row({"text": TEXT, "title": "비밀", "url": "x"})
    assert "not read: title, url;" in problem.message
    assert "비밀" not in problem.message


def test_a_conversation_with_a_text_beside_it_is_a_conversation() -> None:
    row = chat("질문", "대답", text="질문")
    read, _ = read_row(row)
    assert not isinstance(read, DocumentRow)
    read, _ = read_row(row, row_format="document")  # as the user says
    assert read == DocumentRow("질문")
    assert problems_of(chat("질문", "대답"), row_format="document") == ["error unknown-shape"]


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b\ufeff", None])
def test_a_document_that_says_nothing_is_refused(tiny: AxTokenizer, text: Any) -> None:
    assert codes(check_rows(tiny, [{"text": text}])[0]) == ["empty-text"]


def test_control_tokens_are_refused_and_masks_are_text(tiny: AxTokenizer) -> None:
    for text in ("끝<|endoftext|>시작", "a<|im_end|>b", "<think>음</think>"):
        assert codes(check_rows(tiny, [{"text": text}])[0]) == ["control-token"]
        (kept,) = check_rows(tiny, [{"text": text}], control_tokens="keep")
        assert kept.samples[0].input_ids == [*tiny.encode(text), tiny.end_of_document_id]
    assert codes(check_rows(tiny, [{"text": "전화 <|telephone|>"}])[0]) == []


def test_texts_are_looked_at_like_those_of_conversations(tiny: AxTokenizer) -> None:
    nfd = {"text": unicodedata.normalize("NFD", "한글")}
    for text, code in (
        ("깨진 \ufffd 글", "replacement-character"),
        (nfd["text"], "nfd"),
        ("[INST] 질문 [/INST] 대답", "foreign-markup"),
    ):
        assert codes(check_rows(tiny, [{"text": text}])[0], "warning") == [code]
    (converted,) = check_rows(tiny, [nfd], nfc=True)
    assert converted.samples[0].input_ids == [*tiny.encode("한글"), tiny.end_of_document_id]


def test_documents_that_stand_twice_are_named(tiny: AxTokenizer) -> None:
    texts = ("규정 제1조", "규정, 제1조!", "규정 제1조")
    found = check_rows(tiny, [*({"text": text} for text in texts), chat("규정", "제1조")])
    assert [codes(one, "warning") for one in found] == [[], ["near-duplicate"], ["duplicate"], []]
    assert found[0].key == found[1].key == found[2].key != found[3].key


# --- files ------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[Any]:
    rows = list(read_rows(path, max_line_bytes=LIMIT))
    assert all((row.file, row.line) == (str(path), 1) for row in rows)
    return rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
def test_a_text_is_one_row(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "규정.txt"
    file.write_bytes(TEXT.replace("\n", "\r\n").encode(encoding))
    (row,) = rows_of(file)
    assert row.value["text"] == TEXT.strip()
    assert row.value["meta"]["source"] == "규정.txt"
    assert problems_of(row.value) == []


def test_code_is_kept_to_the_last_space(tmp_path: Path) -> None:
    code = "def f(x):\n\treturn x  \n\n\n\nclass A:\n    pass\n"
    file = tmp_path / "main.py"
    file.write_bytes(code.replace("\n", "\r\n").encode())
    assert rows_of(file)[0].value["text"] == code


def test_what_gives_no_text_is_a_fault_of_the_file(tmp_path: Path) -> None:
    for name, data, code in (
        ("a.txt", b"", "empty"),
        ("b.md", b"\xff\xfe\x00", "broken"),
        ("c.py", b"\x81\xff\xff", "broken"),
        ("d.pdf", b"no pdf", "unknown-format"),
        ("e.log", b"x" * (LIMIT + 1), "line-too-large"),
    ):
        (tmp_path / name).write_bytes(data)
        (row,) = rows_of(tmp_path / name)
        assert row.fault is not None
        assert row.fault.code == code
    (gone,) = read_rows(tmp_path / "gone.txt", max_line_bytes=LIMIT)
    assert gone.fault is not None
    assert gone.fault.code == "unreadable"


def test_a_format_whose_library_is_not_there_is_said_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7 ")
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(AxtuneError, match=r"(?s)pypdfium2.*not installed.*axtune\[documents\]"):
        list(read_document_file(tmp_path / "a.pdf", LIMIT))
    (tmp_path / "a.md").write_text(TEXT, encoding="utf-8")  # for which nothing is needed
    assert len(list(read_document_file(tmp_path / "a.md", LIMIT))) == 1
