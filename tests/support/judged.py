"""Rows whose answers somebody judged, and the preferences that they become."""

from __future__ import annotations

from typing import Any

from axtune.data.conversation import Conversation
from axtune.data.parse import PreferenceRow, read_row
from support.rows import tool

ASKED = {"role": "user", "content": "창원 점심은요?"}

GOOD = {"role": "assistant", "content": "닭곰탕입니다."}

BAD = {"role": "assistant", "content": "모릅니다."}

SYSTEM = {"role": "system", "content": "존댓말로."}

MENU = tool("menu", {"type": "object", "properties": {"site": {"type": "string"}}})


def good(row: Any, **options: Any) -> PreferenceRow:
    read, problems = read_row(row, **options)
    assert isinstance(read, PreferenceRow), problems
    assert [problem for problem in problems if problem.severity == "error"] == []
    return read


def bad(row: Any, **options: Any) -> list[str]:
    _, problems = read_row(row, **options)
    return [problem.code for problem in problems if problem.severity == "error"]


def said(conversation: Conversation | None) -> list[tuple[str, str]]:
    assert conversation is not None
    return [(message["role"], message["content"]) for message in conversation.messages]


def as_turns(*messages: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


def whole(prompt: list[Any], good: Any = GOOD, bad: Any = BAD) -> dict[str, Any]:
    return {"chosen": [*prompt, good], "rejected": [*prompt, bad]}


TEXT = {"chosen": GOOD["content"], "rejected": BAD["content"]}

FROM = {
    "chosen": {"from": "gpt", "value": GOOD["content"]},
    "rejected": {"from": "gpt", "value": BAD["content"]},
}
