"""What is marked in the words of any tool is labelled or not; what cannot be kept is named."""

from __future__ import annotations

from typing import Any

import pytest
from support.turns import ANSWER, USER, read

from axtune.data import labels
from axtune.data.conversation import Conversation
from axtune.data.labels import as_context
from axtune.data.parse import read_row


def learned(*turns: Any) -> list[str]:
    """What is labelled of a row."""
    conversation, problems = read_row({"messages": list(turns)})
    assert problems == []
    assert isinstance(conversation, Conversation)
    return [conversation.messages[n]["content"] for n in conversation.learn]


@pytest.mark.parametrize("key", [*labels.LABELLED, *labels.MASKED])
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
