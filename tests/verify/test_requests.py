"""Requests: what a client sends for each learned turn, and the prompt that training showed."""

from __future__ import annotations

import json
from pathlib import Path

from support.rows import TEMPLATES, calls, chat, tool, write_jsonl

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.loader import data_options
from axtune.data.render import prompt_ids
from axtune.verify.requests import Request, read_requests, same_answer


def requests(tokenizer: AxTokenizer, *files: Path) -> list[Request]:
    return list(read_requests(data_options([str(file) for file in files]), tokenizer))


def test_every_learned_turn_of_the_templates_has_its_served_prompt(
    either_tiny: AxTokenizer,
) -> None:
    found = requests(either_tiny, *sorted(TEMPLATES.glob("*.jsonl")))
    assert len(found) > 200
    for request in found:
        assert prompt_ids(either_tiny, request.messages, request.tools) == request.prompt


def test_messages_are_openais_own(tiny: AxTokenizer, tmp_path: Path) -> None:
    row = chat(
        "주문 두 개 찾아 줘",
        calls(("find", {"id": 1}), ("find", '{"id": 2}')),
        {"role": "tool", "content": "하나"},
        {"role": "tool", "content": "둘"},
        "찾았습니다.",
        tools=[tool("find", {"type": "object"})],
    )
    first, second = requests(tiny, write_jsonl(tmp_path / "rows.jsonl", [row]))
    assert [message["role"] for message in first.messages] == ["user"]
    _, called, one, two = second.messages
    assert [call["function"]["arguments"] for call in called["tool_calls"]] == [
        '{"id": 1}',
        '{"id": 2}',
    ]
    assert [one["tool_call_id"], two["tool_call_id"]] == [
        call["id"] for call in called["tool_calls"]
    ]
    assert same_answer(first.answer, "", [("find", '{"id":1}'), ("find", '{"id": 2}')])
    assert not same_answer(first.answer, "", [("find", '{"id": 2}'), ("find", '{"id": 1}')])
    assert not same_answer(first.answer, "네", [("find", '{"id": 1}'), ("find", '{"id": 2}')])
    assert same_answer(second.answer, "찾았습니다.", [])


def test_of_a_preference_the_chosen_answer_is_asked_for(tiny: AxTokenizer, tmp_path: Path) -> None:
    row = {"prompt": "몇 시예요?", "chosen": "세 시입니다.", "rejected": "몰라요."}
    (found,) = requests(tiny, write_jsonl(tmp_path / "rows.jsonl", [row]))
    assert same_answer(found.answer, "세 시입니다.", [])


def test_broken_rows_and_absent_files_are_left_out(tiny: AxTokenizer, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "{broken\n"
        + json.dumps({"messages": "no"})
        + "\n"
        + json.dumps({"messages": [{"role": "user", "content": "\ud83d"}]})
        + "\n"
        + json.dumps(chat("안녕", "안녕하세요."), ensure_ascii=False)
        + "\n",
        encoding="utf-8",
    )
    assert len(requests(tiny, tmp_path / "absent.jsonl", file)) == 1
