"""Messages, the places where they stand, and what tools call the roles in them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from axtune.errors import Problem

Message = dict[str, Any]
# A turn as a row has it, or a message, with the place where it stands.
Placed = tuple[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")

# What each tool calls a role, in lower case (Cohere writes CHATBOT) and without hyphens.
ROLE_NAMES = {
    **{role: role for role in ROLES},
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "environment": "tool",
    "function_response": "tool",
    "function_result": "tool",
    "function_call_output": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "tool_output": "tool",
}
# Roles of turns that are calls: part of the assistant's turn before them, if that is open.
CALL_ROLES = ("function_call", "tool_call")
SHAREGPT_ROLES = ("system", "human", "gpt", "function_call", "observation", "tool")


def bad_role(place: str, role: Any, known: Iterable[str]) -> Problem:
    """The problem of a role that is none of the known ones, with the one it is most like."""
    names = list(known)
    close = (
        difflib.get_close_matches(role.strip().lower(), names, 1, 0.5)
        if isinstance(role, str)
        else []
    )
    hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names)}."
    if role == "tools":  # what some call results, and some the tools themselves
        hint = "write a result with the role tool, and the tools themselves at the row's key tools."
    return Problem("bad-role", f"{place}: unknown role; {hint}")


def known_role(written: str) -> str | None:
    """The role that some tool calls so; ``tool_call`` of a turn that is calls."""
    name = written.lower().replace("-", "_")
    return "tool_call" if name in CALL_ROLES else ROLE_NAMES.get(name)
