from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.rows import chat, write_jsonl

from axtune.data.held_out_items import Item, held_out_paths, read_items
from axtune.data.row_text import Said
from axtune.errors import AxtuneError, DataError


def items(path: Path) -> list[Item]:
    return list(read_items(path, max_line_bytes=10**6))


def texts(tmp_path: Path, row: Any) -> list[tuple[str, str]]:
    (item,) = items(write_jsonl(tmp_path / "rows.jsonl", [row]))
    return [(part, text) for part, text in item.said]


def test_a_training_row_says_what_is_asked_and_what_is_answered(tmp_path: Path) -> None:
    assert texts(tmp_path, chat("질문", "답")) == [("question", "질문"), ("answer", "답")]


def test_bfcl_asks_its_questions_and_declares_tools(tmp_path: Path) -> None:
    question = [[{"role": "system", "content": "규칙"}, {"role": "user", "content": "서울 날씨"}]]
    tools = [{"name": "f", "description": "날씨를 알려 준다", "parameters": {"type": "dict"}}]
    row = {"id": "live_1", "question": question, "function": tools}
    assert texts(tmp_path, row) == [("question", "서울 날씨")]
    answer = {"id": "live_1", "ground_truth": [{"f": {"city": ["서울", ""], "days": [3]}}]}
    assert texts(tmp_path, answer) == [("answer", "서울"), ("answer", "")]


def test_functionchat_asks_several_questions_in_a_row(tmp_path: Path) -> None:
    called = json.dumps({"name": "f", "arguments": json.dumps({"도시": "부산"})})
    row = {
        "function_name": "f",
        "query": [{"serial_num": 1, "content": "가 볼까"}, {"serial_num": 2, "content": "나 볼까"}],
        "ground_truth": [{"serial_num": 1, "content": called}],
        "tools": [{"type": "exact", "content": [{"type": "function", "function": {"name": "f"}}]}],
    }
    (item,) = items(write_jsonl(tmp_path / "rows.jsonl", [row]))
    assert item.separate
    asked = [Said("question", "가 볼까"), Said("question", "나 볼까")]
    assert item.said == [*asked, Said("answer", "부산")]
    turns = [{"role": "user", "content": "가"}, {"role": "assistant", "content": "나"}]
    dialog = {"dialog_num": 1, "turns": [{"query": turns}, {"query": turns}]}
    assert texts(tmp_path, dialog) == [("question", "가"), ("answer", "나")]


def test_what_is_said_about_an_item_is_none_of_its_texts(tmp_path: Path) -> None:
    row = {"text": "규정 본문", "meta": {"title": "2024년 인사 규정집"}, "category": "인사"}
    assert texts(tmp_path, row) == [("question", "규정 본문")]


def test_of_a_document_each_line_is_an_item(tmp_path: Path) -> None:
    for name, encoding in (("a.txt", "utf-8"), ("b.md", "cp949")):
        (tmp_path / name).write_text("첫째 줄\n\n셋째 줄\n", encoding=encoding)
        lines = {item.line: item.said for item in items(tmp_path / name) if item.said[0].text}
        assert lines == {1: [Said("question", "첫째 줄")], 3: [Said("question", "셋째 줄")]}


def test_rows_of_any_other_kind_have_no_text_or_some(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [3, None, "글", [], {"a": {"b": ["가", 1]}}])
    assert [[text for _, text in item.said] for item in items(path)] == [[], [], ["글"], [], ["가"]]


def test_a_file_that_cannot_be_read_is_no_empty_file(tmp_path: Path) -> None:
    broken = tmp_path / "b.jsonl"
    broken.write_text('{"question": "가"\n', encoding="utf-8")
    with pytest.raises(DataError, match="not-json"):
        items(broken)
    nothing = tmp_path / "a.txt"
    nothing.write_bytes(b"")
    with pytest.raises(AxtuneError, match="gives no text"):
        items(nothing)


def test_paths_are_files_globs_and_folders_of_data(tmp_path: Path) -> None:
    names = ["dev.jsonl", "test.jsonl"]
    for name in ("train.jsonl", *names):
        write_jsonl(tmp_path / name, [])
    (tmp_path / "a.txt").write_text("글", encoding="utf-8")
    assert held_out_paths(str(tmp_path)) == [tmp_path / name for name in names]
    assert held_out_paths(str(tmp_path / "*.txt")) == [tmp_path / "a.txt"]
    assert held_out_paths(str(tmp_path / "a.txt")) == [tmp_path / "a.txt"]
    for missing in ("no.txt", "*.pdf"):
        with pytest.raises(AxtuneError):
            held_out_paths(str(tmp_path / missing))
