"""The shapes that rows have, and how each becomes a list of messages.

Recognised by their keys:

- chat: ``messages`` (OpenAI), optional ``tools``
- sharegpt: ``conversations`` of ``from``/``value``
- alpaca: ``instruction`` and ``output``, optional ``input``, ``system``, ``history``
- prompt_completion: ``prompt`` and ``completion``, each a text or a list of messages
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from axtune.errors import Problem
from axtune.hermes import parse_json, parse_literal

Message = dict[str, Any]
# Messages as a row has them, each with the place where it stands; and the row's tools.
RawRow = tuple[list[tuple[str, Any]], Any]

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


def open_row(row: Any, row_format: str, problems: list[Problem]) -> RawRow | None:
    """A row's messages and tools, not normalised yet.

    Args:
        row: A parsed JSON value.
        row_format: A shape's name, or ``auto`` to recognise it by the row's keys.
        problems: Appended to.

    Returns:
        None when the shape is unknown.
    """
    shape = _shape(row, row_format, problems)
    return _OPENERS[shape](row, problems) if shape else None


def _shape(row: Any, row_format: str, problems: list[Problem]) -> str | None:
    if not isinstance(row, dict):
        problems.append(
            Problem("not-an-object", 'a row is a JSON object such as {"messages": […]}.')
        )
        return None
    keys = {
        "chat": ("messages",),
        "sharegpt": ("conversations",),
        "alpaca": ("instruction", "output"),
        "prompt_completion": ("prompt", "completion"),
    }
    if row_format != "auto":
        if missing := [key for key in keys[row_format] if key not in row]:
            message = f"data.format is {row_format}, and the row has no key {missing[0]}."
            problems.append(Problem("unknown-shape", message))
            return None
        return row_format
    for shape, needed in keys.items():
        if all(key in row for key in needed):
            return shape
    message = (
        "expected the keys messages, conversations, instruction and output, or prompt and "
        "completion; see data_templates/README.md."
    )
    problems.append(Problem("unknown-shape", message))
    return None


def _open_chat(row: dict[str, Any], problems: list[Problem]) -> RawRow:
    return _placed(row["messages"], "messages", problems), row.get("tools")


def _open_sharegpt(row: dict[str, Any], problems: list[Problem]) -> RawRow:
    raw: list[tuple[str, Any]] = []
    if isinstance(row.get("system"), str) and row["system"]:
        raw.append(("system", {"role": "system", "content": row["system"]}))
    for place, turn in _placed(row["conversations"], "conversations", problems):
        if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
            problems.append(Problem("bad-messages", f"{place}: expected keys from and value."))
            continue
        role = _SHAREGPT_ROLES.get(turn["from"]) if isinstance(turn["from"], str) else None
        if role is None:
            problems.append(bad_role(place, turn["from"], _SHAREGPT_ROLES))
            continue
        message: Message = {"role": role, "content": turn["value"]}
        if turn["from"] == "function_call" and isinstance(turn["value"], str):
            message = {"role": role, "content": None, "tool_calls": _bare_calls(turn["value"])}
        if "weight" in turn:
            message["weight"] = turn["weight"]
        raw.append((place, message))
    return raw, row.get("tools")


def _bare_calls(text: str) -> Any:
    """LLaMA-Factory's ``function_call``: one call or a list of them, as JSON text."""
    try:
        calls = parse_literal(text)
    except ValueError:
        return text  # no list: reported as bad-tool-calls
    calls = calls if isinstance(calls, list) else [calls]
    return [{"type": "function", "function": call} for call in calls]


def _open_alpaca(row: dict[str, Any], problems: list[Problem]) -> RawRow:
    raw: list[tuple[str, Any]] = []
    if row.get("system"):
        raw.append(("system", {"role": "system", "content": row["system"]}))
    if row.get("history") not in (None, "", []):
        for place, pair in _placed(row["history"], "history", problems):
            if not isinstance(pair, list) or len(pair) != 2:
                message = f"{place}: expected a pair of question and answer."
                problems.append(Problem("bad-messages", message))
                continue
            raw.append((f"{place}[0]", {"role": "user", "content": pair[0]}))
            raw.append((f"{place}[1]", {"role": "assistant", "content": pair[1]}))
    for key in ("instruction", "input"):
        if not isinstance(row.get(key), (str, type(None))):
            problems.append(Problem("bad-content", f"{key}: expected a text."))
            return raw, None
    question = "\n".join(filter(None, (row["instruction"], row.get("input"))))
    raw.append(("instruction", {"role": "user", "content": question}))
    raw.append(("output", {"role": "assistant", "content": row["output"]}))
    return raw, row.get("tools")


def _open_prompt_completion(row: dict[str, Any], problems: list[Problem]) -> RawRow:
    raw: list[tuple[str, Any]] = []
    for key, role in (("prompt", "user"), ("completion", "assistant")):
        value = row[key]
        if isinstance(value, str):
            raw.append((key, {"role": role, "content": value}))
            continue
        for place, message in _placed(value, key, problems):
            if role == "user" and isinstance(message, dict) and message.get("role") == "assistant":
                message = {"weight": 0, **message}  # the prompt is context, not to be learned
            raw.append((place, message))
    return raw, row.get("tools")


_OPENERS: dict[str, Callable[[dict[str, Any], list[Problem]], RawRow]] = {
    "chat": _open_chat,
    "sharegpt": _open_sharegpt,
    "alpaca": _open_alpaca,
    "prompt_completion": _open_prompt_completion,
}


def _placed(value: Any, key: str, problems: list[Problem]) -> list[tuple[str, Any]]:
    if isinstance(value, str):  # CSV and some Parquet files hold the list as JSON text
        with suppress(ValueError):
            value = parse_json(value)
    if not isinstance(value, list) or not value:
        problems.append(Problem("bad-messages", f"{key}: expected a list with at least one turn."))
        return []
    return [(f"{key}[{index}]", item) for index, item in enumerate(value)]


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
