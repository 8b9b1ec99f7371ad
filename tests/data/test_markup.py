"""Answers that write calls as other models do are told from answers that are just JSON or code."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import chat, check_rows, codes, tool
from support.strategies import json_values

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.markup import foreign_markup

TOOLS = ["get_stock", "날씨"]
ARGUMENTS = {"sku": "HB-100"}


@pytest.mark.parametrize(
    "value",
    [
        {"name": "get_stock", "parameters": ARGUMENTS},
        {"name": "get_stock", "arguments": json.dumps(ARGUMENTS)},
        {"name": "다른 것", "arguments": {}},  # the form is a call's alone
        {"function": "get_stock", "args": ARGUMENTS},
        {"function": {"name": "get_stock", "arguments": "{}"}, "type": "function"},
        {"type": "function", "name": "get_stock", "parameters": ARGUMENTS},
        {"function_call": {"name": "get_stock", "arguments": "{}"}},
        {"tool_calls": [{"function": {"name": "get_stock", "arguments": "{}"}}]},
        {"action": "get_stock", "action_input": ARGUMENTS},
        {"name": "get_stock"},
        [{"name": "get_stock", "arguments": ARGUMENTS}, {"name": "날씨", "arguments": {}}],
    ],
)
def test_a_call_in_json_is_found(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)
    for said in (text, f"```json\n{text}\n```", f"<think>재고</think>\n\n{text}", repr(value)):
        assert foreign_markup(said, TOOLS) == "nothing but a call in JSON"


@pytest.mark.parametrize(
    "text",
    [
        'get_stock(sku="HB-100")',
        '[get_stock(sku="HB-100"), 날씨()]',
        "```tool_code\nget_stock(sku=1)\n```",
        "Thought: 재고\nAction: get_stock\nAction Input: {}",
        '{"name": "get_stock", "parameters": {}}; {"name": "날씨", "parameters": {}}',
        '<function=get_stock>{"sku": 1}</function>',
        '<|tool_call|>[{"name": "get_stock"}]<|/tool_call|>',
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_stock:0",
        "<|channel|>commentary to=functions.get_stock <|message|>{}<|call|>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function",
        '<function_calls>\n<invoke name="get_stock">',
        '```py\nget_stock(sku="HB-100")\n```<end_code>',
        ">>>get_stock\n{}",
        "네.[|endofturn|]",
        "네.<|endofturn|>",
        "네.</s>",
        "<|begin_of_solution|>네.<|end_of_solution|>",
    ],
)
def test_a_call_in_another_text_is_found(text: str) -> None:
    assert foreign_markup(text, TOOLS)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "홍길동", "age": 3}',
        '{"name": "홍길동"}',
        '{"name": "get_stock", "age": 3}',
        '{"function": "sin", "input": "x"}',
        '[{"a": 1}]',
        "[1, 2]",
        "[]",
        "{}",
        "print(1)",
        "get_stock(sku)",
        "재고는 get_stock(sku=1)",
        "get_stock(sku=1) 로 보세요. (참고)",
        '호출은 이렇게 씁니다: {"name": "get_stock", "arguments": {}}',
        "Action: 영화",
        ">>>other\n{}",
        ">>> x = 1",
        "<|기호|> [||]",
        "<｜",
        "",
    ],
)
def test_data_and_code_of_any_text_are_none(text: str) -> None:
    assert foreign_markup(text, TOOLS) == ""


def test_code_of_a_row_without_tools_is_none() -> None:
    assert foreign_markup('get_stock(sku="HB-100")', []) == ""


@given(json_values | st.text())
def test_any_answer_is_looked_at_in_peace(value: object) -> None:
    assert isinstance(foreign_markup(json.dumps(value), TOOLS), str)
    assert isinstance(foreign_markup(str(value), TOOLS), str)


def test_the_row_says_so_and_is_learned(tiny: AxTokenizer) -> None:
    row = chat("재고는?", '{"name": "get_stock", "parameters": {"sku": "HB-100"}}')
    (checked,) = check_rows(tiny, [row | {"tools": [tool("get_stock")]}])
    assert codes(checked, "warning") == ["foreign-markup"]
    assert not checked.refused
