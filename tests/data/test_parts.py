"""Parts of a content become texts, calls and results, in their order."""

from __future__ import annotations

from typing import Any

import pytest
from support.turns import ANSWER, ITEM, one, read

from axtune.data.parse import read_row


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
