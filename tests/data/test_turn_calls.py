"""A call of any form is the call, and what holds none is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.rows import check_rows, tool
from support.turns import CALL, ITEM, one

from axtune.checkpoint.tokenizer import AxTokenizer


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [ITEM]},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": json.dumps([CALL])},
        {"role": "assistant", "content": None, "tool_calls": CALL},
        {"role": "assistant", "content": None, "tool_calls": [json.dumps(CALL)]},
        {"role": "assistant", "content": None, "function_call": CALL},
        {"role": "assistant", "content": None, "function_call": CALL, "tool_calls": [ITEM]},
        {"role": "assistant", "content": None, "function_calls": 'get_stock(sku="HB-100")'},
        {"role": "assistant", "content": "", "additional_kwargs": {"function_call": CALL}},
        {"from": "gpt", "value": "", "tool_calls": [ITEM]},
        {"from": "gpt", "tool_calls": [ITEM]},
        {"from": "function_call", "value": CALL},
        {"from": "function_call", "value": [CALL]},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"role": "tool_call", "content": json.dumps([CALL])},
        {"role": "tool_call", "content": [{"type": "text", "text": json.dumps(CALL)}]},
        {"type": "function_call", "call_id": "a", **CALL, "arguments": json.dumps({"sku": 1})},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", **CALL}]},
        {"role": "assistant", "content": {"type": "tool_use", "id": "a", **CALL}},
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "a", **CALL}}]},
        {"role": "assistant", "content": [{"type": "tool_call", "value": json.dumps(CALL)}]},
        {"role": "model", "parts": [{"functionCall": CALL}]},
    ],
)
def test_a_call_of_any_form_is_the_call(turn: dict[str, Any]) -> None:
    message = one(turn)
    assert message["role"] == "assistant"
    assert not message["content"]
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "get_stock"
    assert call["function"]["arguments"] in (CALL["arguments"], '{"sku": 1}')


@pytest.mark.parametrize("key", ["toolCalls", "tool_call", "functionCall", "toolUse", "tool_use"])
def test_calls_by_other_names_are_calls(tiny: AxTokenizer, key: str) -> None:
    turn = {"role": "assistant", "content": "봅니다.", key: {"name": "f", "args": {"a": 1}}}
    row = {"messages": [{"role": "user", "content": "q"}, turn], "tools": [tool("f")]}
    (checked,) = check_rows(tiny, [row])
    (sample,) = checked.samples
    assert '<tool_call>{"name": "f", "arguments": {"a": 1}}' in tiny.decode(sample.input_ids)


def test_text_stands_before_its_calls() -> None:
    for turn in (
        {"from": "gpt", "value": "볼게요", "tool_calls": [CALL]},
        {"role": "assistant", "content": ["볼게요", {"type": "tool_use", **CALL}]},
    ):
        message = one(turn)
        assert message["content"] in ("볼게요", ["볼게요"])
        assert [call["function"] for call in message["tool_calls"]] == [CALL]
    thought = {"from": "function_call", "value": f"<think>왜</think>\n{json.dumps(CALL)}"}
    assert one(thought)["content"] == "<think>왜</think>"
