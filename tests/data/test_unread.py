"""No key that means something in some tool vanishes in silence."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import check_rows, codes
from support.turns import ANSWER, USER, read

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data import turn_calls, turns, unread
from axtune.data.conversation import Conversation
from axtune.data.parse import read_row

_CANARY = "카나리아"
_KNOWN = {
    **{key: f"{_CANARY}{key}" for key in unread._UNREAD + unread._MEDIA},
    **{key: f"{_CANARY}{key}" for key in (*unread.REASONING, *unread.SERVED_REASONING)},
    **{key: f"{_CANARY}{key}" for key in (*turns._CONTENTS, "name")},
    **{key: [{"name": "f", "arguments": {"a": f"{_CANARY}{key}"}}] for key in turn_calls.CALL_KEYS},
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
        (*unread._UNREAD, *unread._MEDIA, *unread.REASONING, *turn_calls.CALL_KEYS, "tools", "name")
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


@pytest.mark.parametrize("key", ["channel", "recipient", "toolInvocations", "actions"])
def test_what_a_turn_calls_in_a_form_that_is_not_read_is_named(tiny: AxTokenizer, key: str) -> None:
    turn = {"role": "assistant", "content": "봅니다.", key: "functions.f"}
    row = {"messages": [{"role": "user", "content": "q"}, turn]}
    (checked,) = check_rows(tiny, [row])
    assert codes(checked, "warning") == ["unread-key"]


@pytest.mark.parametrize("key", ["api_call", "calls", "action", "actions", "invalid_tool_calls"])
def test_calls_under_a_key_that_is_not_read_refuse_the_row(key: str) -> None:
    call = {"name": "f", "arguments": {"a": 1}}
    for calls in (call, [call]):
        _, (problem,) = read({**ANSWER, key: calls})
        assert problem.startswith(f"bad-tool-calls: turns[0]: the key {key} holds calls")
    _, (problem,) = read({**ANSWER, key: "f(a=1)"})
    assert problem.startswith("unread-key")


def test_a_turn_of_harmony_is_a_thought_a_call_or_an_answer(tiny: AxTokenizer) -> None:
    user = {"role": "user", "content": "q"}
    thought = {"role": "assistant", "channel": "analysis", "content": "왜"}
    answer = {"role": "assistant", "channel": "final", "content": "답"}
    (checked,) = check_rows(tiny, [{"messages": [user, thought, answer]}])
    assert codes(checked, "warning") == ["reasoning-unseen"]
    (plain,) = check_rows(tiny, [{"messages": [user, {"role": "assistant", "content": "답"}]}])
    assert checked.samples == plain.samples
    call = {"role": "assistant", "channel": "commentary", "recipient": "functions.f"}
    (checked,) = check_rows(tiny, [{"messages": [user, {**call, "content": '{"x": 1}'}]}])
    assert "bad-tool-calls" in codes(checked)
