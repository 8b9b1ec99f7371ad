"""No column that means something in some tool vanishes in silence."""

from __future__ import annotations

from typing import Any

import pytest
from support.rows import chat

from axtune.data.unread_columns import KNOWN, unread_columns


@pytest.mark.parametrize("key", sorted(KNOWN))
def test_every_known_column_is_named_or_refused(key: str) -> None:
    turns = chat("q", "a")["messages"]
    (problem,) = unread_columns({key: "다른 말"}, "chat", turns, None)
    assert key in problem.message
    assert "다른 말" not in problem.message
    assert not list(unread_columns({key: ""}, "chat", turns, None))


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"id": 3, "source": "web", "timestamp": "2026"}, []),
        ({"System": "s"}, ["not read: System;"]),
        ({"metadata": {"system_prompt": "s"}}, ["not read: metadata.system_prompt;"]),
        ({"label": "billing", "score": 1}, ["not read: label;", "not read: score;"]),
    ],
)
def test_what_is_named(beside: dict[str, Any], said: list[str]) -> None:
    found = unread_columns(beside, "chat", chat("q", "a")["messages"], None)
    for problem, text in zip(found, said, strict=True):
        assert problem.message.startswith(text)
