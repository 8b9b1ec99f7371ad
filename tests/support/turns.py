"""Turns as tests write them, and the messages that they become."""

from __future__ import annotations

from typing import Any

from axtune.data.turns import read_turns
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
