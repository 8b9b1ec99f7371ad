"""How calls are written and read back: as vLLM's parser hands them to a client."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given
from support.strategies import arguments

from axtune.checkpoint.families import A_X_4_0
from axtune.data.native_calls import HERMES, Answer, form_of


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
    assert HERMES.parse(text) == (wanted or Answer(text, []))


@given(arguments.filter(lambda values: "</tool_call>" not in json.dumps(values)))
def test_what_is_written_is_read_back(values: dict[str, Any]) -> None:
    text = HERMES.write("가져오기", values)
    (call,) = HERMES.parse(text).tool_calls
    assert call["function"]["name"] == "가져오기"
    assert json.dumps(json.loads(call["function"]["arguments"])) == json.dumps(values)
    assert re.fullmatch(HERMES.pattern("가져오기", ".*"), text, re.DOTALL)


def test_parallel_calls_have_ids_of_their_own() -> None:
    parsed = HERMES.parse("둘 다 봅니다. " + HERMES.write("f", {"a": 1}) + HERMES.write("g", {}))
    assert parsed.content == "둘 다 봅니다. "
    assert [call["function"]["name"] for call in parsed.tool_calls] == ["f", "g"]
    assert len({call["id"] for call in parsed.tool_calls}) == 2


def test_the_form_for_people_is_that_of_a_call() -> None:
    begin, end = HERMES.shown.split("{…}")
    text = HERMES.write("f", {})
    assert (text.startswith(begin), text.endswith(end)) == (True, True)
    assert HERMES.before("잠시만요." + text) == "잠시만요."


def test_a_family_of_another_parser_writes_as_a_x_does_unless_its_form_is_known() -> None:
    other = dataclasses.replace(A_X_4_0, tool_parser="by_json")
    assert form_of(A_X_4_0) is form_of(other) is HERMES
