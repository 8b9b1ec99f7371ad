"""A turn of any tool becomes the message that a client would send, and no key of it vanishes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import check_rows, codes
from support.turns import ANSWER, CALL, ITEM, USER, one, read

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data import turns, unread
from axtune.data.conversation import Conversation
from axtune.data.parse import read_row
from axtune.data.turns import read_turns
from axtune.errors import Problem


@pytest.mark.parametrize(
    ("written", "role"),
    [
        ("human", "user"),
        ("prompter", "user"),
        ("USER", "user"),
        ("gpt", "assistant"),
        ("model", "assistant"),
        ("bot", "assistant"),
        ("chatgpt", "assistant"),
        ("CHATBOT", "assistant"),
        ("developer", "developer"),
        ("function", "tool"),
        ("observation", "tool"),
        ("ipython", "tool"),
        ("tool_response", "tool"),
        ("function-response", "tool"),
        ("environment", "tool"),
    ],
)
@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value"), ("role", "text")])
def test_roles_of_other_tools(written: str, role: str, keys: tuple[str, str]) -> None:
    assert one({keys[0]: written, keys[1]: "a"}) == {"role": role, "content": "a"}


@pytest.mark.parametrize(
    "turn",
    [
        {"type": "ai", "content": "세 개", "additional_kwargs": {}, "invalid_tool_calls": []},
        {"type": "ai", "data": {"content": "세 개", "type": "ai"}},
        {"lc": 1, "id": ["langchain", "schema", "AIMessage"], "kwargs": {"content": "세 개"}},
        {"index": 0, "message": {"role": "assistant", "content": "세 개"}},
        {"role": "CHATBOT", "message": "세 개"},
        {"role": "model", "parts": ["세 개"]},
    ],
)
def test_messages_of_other_tools(turn: dict[str, Any]) -> None:
    message = one(turn)
    assert (message["role"], message["content"]) in [
        ("assistant", "세 개"),
        ("assistant", ["세 개"]),
    ]


def test_a_plain_message_is_handed_on_untouched() -> None:
    turns = [USER, {"role": "tool", "content": "3", "tool_call_id": "a"}, "글", 3]
    assert all(given is made for given, made in zip(turns, read(*turns)[0], strict=True))


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        ({"role": "usr", "content": "a"}, "bad-role: turns[0]: unknown role; did you mean user?"),
        (
            {"from": "robot", "value": "a"},
            "bad-role: turns[0]: unknown role; expected one of system, human",
        ),
        ({"content": "a"}, "bad-role: turns[0]"),
        ({"role": "user", "from": "gpt", "content": "a"}, "bad-role: turns[0]: role and from"),
        ({"from": "gpt"}, "bad-messages: turns[0]: expected keys from and value."),
        ({"role": "user", "utterance": "a"}, "bad-messages: turns[0]: expected keys role and"),
        ({"type": "web_search_call", "id": "a"}, "bad-messages: turns[0]: an item of a type"),
        ({"role": "tool_call", "content": "oops"}, "bad-tool-calls: turns[0].content: expected a"),
        ({**ANSWER, "tool_calls": "oops"}, "bad-tool-calls: turns[0].tool_calls: expected a list"),
        ({**ANSWER, "tool_calls": [3]}, "bad-tool-calls: turns[0].tool_calls[0]: expected"),
        (
            {**ANSWER, "tool_calls": [ITEM], "function_call": {**CALL, "arguments": {}}},
            "bad-tool-calls: turns[0]: function_call and another key",
        ),
        (
            {"role": "assistant", "content": [{"type": "tool_use", **CALL}, "글"]},
            "bad-tool-calls: turns[0].content[1]: there is text behind a call",
        ),
        ({"role": "user", "content": [{"type": "image"}]}, "bad-content: turns[0].content[0]"),
        ({"role": "tool", "content": [{"qty": 3}]}, "bad-content: turns[0].content[0]"),
        ({"role": "user", "content": [3]}, "bad-content: turns[0].content[0]"),
        ({**USER, "images": ["a.png"]}, "bad-content: turns[0].images: the models read text only"),
    ],
)
def test_what_is_wrong_says_where(turn: Any, problem: str) -> None:
    _, problems = read(turn)
    assert [text for text in problems if text.startswith(problem)]


def test_turns_of_calls_belong_to_the_assistants_turn_before_them() -> None:
    call = {"role": "tool_call", "content": json.dumps(CALL)}
    said = {"role": "assistant", "content": "볼게요"}
    result = {"role": "tool_response", "content": "3"}
    messages, problems = read(USER, said, call, call, result, result, call, result, ANSWER)
    assert problems == []
    assert [message["role"] for message in messages] == [
        *("user", "assistant", "tool", "tool", "assistant", "tool", "assistant")
    ]
    assert messages[1]["content"] == "볼게요"
    assert [call["function"] for call in messages[1]["tool_calls"]] == [CALL, CALL]
    items = [
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "네"}],
        },
        {"type": "function_call", "call_id": "a", **CALL},
        {"type": "function_call_output", "call_id": "a", "output": "3"},
    ]
    messages, problems = read(*items)
    assert problems == []
    assert messages[0]["tool_calls"] == [{**ITEM, "id": "a"}]
    assert messages[1] == {"role": "tool", "content": "3", "tool_call_id": "a"}
    _, (problem,) = read(said, {**call, "loss": False})
    assert problem.startswith("bad-weight: turns[1]: labelled otherwise than the turn")


def test_tools_of_a_turn_are_found() -> None:
    problems: list[Problem] = []
    system = {"role": "system", "content": "s", "functions": "[]", "tools": [ITEM]}
    _, tools = read_turns([("a", system), ("b", {**USER, "tools": []})], problems)
    assert tools == [("a.tools", [ITEM]), ("a.functions", "[]")]


_values = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
_wild = st.recursive(
    _values,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from([*turns._USED, *unread._UNREAD, *unread._MEDIA, "toolResult", "data"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(_wild, max_size=3))
def test_whatever_a_turn_is_it_is_read_or_has_problems(turns: list[Any]) -> None:
    conversation, problems = read_row({"messages": turns})
    assert isinstance(conversation, Conversation)
    said = len(conversation.messages)
    assert said >= 1 or any(problem.severity == "error" for problem in problems)


def test_several_texts_of_one_turn_are_refused(tiny: AxTokenizer) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": ["좋은 답", "나쁜 답"]}]
    (checked,) = check_rows(tiny, [{"conversations": turns}])
    assert codes(checked) == ["bad-content"]


@pytest.mark.parametrize("key", ["speaker", "sender"])
def test_who_speaks_may_stand_under_another_key(key: str) -> None:
    turns = [{key: "user", "text": "재고는?"}, {key: "assistant", "text": "세 개"}]
    for row in ({"messages": turns}, {"conversations": turns}):
        conversation, problems = read_row(row)
        assert (problems, len(getattr(conversation, "messages", []))) == ([], 2)
    _, (problem,) = read({key: "A", "text": "재고는?"})
    assert problem == (
        "bad-role: turns[0]: unknown role; expected one of system, developer, user, assistant, "
        "tool."
    )
