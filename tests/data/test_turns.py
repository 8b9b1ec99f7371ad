"""A turn of any tool becomes the message that a client would send, and no key of it vanishes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import check_rows, codes, tool

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data import turns as module
from axtune.data.conversation import Conversation
from axtune.data.parse import read_row
from axtune.data.turns import as_context, bad_role, read_turns
from axtune.errors import Problem

CALL = {"name": "get_stock", "arguments": {"sku": "HB-100"}}
ITEM = {"type": "function", "function": CALL}
USER: dict[str, Any] = {"role": "user", "content": "재고는?"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "세 개"}


def read(*turns: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The messages of turns, and what is wrong."""
    problems: list[Problem] = []
    out, _ = read_turns([(f"turns[{n}]", turn) for n, turn in enumerate(turns)], problems)
    return [message for _, message in out], [f"{p.code}: {p.message}" for p in problems]


def one(turn: Any) -> dict[str, Any]:
    """The message of a turn that nothing is wrong with."""
    messages, problems = read(turn)
    assert problems == []
    (message,) = messages
    return message


def learned(*turns: Any) -> list[str]:
    """What is labelled of a row."""
    conversation, problems = read_row({"messages": list(turns)})
    assert problems == []
    assert isinstance(conversation, Conversation)
    return [conversation.messages[n]["content"] for n in conversation.learn]


# --- roles and contents -----------------------------------------------------------------------


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


# --- labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [*module._LABELLED, *module._MASKED])
@pytest.mark.parametrize(("yes", "no"), [(True, False), (1, 0), ("true", "False"), (1.0, 0.0)])
def test_a_turn_that_is_marked_is_not_learned(key: str, yes: Any, no: Any) -> None:
    yes, no = (no, yes) if key == "masked" else (yes, no)
    asked = {**USER, key: no}
    first, second = {**ANSWER, "content": "하나", key: no}, {**ANSWER, "content": "둘", key: yes}
    assert learned(asked, first, USER, second) == ["둘"]
    assert learned({**USER, key: None}, {**first, key: None}, USER, second) == ["하나", "둘"]


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        ({**ANSWER, "loss": 0.5}, "bad-weight: turns[0].loss: expected true or false"),
        ({**ANSWER, "weight": "자주"}, "bad-weight: turns[0].weight"),
        (
            {**ANSWER, "weight": 1, "loss": False},
            "bad-weight: turns[0]: weight and loss contradict",
        ),
        ({**ANSWER, "train": "later"}, "unread-key: turns[0]: the key train"),
        ({**ANSWER, "mask": True}, "unread-key: turns[0]: the key mask"),
        ({**USER, "loss": True}, "unread-key: turns[0]: only an assistant's turn is labelled"),
    ],
)
def test_a_flag_that_cannot_be_kept_is_named(turn: Any, problem: str) -> None:
    (found,) = read(turn)[1]
    assert found.startswith(problem)


def test_context_stays_context_unless_it_says_otherwise() -> None:
    assert as_context(ANSWER) == {**ANSWER, "weight": 0}
    assert as_context({**ANSWER, "weight": None}) == {**ANSWER, "weight": 0}
    assert as_context({**ANSWER, "loss": True}) == {**ANSWER, "loss": True}
    assert as_context("글") == "글"


# --- calls and results ------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool_result", "tool_use_id": "a", "content": "3"},
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "3"}]},
        {"type": "tool-result", "toolCallId": "a", "result": "3"},
        {"type": "tool-result", "toolCallId": "a", "output": {"type": "text", "value": "3"}},
        {"toolResult": {"toolUseId": "a", "content": [{"text": "3"}]}},
    ],
)
def test_results_leave_the_parts_of_a_turn(part: Any) -> None:
    result, user = read({"role": "user", "content": [part, {"type": "text", "text": "계속"}]})[0]
    assert (result["role"], result["tool_call_id"]) == ("tool", "a")
    assert result["content"] in ("3", ["3"])
    assert user == {"role": "user", "content": ["계속"]}
    (result,) = read({"role": "user", "content": [part]})[0]
    assert result["role"] == "tool"


def test_a_results_data_is_refused_where_its_text_is_not_known() -> None:
    part = {"functionResponse": {"name": "f", "response": {"qty": 3}}}
    row = {"messages": [{"role": "user", "parts": [part]}, ANSWER]}
    _, (problem,) = read_row(row)
    assert problem.code == "bad-content"
    assert "write JSON data as a string" in problem.message


def test_tools_of_a_turn_are_found() -> None:
    problems: list[Problem] = []
    system = {"role": "system", "content": "s", "functions": "[]", "tools": [ITEM]}
    _, tools = read_turns([("a", system), ("b", {**USER, "tools": []})], problems)
    assert tools == [("a.tools", [ITEM]), ("a.functions", "[]")]


# --- nothing vanishes -------------------------------------------------------------------------

_CANARY = "카나리아"
_KNOWN = {
    **{key: f"{_CANARY}{key}" for key in module._UNREAD + module._MEDIA},
    **{key: f"{_CANARY}{key}" for key in (*module._REASONING, *module._SERVED_REASONING)},
    **{key: f"{_CANARY}{key}" for key in (*module._CONTENTS, "name")},
    **{key: [{"name": "f", "arguments": {"a": f"{_CANARY}{key}"}}] for key in module._CALLS},
    **{key: [{"name": f"{_CANARY}{key}"}] for key in ("tools", "functions")},
    "additional_kwargs": {"reasoning_content": f"{_CANARY}additional_kwargs"},
}


@given(
    role=st.sampled_from(["system", "user", "assistant", "gpt", "tool", "observation", "model"]),
    where=st.sampled_from(["role", "from"]),
    keys=st.sets(st.sampled_from(sorted(_KNOWN))),
)
def test_no_key_vanishes_in_silence(role: str, where: str, keys: set[str]) -> None:
    turn = {where: role, **{key: _KNOWN[key] for key in sorted(keys)}}
    conversation, problems = read_row({"messages": [turn, USER, ANSWER]})
    assert isinstance(conversation, Conversation)
    kept = json.dumps([conversation.messages, conversation.tools], ensure_ascii=False)
    said = [p.message for p in problems]
    assert not [text for text in said if _CANARY in text]
    refused = any(problem.severity == "error" for problem in problems)
    for key in keys:
        named = any(re.search(rf"\b{key}\b", text) for text in said)
        assert refused or f'{_CANARY}{key}"' in kept or named, (key, said)


def test_what_says_nothing_is_not_reported() -> None:
    empty = dict.fromkeys(
        (*module._UNREAD, *module._MEDIA, *module._REASONING, *module._CALLS, "tools", "name")
    )
    beside = {"id": 3, "source": "web", "eot": True, "status": "completed", "type": "message"}
    assert read({**ANSWER, **empty, **beside})[1] == []
    assert read({**ANSWER, **dict.fromkeys(empty, False), "images": []})[1] == []


@pytest.mark.parametrize("key", ["thinking", "thought", "reasoning_details"])
def test_reasoning_beside_the_text_is_named(key: str) -> None:
    _, (problem,) = read({**ANSWER, key: "왜"})
    assert problem.startswith(f"reasoning-unseen: turns[0]: {key} is never shown")
    parts = [{"type": "thinking", "thinking": "왜"}, {"type": "text", "text": "세 개"}]
    _, (problem,) = read({"role": "assistant", "content": parts})
    assert problem.startswith("reasoning-unseen: turns[0].content[0]")


@pytest.mark.parametrize(
    "turn",
    [{**ANSWER, "eot": False}, {"role": "tool", "content": "x", "status": "error"}],
)
def test_flags_that_say_what_nobody_is_shown_are_named(turn: dict[str, Any]) -> None:
    _, (problem,) = read(turn)
    assert problem.startswith("unread-key: turns[0]: the key ")


_values = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
_wild = st.recursive(
    _values,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [*_KNOWN, *module._USED, "toolUse", "toolResult", "functionCall", "data"]
            ),
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


@pytest.mark.parametrize(
    ("role", "hint"),
    [
        ("usr", "did you mean user?"),
        (" Asistant", "did you mean assistant?"),
        (3, "expected one of"),
    ],
)
def test_an_unknown_role_names_the_nearest(role: Any, hint: str) -> None:
    problem = bad_role("messages[0]", role, ["user", "assistant"])
    assert problem.code == "bad-role"
    assert problem.message.startswith("messages[0]: ")
    assert hint in problem.message


@pytest.mark.parametrize("key", ["toolCalls", "tool_call", "functionCall", "toolUse", "tool_use"])
def test_calls_by_other_names_are_calls(tiny: AxTokenizer, key: str) -> None:
    turn = {"role": "assistant", "content": "봅니다.", key: {"name": "f", "args": {"a": 1}}}
    row = {"messages": [{"role": "user", "content": "q"}, turn], "tools": [tool("f")]}
    (checked,) = check_rows(tiny, [row])
    (sample,) = checked.samples
    assert '<tool_call>{"name": "f", "arguments": {"a": 1}}' in tiny.decode(sample.input_ids)


@pytest.mark.parametrize("key", ["channel", "recipient", "toolInvocations", "actions"])
def test_what_a_turn_calls_in_a_form_that_is_not_read_is_named(tiny: AxTokenizer, key: str) -> None:
    turn = {"role": "assistant", "content": "봅니다.", key: "functions.f"}
    row = {"messages": [{"role": "user", "content": "q"}, turn]}
    (checked,) = check_rows(tiny, [row])
    assert codes(checked, "warning") == ["unread-key"]


def test_several_texts_of_one_turn_are_refused(tiny: AxTokenizer) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": ["좋은 답", "나쁜 답"]}]
    (checked,) = check_rows(tiny, [{"conversations": turns}])
    assert codes(checked) == ["bad-content"]


# --- the AI SDK, tables, other names ----------------------------------------------------------


def ui(*parts: Any, **keys: Any) -> dict[str, Any]:
    """An assistant's turn of the AI SDK."""
    return {"id": "m", "role": "assistant", "parts": list(parts), **keys}


STEP = {"type": "step-start"}
ASKED = {"type": "tool-get_stock", "toolCallId": "c", "input": {"sku": "HB-100"}}
TOLD = {**ASKED, "state": "output-available", "output": {"n": 3, "이름": "펜"}}


def test_a_turn_of_the_ai_sdk_is_calls_results_and_text() -> None:
    call = {**ITEM, "id": "c"}
    result = {"role": "tool", "content": '{"n":3,"이름":"펜"}', "tool_call_id": "c"}
    older = {
        "type": "tool-invocation",
        "toolInvocation": {
            "state": "result",
            "toolCallId": "c",
            "toolName": "get_stock",
            "args": {"sku": "HB-100"},
            "result": {"n": 3, "이름": "펜"},
        },
    }
    dynamic = {**TOLD, "type": "dynamic-tool", "toolName": "get_stock"}
    said = {"type": "text", "text": "세 개"}
    for told in (TOLD, older, dynamic):
        for turn in (
            ui(STEP, told, STEP, said),
            ui(told, said),
            ui(STEP, told, STEP, said, content="세 개", toolInvocations=[{}]),
        ):
            messages, problems = read(turn)
            assert problems == []
            asked, told_message, answered = messages
            assert asked["tool_calls"] == [call]
            assert told_message == result
            assert answered["content"] == [said["text"]]


def test_calls_of_one_step_of_the_ai_sdk_are_parallel() -> None:
    other = {**TOLD, "toolCallId": "d", "output": "없음"}
    messages, problems = read(ui(STEP, TOLD, other))
    assert problems == []
    assert [len(m.get("tool_calls", [])) for m in messages] == [2, 0, 0]
    assert [m["content"] for m in messages[1:]] == ['{"n":3,"이름":"펜"}', "없음"]
    messages, _ = read(ui(STEP, TOLD, STEP, other))
    assert [m["role"] for m in messages] == ["assistant", "tool", "assistant", "tool"]


def test_a_call_of_the_ai_sdk_may_wait_or_fail() -> None:
    (message,), problems = read(ui(ASKED))
    assert (len(message["tool_calls"]), problems) == (1, [])
    messages, problems = read(ui({**ASKED, "state": "output-error", "errorText": "없는 품번"}))
    assert (messages[1]["content"], problems) == ("없는 품번", [])


def test_what_the_ai_sdk_shows_no_model_is_named() -> None:
    said = {"type": "text", "text": "세 개"}
    for part in ({"type": "source-url", "url": "u"}, {"type": "data-weather", "data": {}}):
        (message,), (problem,) = read(ui(said, part))
        assert message["content"] == ["세 개"]
        assert problem.startswith("unread-key: turns[0].content[1]")
    _, problems = read(ui({"type": "file", "url": "u"}))
    assert problems[0].startswith("bad-content")


def test_keys_that_a_table_filled_with_null_say_nothing() -> None:
    empty = {"text": None, "functionCall": None, "functionResponse": None}
    call = {**empty, "functionCall": {"name": "get_stock", "args": {"sku": "HB-100"}}}
    turn = {"role": "model", "parts": [{**empty, "text": "볼게요"}, call, empty]}
    message = one(turn)
    assert (message["content"], message["tool_calls"]) == (["볼게요"], [ITEM])


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


def test_the_role_tools_may_be_two_things() -> None:
    _, (problem,) = read({"role": "tools", "content": "[]"})
    assert "a result with the role tool, and the tools themselves at the row's key" in problem
