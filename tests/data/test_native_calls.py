"""How calls are written and read back: as vLLM's parser hands them to a client."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from support.strategies import arguments

from axtune.data.native_calls import FORM, Answer, before_calls, parse_answer, pattern, written


def one(arguments_text: str) -> list[dict[str, Any]]:
    function = {"name": "f", "arguments": arguments_text}
    return [{"id": "call_1", "type": "function", "function": function}]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("안녕하세요", Answer("안녕하세요", [])),
        ("", Answer("", [])),
        ('<tool_call>{"name": "f", "arguments": {"a":1}}</tool_call>', Answer("", one('{"a": 1}'))),
        (
            '확인\n<tool_call>{"name": "f", "arguments": {}}</tool_call>',
            Answer("확인\n", one("{}")),
        ),
        # vLLM loses what stands behind a call, and takes a last call that is not closed.
        ('<tool_call>{"name": "f", "arguments": {}}</tool_call> 끝', Answer("", one("{}"))),
        ('<tool_call>{"name": "f", "arguments": {"가": "나"}}', Answer("", one('{"가": "나"}'))),
        # What its parser cannot read, the client gets as text.
        ('<tool_call>{"name": "f"}</tool_call>', None),
        ("<tool_call>{'name': 'f', 'arguments': {}}</tool_call>", None),
        ('<tool_call>{"name": 1, "arguments": {}}</tool_call>', None),
        ("<tool_call></tool_call>", None),
        ("<tool_call>[1]</tool_call>", None),
        ('<tool_call>{"name": "f", "arguments": {}}</tool_call><tool_call>{"na', None),
        ("<tool_call>" + "[" * 5000, None),
    ],
)
def test_answers_are_parsed_as_vllm_does(text: str, wanted: Answer | None) -> None:
    assert parse_answer(text) == (wanted or Answer(text, []))


@given(arguments.filter(lambda values: "</tool_call>" not in json.dumps(values)))
def test_what_is_written_is_read_back(values: dict[str, Any]) -> None:
    text = written("가져오기", values)
    (call,) = parse_answer(text).tool_calls
    assert call["function"]["name"] == "가져오기"
    assert json.dumps(json.loads(call["function"]["arguments"])) == json.dumps(values)
    assert re.fullmatch(pattern("가져오기", ".*"), text, re.DOTALL)


def test_parallel_calls_have_ids_of_their_own() -> None:
    parsed = parse_answer("둘 다 봅니다. " + written("f", {"a": 1}) + written("g", {}))
    assert parsed.content == "둘 다 봅니다. "
    assert [call["function"]["name"] for call in parsed.tool_calls] == ["f", "g"]
    assert len({call["id"] for call in parsed.tool_calls}) == 2


def test_the_form_for_people_is_that_of_a_call() -> None:
    begin, end = FORM.split("{…}")
    text = written("f", {})
    assert (text.startswith(begin), text.endswith(end)) == (True, True)
    assert before_calls("잠시만요." + text) == "잠시만요."
