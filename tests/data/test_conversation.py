"""Rows of every shape become one normalised conversation, or problems that say where."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import TEMPLATES, calls, chat, read_jsonl, tool
from support.strategies import texts

from axtune.data.conversation import Conversation, as_served, normalise_request
from axtune.data.parse import read_row
from axtune.errors import Problem

ANSWER = {"role": "assistant", "content": "네"}


def good(row: Any, **options: Any) -> Conversation:
    conversation, problems = read_row(row, **options)
    assert conversation is not None, problems
    return conversation


def bad(row: Any, **options: Any) -> list[str]:
    _, problems = read_row(row, **options)
    assert any(problem.severity == "error" for problem in problems)
    return [f"{problem.code}: {problem.message}" for problem in problems]


def said(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in conversation.messages]


def test_openai_chat() -> None:
    row = chat("창원 날씨?", calls(("w", '{"a":1,"b":"2026-03-14"}'), ("v", {"c": None})))
    row["messages"] += [{"role": "tool", "content": "맑음", "tool_call_id": "call_0"}, ANSWER]
    row |= {"id": 3, "tools": [tool("w"), tool("v")]}
    conversation = good(row)
    assert said(conversation) == [
        ("user", "창원 날씨?"),
        ("assistant", ""),
        ("tool", "맑음"),
        ("assistant", "네"),
    ]
    functions = [call["function"] for call in conversation.messages[1]["tool_calls"]]
    assert functions == [
        {"name": "w", "arguments": {"a": 1, "b": "2026-03-14"}},
        {"name": "v", "arguments": {"c": None}},
    ]
    assert conversation.learn == [1, 3]
    assert conversation.places == [f"messages[{n}]" for n in range(4)]


def test_contents() -> None:
    parts = [{"type": "text", "text": "하나"}, "둘", {"type": "text", "text": ""}, {"type": "text"}]
    row = chat({"role": "user", "content": parts}, {"role": "assistant", "content": "", "x": 1})
    row["messages"].append({"role": "assistant"})
    assert said(good(row)) == [("user", "하나\n둘"), ("assistant", ""), ("assistant", "")]


@pytest.mark.parametrize(
    ("given_arguments", "wanted"),
    [
        (None, {}),
        ("", {}),
        ("{}", {}),
        ({}, {}),
        ('{"n":123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
        ('{"d": "2026-03-14T00:00:00"}', {"d": "2026-03-14T00:00:00"}),
        ({"f": 0.1, "z": -0.0, "e": 1e300}, {"f": 0.1, "z": -0.0, "e": 1e300}),
        ('{"중첩": [{"a": [true, null]}]}', {"중첩": [{"a": [True, None]}]}),
    ],
)
def test_arguments_survive(given_arguments: Any, wanted: dict[str, Any]) -> None:
    conversation = good(chat("q", calls(("f", given_arguments))))
    got = conversation.messages[1]["tool_calls"][0]["function"]["arguments"]
    assert json.dumps(got) == json.dumps(wanted)


@pytest.mark.parametrize(
    "given_arguments", ["{", "[1]", "1", '"a"', "null", [], 5, "NaN", '{"a": NaN}', '{"a": 1e999}']
)
def test_arguments_that_vllm_would_hide_are_refused(given_arguments: Any) -> None:
    (problem,) = bad(chat("q", calls(("f", given_arguments))))
    assert problem.startswith("bad-arguments: messages[1].tool_calls[0].function.arguments: ")


def test_tools_take_vllms_key_order_and_lose_unknown_keys() -> None:
    given_tool = {
        "function": {
            "x": 1,
            "strict": True,
            "parameters": {"type": "object", "b": 1, "a": 2},
            "name": "f",
        }
    }
    tools = good(chat("q", "a", tools=[given_tool, {"name": "g"}])).tools
    assert tools is not None
    assert [t.json for t in tools] == [
        '{"type": "function", "function": {"name": "f", "description": null, '
        '"parameters": {"type": "object", "b": 1, "a": 2}, "strict": true}}',
        '{"type": "function", "function": {"name": "g", "description": null, "parameters": null}}',
    ]


def test_a_tool_may_speak_of_infinity() -> None:
    assert good(chat("q", "a", tools=[tool("NaN", {"title": "Infinity"})])).tools


@pytest.mark.parametrize("tools", [None, [], "", "[]", "null", " "])
def test_no_tools(tools: Any) -> None:
    assert good(chat("q", "a", tools=tools)).tools is None


def test_tools_and_messages_as_json_text() -> None:
    row = chat("q", "a", tools=[tool("f")])
    assert good({key: json.dumps(value) for key, value in row.items()}) == good(row)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ([], "not-an-object"),
        (None, "not-an-object"),
        ("글", "not-an-object"),
        ({}, "unknown-shape"),
        ({"text": 5}, "bad-content"),
        ({"prompt": ""}, "unknown-shape"),
        ({"messages": []}, "bad-messages: messages:"),
        ({"messages": "글"}, "bad-messages: messages:"),
        ({"messages": [1]}, "bad-messages: messages[0]:"),
        (
            chat({"role": "asistant"}),
            "bad-role: messages[0]: unknown role; did you mean assistant?",
        ),
        (
            chat({"role": "Assistant "}),
            "bad-role: messages[0]: unknown role; did you mean assistant?",
        ),
        (chat({"role": ["user"]}), "bad-role: messages[0]: unknown role; expected one of"),
        (chat({"content": "글"}), "bad-role: messages[0]"),
        (chat(1), "bad-content: messages[0].content:"),
        (chat({"role": "user", "content": {"a": 1}}), "bad-content: messages[0].content:"),
        (
            chat({"role": "user", "content": [{"type": "image_url"}]}),
            "bad-content: messages[0].content[0]:",
        ),
        (chat("q", {**ANSWER, "tool_calls": "f"}), "bad-tool-calls: messages[1].tool_calls:"),
        (chat("q", {**ANSWER, "tool_calls": [1]}), "bad-tool-calls: messages[1].tool_calls[0]:"),
        (
            chat("q", {**ANSWER, "tool_calls": [{"title": "f"}]}),
            "bad-tool-calls: messages[1].tool_calls[0]:",
        ),
        (chat("q", calls(("", {}))), "bad-tool-calls: messages[1].tool_calls[0]:"),
        (chat("q", calls(('a"b', {}))), "bad-tool-calls: messages[1].tool_calls[0]:"),
        (
            chat({"role": "user", "content": "q", "tool_calls": [1]}),
            "bad-tool-calls: messages[0].tool_calls[0]:",
        ),
        (chat("q", {**ANSWER, "weight": "자주"}), "bad-weight: messages[1].weight:"),
        (chat("q", {**ANSWER, "weight": 0.5}), "bad-weight: messages[1].weight:"),
        (chat("q", "a", tools=5), "bad-tools: tools:"),
        (chat("q", "a", tools="{"), "bad-tools: tools:"),
        (chat("q", "a", tools={"f": "g"}), "bad-tools: tools:"),
        (chat("q", "a", tools=[1]), "bad-tools: tools[0]:"),
        (
            chat("q", "a", tools=[{"type": "web", "function": {"name": "f"}}]),
            "bad-tools: tools[0]:",
        ),
        (
            chat("q", "a", tools=[tool("f"), tool("f", parameters=[])]),
            "bad-tools: tools[1]: the parameters are neither",
        ),
        (chat("q", "a", tools=[tool("f", strict=1)]), "bad-tools: tools[0]: function.strict"),
        (
            chat("q", "a", tools='[{"name": "f", "parameters": {"type": "object", "a": 1e999}}]'),
            "bad-tools: tools[0]:",
        ),
        ({"conversations": [{"from": "human"}]}, "bad-messages: conversations[0]:"),
        ({"conversations": [{"from": "robot", "value": ""}]}, "bad-role: conversations[0]:"),
        ({"conversations": [{"from": ["gpt"], "value": ""}]}, "bad-role: conversations[0]:"),
        (
            {"conversations": [{"from": "function_call", "value": "f("}]},
            "bad-tool-calls: conversations[0]",
        ),
        ({"instruction": 1, "output": "a"}, "bad-content: instruction:"),
        ({"instruction": "q", "output": 2}, "bad-content: output:"),
        ({"instruction": "q", "output": "a", "history": [["q"]]}, "bad-messages: history[0]:"),
        ({"instruction": "q", "output": "a", "history": "글"}, "bad-messages: history:"),
        ({"prompt": 1, "completion": []}, "bad-content: prompt:"),
    ],
)
def test_what_is_wrong_says_where(row: Any, code: str) -> None:
    assert any(problem.startswith(code) for problem in bad(row))


def test_every_problem_of_a_row_is_found() -> None:
    row = chat(1, {**ANSWER, "tool_calls": "f"}, {"role": "usr"}, tools=[1])
    assert sorted(problem.split(":")[0] for problem in bad(row)) == [
        "bad-content",
        "bad-role",
        "bad-tool-calls",
        "bad-tools",
    ]


def test_alpaca() -> None:
    row = {
        "instruction": "고치세요.",
        "input": "보내세요",
        "output": "보내 주세요",
        "system": "편집자",
    }
    assert said(good(row)) == [
        ("system", "편집자"),
        ("user", "고치세요.\n보내세요"),
        ("assistant", "보내 주세요"),
    ]
    row = {"instruction": "q", "input": "", "output": "a", "history": [["p", "b"]]}
    for history in (row["history"], json.dumps(row["history"])):
        conversation = good({**row, "history": history})
        assert said(conversation) == [
            ("user", "p"),
            ("assistant", "b"),
            ("user", "q"),
            ("assistant", "a"),
        ]
        assert conversation.learn == [1, 3]
    assert said(good({**row, "history": ""})) == [("user", "q"), ("assistant", "a")]


def test_sharegpt_as_llama_factory_writes_tools() -> None:
    one = {"name": "f", "arguments": {"날짜": "2026-05-21"}}
    for value, count in [(one, 1), ([one, one], 2)]:
        row = {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": json.dumps(value)},
                *[{"from": "observation", "value": "{}"}] * count,
                {"from": "gpt", "value": "끝"},
            ],
            "system": "상담원",
            "tools": json.dumps([{"name": "f"}]),
        }
        conversation = good(row)
        roles = [role for role, _ in said(conversation)]
        assert roles == ["system", "user", "assistant", *["tool"] * count, "assistant"]
        made = conversation.messages[2]["tool_calls"]
        assert [call["function"] for call in made] == [one] * count
        assert conversation.tools is not None


def test_prompt_and_completion() -> None:
    assert said(good({"prompt": "q", "completion": "a"})) == [("user", "q"), ("assistant", "a")]
    row = {"prompt": [*chat("q", "a")["messages"], {"role": "user", "content": "r"}]}
    conversation = good({**row, "completion": [ANSWER]})
    assert len(conversation.messages) == 4
    assert conversation.learn == [3]
    assert conversation.places[-1] == "completion[0]"


def test_a_named_format_overrides_the_keys() -> None:
    row = {**chat("q", "a"), "prompt": "p", "completion": "c"}
    assert said(good(row))[0] == ("user", "q")
    assert said(good(row, row_format="prompt_completion"))[0] == ("user", "p")
    assert bad(row, row_format="alpaca")[0].startswith("unknown-shape: data.format is alpaca")


@pytest.mark.parametrize(("weight", "learned"), [(0, []), (1, [1]), (None, [1]), (0.0, [])])
def test_weight(weight: Any, learned: list[int]) -> None:
    assert good(chat("q", {**ANSWER, "weight": weight})).learn == learned


def test_reasoning_is_kept_for_the_template_to_see() -> None:
    for key in ("reasoning", "reasoning_content"):
        assert good(chat("q", {**ANSWER, key: "왜"})).messages[1]["reasoning_content"] == "왜"
    assert "reasoning_content" not in good(chat("q", ANSWER)).messages[1]


def test_hermes_text_in_data_is_taken_apart_and_in_a_request_is_not() -> None:
    text = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    messages = chat("q", text, {"role": "user", "content": "<tool_response>1</tool_response>"})
    messages["messages"].append(ANSWER)
    assert [role for role, _ in said(good(messages))] == ["user", "assistant", "tool", "assistant"]
    problems: list[Problem] = []
    raw = [(str(n), message) for n, message in enumerate(messages["messages"])]
    served = normalise_request(raw, None, problems)
    assert [m["content"] for m in served.messages] == [m["content"] for m in messages["messages"]]
    assert problems == []


def test_nfc_reaches_json_within_text() -> None:
    nfd = unicodedata.normalize("NFD", "한국어")
    row = chat(
        nfd,
        calls(("f", json.dumps({nfd: nfd}))),
        tools=json.dumps([tool("f", {"type": "object", nfd: 1})]),
    )
    assert "\\u1112" in row["messages"][1]["tool_calls"][0]["function"]["arguments"]
    for nfc in (False, True):
        conversation = good(row, nfc=nfc)
        text = json.dumps([conversation.messages, conversation.tools], ensure_ascii=False)
        assert unicodedata.is_normalized("NFC", text) is nfc
        assert conversation.tools is not None
        assert conversation.tools[0].json == json.dumps(conversation.tools[0], ensure_ascii=False)


roles = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
turns = st.lists(st.builds(lambda r, c: {"role": r, "content": c}, roles, texts), max_size=6)


@given(turns)
def test_served_view(messages: list[dict[str, Any]]) -> None:
    before = json.dumps(messages)
    served = as_served(messages)
    assert json.dumps(messages) == before
    if all(message["role"] != "developer" for message in messages):
        assert served == messages
        return
    assert as_served(served) == served
    said_by_others = [m for m in messages if m["role"] not in ("system", "developer")]
    assert [m for m in served if m["role"] != "system"] == said_by_others
    assert [n for n, m in enumerate(served) if m["role"] == "system"] == [0]
    spoken = [m["content"] for m in messages if m["role"] in ("system", "developer")]
    assert served[0]["content"] == "\n\n".join(filter(None, spoken))


@pytest.mark.parametrize("file", sorted(TEMPLATES.glob("*.jsonl")), ids=lambda file: file.name)
def test_templates_are_read_without_a_problem(file: Path) -> None:
    for row in read_jsonl(file):
        assert read_row(row)[1] == []
