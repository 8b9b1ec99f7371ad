"""A turn as any common tool writes it becomes an OpenAI message.

Which keys of a row hold turns is known to `axtune.data.formats`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from axtune.data.hermes import parse_literal
from axtune.errors import Problem

Message = dict[str, Any]
# A turn as a row has it, or a message, with the place where it stands.
Placed = tuple[str, Any]

_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}


def read_turns(turns: list[Placed], problems: list[Problem]) -> list[Placed]:
    """OpenAI messages of turns: those of role and content as they are, of from and value opened.

    Args:
        turns: As a row has them.
        problems: Appended to.
    """
    out: list[Placed] = []
    for place, turn in turns:
        if not isinstance(turn, dict) or "from" not in turn:
            out.append((place, turn))
        elif message := _open_turn(place, turn, problems):
            out.append((place, message))
    return out


def _open_turn(place: str, turn: Any, problems: list[Problem]) -> Message | None:
    """A message of a turn of ``from`` and ``value``."""
    if "value" not in turn:
        problems.append(Problem("bad-messages", f"{place}: expected keys from and value."))
        return None
    role = _SHAREGPT_ROLES.get(turn["from"]) if isinstance(turn["from"], str) else None
    if role is None:
        problems.append(bad_role(place, turn["from"], _SHAREGPT_ROLES))
        return None
    message: Message = {"role": role, "content": turn["value"]}
    if turn["from"] == "function_call" and isinstance(turn["value"], str):
        message = {"role": role, "content": None, "tool_calls": _bare_calls(turn["value"])}
    if "weight" in turn:
        message["weight"] = turn["weight"]
    return message


def _bare_calls(text: str) -> Any:
    """LLaMA-Factory's ``function_call``: one call or a list of them, as JSON text."""
    try:
        calls = parse_literal(text)
    except ValueError:
        return text  # no list: reported as bad-tool-calls
    calls = calls if isinstance(calls, list) else [calls]
    return [{"type": "function", "function": call} for call in calls]


def bad_role(place: str, role: Any, known: Iterable[str]) -> Problem:
    """The problem of a role that is none of the known ones, with the one it is most like."""
    names = list(known)
    close = (
        difflib.get_close_matches(role.strip().lower(), names, 1, 0.5)
        if isinstance(role, str)
        else []
    )
    hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names)}."
    return Problem("bad-role", f"{place}: unknown role; {hint}")
