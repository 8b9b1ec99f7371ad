"""Roles that no tool has are refused, with the one they are most like."""

from __future__ import annotations

from typing import Any

import pytest
from support.turns import read

from axtune.data.messages import bad_role, known_role


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


def test_the_role_tools_may_be_two_things() -> None:
    _, (problem,) = read({"role": "tools", "content": "[]"})
    assert "a result with the role tool, and the tools themselves at the row's key" in problem


def test_roles_are_known_in_any_case_and_with_hyphens() -> None:
    assert known_role("CHATBOT") == "assistant"
    assert known_role("Function-Response") == "tool"
    assert known_role("function_call") == known_role("tool-call") == "tool_call"
    assert known_role("robot") is None
