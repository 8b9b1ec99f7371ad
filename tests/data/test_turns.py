"""A turn of any tool becomes the message that a client would send."""

from __future__ import annotations

from typing import Any

import pytest

from axtune.data.turns import bad_role, read_turns
from axtune.errors import Problem


def test_turns_of_from_and_value_become_messages() -> None:
    problems: list[Problem] = []
    turns = [
        {"from": "human", "value": "a"},
        {"role": "assistant", "content": "b"},
        {"from": "gpt"},
    ]
    said = read_turns([(f"turns[{n}]", turn) for n, turn in enumerate(turns)], problems)
    assert said == [
        ("turns[0]", {"role": "user", "content": "a"}),
        ("turns[1]", {"role": "assistant", "content": "b"}),
    ]
    assert [problem.message.partition(":")[0] for problem in problems] == ["turns[2]"]


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
