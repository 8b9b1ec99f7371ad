"""Rows that are no list of turns become the conversations that they record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from axtune.data.conversation import Conversation
from axtune.data.parse import read_row
from axtune.data.traces import open_trace

A = {"sku": "HB-100"}
CALL = {"name": "get_stock", "arguments": A}
SCHEMA = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
FUNCTION = {"name": "get_stock", "description": "재고", "parameters": SCHEMA}


def good(row: Any) -> Conversation:
    conversation, problems = read_row(row)
    assert [problem for problem in problems if problem.severity == "error"] == []
    assert isinstance(conversation, Conversation)
    return conversation


def shown(conversation: Conversation) -> list[tuple[str, str, list[Any]]]:
    return [
        (m["role"], m["content"], [call["function"] for call in m.get("tool_calls", ())])
        for m in conversation.messages
    ]


XLAM = {"query": "재고는?", "answers": [CALL, CALL], "tools": [{**FUNCTION, "parameters": {}}]}
XLAM["tools"] = [{**FUNCTION, "parameters": {"sku": {"type": "str"}}}]


@pytest.mark.parametrize("as_text", [True, False])
def test_xlam(as_text: bool) -> None:
    row = {k: json.dumps(v) if as_text and k != "query" else v for k, v in XLAM.items()}
    conversation = good({"id": 3, **row})
    assert shown(conversation) == [("user", "재고는?", []), ("assistant", "", [CALL, CALL])]
    assert conversation.tools is not None
    assert conversation.tools[0]["function"] == FUNCTION
    assert conversation.learn == [1]


def test_glaive() -> None:
    written = json.dumps(FUNCTION, indent=4)
    call = '{"name": "get_stock", "arguments": \'{"sku": "HB-100"}\'}'
    row = {
        "system": "SYSTEM: You are a helpful assistant with access to the following functions. "
        f"Use them if required -\n{written}\n\n{written}\n존댓말로.",
        "chat": f"USER: 재고는?\n\n\nASSISTANT: 볼게요 <functioncall> {call} <|endoftext|>\n\n\n"
        'FUNCTION RESPONSE: {"qty": 3}\n\n\nASSISTANT: 세 개\n입니다. <|endoftext|>\n\n\n',
    }
    conversation = good(row)
    assert shown(conversation) == [
        ("system", "존댓말로.", []),
        ("user", "재고는?", []),
        ("assistant", "볼게요", [CALL]),
        ("tool", '{"qty": 3}', []),
        ("assistant", "세 개\n입니다.", []),
    ]
    assert [t["function"]["name"] for t in conversation.tools or ()] == ["get_stock"] * 2
    plain = {"system": "SYSTEM: 도우미", "chat": "USER: a\n\nASSISTANT: b <|endoftext|>"}
    assert shown(good(plain)) == [
        ("system", "도우미", []),
        ("user", "a", []),
        ("assistant", "b", []),
    ]


@pytest.mark.parametrize("as_text", [True, False])
def test_responses(as_text: bool) -> None:
    row: dict[str, Any] = {
        "instructions": "상담원",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "재고는?"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "어느?"}]},
            {"role": "user", "content": "HB-100"},
        ],
        "output": [
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "네"}],
            },
            {"type": "function_call", "call_id": "a", **CALL, "arguments": json.dumps(A)},
        ],
        "tools": [{"type": "function", **FUNCTION}],
    }
    if as_text:
        row |= {key: json.dumps(row[key]) for key in ("input", "output", "tools")}
    conversation = good(row)
    assert [(role, text) for role, text, _ in shown(conversation)] == [
        ("system", "상담원"),
        ("user", "재고는?"),
        ("assistant", "어느?"),
        ("user", "HB-100"),
        ("assistant", "네"),
    ]
    assert shown(conversation)[-1][2] == [CALL]
    assert conversation.learn == [4]  # what the request holds is context
    row = {"input": "안녕", "output": [{"type": "message", "role": "assistant", "content": "네"}]}
    assert shown(good(row)) == [("user", "안녕", []), ("assistant", "네", [])]


def test_gemini() -> None:
    row = {
        "systemInstruction": {"parts": [{"text": "상담원"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "재고는?"}]},
            {
                "role": "model",
                "parts": [{"text": "네"}, {"functionCall": {"name": "get_stock", "args": A}}],
            },
        ],
        "tools": [{"functionDeclarations": [FUNCTION]}],
    }
    conversation = good(row)
    assert shown(conversation) == [
        ("system", "상담원", []),
        ("user", "재고는?", []),
        ("assistant", "네", [CALL]),
    ]
    assert conversation.tools is not None


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"query": "a"},
        {"query": 3, "answers": []},
        {"chat": "글"},
        {"system": "a", "chat": 3},
        {"input": "a", "output": "b"},
        {"input": "a", "output": []},
        {"input": "a", "output": ["b"]},
        {"input": "a", "output": "[oops"},
        {"contents": "글"},
    ],
)
def test_what_is_no_such_row(row: Any) -> None:
    assert open_trace(row, []) is None
    if "output" not in row:  # else it is question and answer
        _, (problem,) = read_row(row)
        assert problem.code == "unknown-shape"


def test_what_a_trace_has_besides_is_named() -> None:
    plain = {"system": "SYSTEM: 도우미", "chat": "USER: a\n\nASSISTANT: b <|endoftext|>"}
    for row in (XLAM, plain, {"contents": [{"role": "user", "parts": ["a"]}]}):
        assert read_row(row)[1] == []
        _, (problem,) = read_row({**row, "label": "분류"})
        assert (problem.code, problem.severity) == ("unread-key", "warning")
        assert "not read: label;" in problem.message


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({**XLAM, "answers": "oops"}, "bad-tool-calls"),
        ({**XLAM, "answers": [{"name": "f", "argument": A}]}, "bad-arguments"),
        (
            {**XLAM, "tools": [{"name": "f", "parameters": {"a": {"type": "Callable"}}}]},
            "bad-tools",
        ),
        ({"system": "SYSTEM: {oops", "chat": "USER: a\nASSISTANT: b"}, "bad-tools"),
        ({"chat": "USER: a\nASSISTANT: <functioncall> {oops"}, "bad-hermes-call"),
        ({"input": "a", "output": [{"type": "web_search_call"}]}, "bad-messages"),
    ],
)
def test_what_is_wrong_is_named(row: Any, code: str) -> None:
    _, problems = read_row(row)
    assert code in [problem.code for problem in problems]
