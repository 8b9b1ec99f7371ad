"""Rows that are no list of turns: question and calls, a whole chat as text, requests and answers.

- xLAM and APIGen: ``query``, ``answers`` (calls) and ``tools``
- Glaive v2: ``system`` and ``chat``, texts
- OpenAI Responses: ``input`` and ``output``, of which the output is labelled
- Gemini: ``contents``, with ``systemInstruction``
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from axtune.data.labels import as_context
from axtune.data.literals import parse_json, parse_json_at
from axtune.data.messages import Placed
from axtune.data.tools import in_json_schema, take_tools
from axtune.errors import Problem

# Turns and tools, as `axtune.data.turns` and `axtune.data.tools` read them.
Trace = tuple[list[Placed], Any]

_GLAIVE_TURN = re.compile(r"(?:^|\n)\s*(USER|ASSISTANT|FUNCTION RESPONSE):")
_GLAIVE_ROLES = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
# What Glaive writes before the functions; the checkpoint's template says it in its own way.
_GLAIVE_PREAMBLE = re.compile(
    r"You are a helpful assistant with access to the following functions\. Use them if required -?"
)


def open_trace(row: dict[str, Any], problems: list[Problem]) -> Trace | None:
    """Take the turns and tools of such a row.

    Args:
        row: Its cells that say something; what is read is taken out.
        problems: Appended to.

    Returns:
        None when the row is none of these either.
    """
    for recognised, opener in _OPENERS:
        if recognised(row):
            return opener(row, problems)
    return None


def _system(key: str, value: Any) -> list[Placed]:
    return [] if value in (None, "", []) else [(key, {"role": "system", "content": value})]


def _values(value: Any) -> list[Any] | None:
    """The items of a list, also of one that is JSON text; None of anything else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value)
        except ValueError:
            return None
    return value if isinstance(value, list) else None


# --- xLAM -------------------------------------------------------------------------------------


def _is_xlam(row: dict[str, Any]) -> bool:
    return {"query", "answers"} <= row.keys() and isinstance(row["query"], str)


def _open_xlam(row: dict[str, Any], problems: list[Problem]) -> Trace:
    turns = _system("system", row.pop("system", None))
    turns.append(("query", {"role": "user", "content": row.pop("query")}))
    turns.append(("answers", {"role": "tool_call", "content": row.pop("answers")}))
    return turns, in_json_schema(take_tools(row), problems)


# --- Glaive -----------------------------------------------------------------------------------


def _is_glaive(row: dict[str, Any]) -> bool:
    chat = row.get("chat")
    return isinstance(chat, str) and _GLAIVE_TURN.match(chat) is not None


def _open_glaive(row: dict[str, Any], problems: list[Problem]) -> Trace:
    written = row.pop("system", None)
    system, tools = _glaive_system(written) if isinstance(written, str) else (written, None)
    turns = _system("system", system)
    _, *parts = _GLAIVE_TURN.split(row.pop("chat"))
    for number, (role, text) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        said = text.replace("<|endoftext|>", "").strip()
        turns.append((f"chat[{number}]", {"role": _GLAIVE_ROLES[role], "content": said}))
    return turns, tools or take_tools(row)


def _glaive_system(text: str) -> tuple[str, list[Any]]:
    """What a system text says, and its functions: JSON objects one behind the other."""
    text = text.strip().removeprefix("SYSTEM:").strip()
    tools: list[Any] = []
    begin = text.find("{")
    rest = text[begin:] if begin >= 0 else ""
    while rest.startswith("{"):
        try:
            tool, end = parse_json_at(rest, 0)
        except ValueError:
            tool, end = rest, len(rest)  # reported as bad-tools
        tools.append(tool)
        rest = rest[end:].lstrip()
    said = f"{text[:begin]}\n{rest}" if tools else text
    return _GLAIVE_PREAMBLE.sub("", said).strip(), tools


# --- OpenAI Responses -------------------------------------------------------------------------


def _is_responses(row: dict[str, Any]) -> bool:
    output = _values(row.get("output")) if "input" in row else None
    return bool(output) and all(isinstance(item, dict) and "type" in item for item in output or ())


def _open_responses(row: dict[str, Any], problems: list[Problem]) -> Trace:
    turns = _system("instructions", row.pop("instructions", None))
    written = row.pop("input")
    given = _values(written)
    if given is None:
        turns.append(("input", {"role": "user", "content": written}))
    else:  # the answers that it holds are context, not to be labelled
        turns += [(f"input[{n}]", as_context(item)) for n, item in enumerate(given)]
    answer = _values(row.pop("output")) or []
    turns += [(f"output[{n}]", item) for n, item in enumerate(answer)]
    return turns, take_tools(row)


# --- Gemini -----------------------------------------------------------------------------------


def _is_gemini(row: dict[str, Any]) -> bool:
    return isinstance(row.get("contents"), list)


def _open_gemini(row: dict[str, Any], problems: list[Problem]) -> Trace:
    turns: list[Placed] = []
    for key in ("systemInstruction", "system_instruction"):
        value = row.pop(key, None)
        turns += _system(
            key, value["parts"] if isinstance(value, dict) and "parts" in value else value
        )
    turns += [(f"contents[{n}]", turn) for n, turn in enumerate(row.pop("contents"))]
    return turns, take_tools(row)


_OPENERS: tuple[
    tuple[Callable[[dict[str, Any]], bool], Callable[[dict[str, Any], list[Problem]], Trace]], ...
] = (
    (_is_xlam, _open_xlam),
    (_is_glaive, _open_glaive),
    (_is_responses, _open_responses),
    (_is_gemini, _open_gemini),
)
