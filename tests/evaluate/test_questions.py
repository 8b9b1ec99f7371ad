"""Every assistant turn of a conversation is a question, with the prompt that training showed."""

from __future__ import annotations

import pytest

from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.config.loader import data_options
from axtune.data.pipeline import RowChecker
from axtune.data.render import prompt_ids
from axtune.data.rows import Row
from axtune.evaluate.questions import Question, questions_of

TOOL = {
    "type": "function",
    "function": {
        "name": "날씨",
        "parameters": {"type": "object", "properties": {"도시": {"type": "string"}}},
    },
}
CALL = {"type": "function", "function": {"name": "날씨", "arguments": '{"도시": "서울"}'}}
ROW = {
    "messages": [
        {"role": "user", "content": "날씨 알려 줘"},
        {"role": "assistant", "content": "어느 도시인가요?"},
        {"role": "user", "content": "서울"},
        {"role": "assistant", "tool_calls": [{"id": "a", **CALL}]},
        {"role": "tool", "tool_call_id": "a", "content": "맑음"},
        {"role": "assistant", "content": "서울은 맑습니다."},
    ],
    "tools": [TOOL],
}


@pytest.fixture(scope="module")
def tokenizer() -> AxTokenizer:
    return load_tokenizer("tiny-ax-4.0")


def asked(tokenizer: AxTokenizer, row: dict[str, object]) -> list[Question]:
    checker = RowChecker(tokenizer, data_options(["x"]), with_turns=True)
    return list(questions_of(checker.check([Row("rows.jsonl", 7, row)])))


def test_each_turn_is_a_question_of_its_kind(tokenizer: AxTokenizer) -> None:
    found = asked(tokenizer, ROW)
    assert [(one.id, one.category) for one in found] == [
        ("rows.jsonl:7", "no_call"), ("rows.jsonl:7#2", "call"), ("rows.jsonl:7#3", "after_result"),
    ]  # fmt: skip
    assert [one.wanted.decision for one in found] == ["text", "calls", "text"]
    assert [one.reference for one in found] == ["어느 도시인가요?", "", "서울은 맑습니다."]
    assert [one.asked for one in found] == ["날씨 알려 줘", "서울", "맑음"]
    assert [one.right for one in found] == [
        "어느 도시인가요?", '날씨({"도시": "서울"})', "서울은 맑습니다.",
    ]  # fmt: skip
    assert {(one.file, one.line) for one in found} == {("rows.jsonl", 7)}
    assert {one.cluster for one in found} == {"rows.jsonl:7"}  # turns of one conversation


def test_the_prompt_is_the_one_that_is_served(tokenizer: AxTokenizer) -> None:
    for one in asked(tokenizer, ROW):
        assert one.prompt == prompt_ids(tokenizer, one.messages, one.tools)


def test_several_calls_and_no_tools_have_names_of_their_own(tokenizer: AxTokenizer) -> None:
    both = [{"id": name, **CALL} for name in "ab"]
    user = {"role": "user", "content": "서울과 부산"}
    row = {"messages": [user, {"role": "assistant", "tool_calls": both}], "tools": [TOOL]}
    assert [one.category for one in asked(tokenizer, row)] == ["parallel_calls"]
    row = {"messages": [user, {"role": "assistant", "content": "네"}]}
    assert [one.category for one in asked(tokenizer, row)] == ["text"]


def test_a_turn_that_is_not_learned_is_not_asked(tokenizer: AxTokenizer) -> None:
    messages = [dict(message) for message in ROW["messages"]]
    messages[1]["loss"] = False
    assert [one.category for one in asked(tokenizer, {**ROW, "messages": messages})] == [
        "call", "after_result",
    ]  # fmt: skip
