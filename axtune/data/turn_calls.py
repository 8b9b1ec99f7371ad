"""The calls of a turn: beside its text, or in a turn of their own."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from axtune.data.calls import ArgumentsError, Call, read_call, read_written_calls
from axtune.data.labels import is_mark
from axtune.data.literals import parse_literal
from axtune.data.messages import Message, Placed
from axtune.data.unread import NOTHING, unread_key
from axtune.errors import Problem

CALL_KEYS = (
    "tool_calls", "function_call", "function_calls", "tool_call", "toolCalls", "toolCall",
    "functionCall", "toolUse", "tool_use",
)  # fmt: skip
_CALL_IDS = ("tool_call_id", "call_id", "tool_use_id", "toolCallId", "toolUseId")


def call_id(result: Message) -> Message:
    """The id of the call that a result answers, under its key in OpenAI's form."""
    ids = [result[key] for key in _CALL_IDS if isinstance(result.get(key), str)]
    return {"tool_call_id": ids[0]} if ids else {}


def read_call_turn(
    place: str, key: str | None, turn: Message, message: Message, problems: list[Problem]
) -> list[Placed]:
    """A turn that is calls: as JSON text or values, behind the assistant's thoughts perhaps.

    Args:
        place: Where the turn stands.
        key: Under which its content stands; None when the turn is the call itself.
        turn: As a row has it.
        message: Its role and whatever else a message has.
        problems: Appended to.

    Returns:
        The message with the calls; nothing when they cannot be read.
    """
    item = {name: value for name, value in turn.items() if not is_mark(name)}
    value = item if key is None else turn[key]
    at = place if key is None else f"{place}.{key}"
    text = ""
    if isinstance(value, str):
        if "<tool_call>" in value:  # Hermes text, taken apart later
            return [(place, {**message, "content": value, "tool_calls": []})]
        thought, end, rest = value.partition("</think>")
        if end and thought.lstrip().startswith("<think>"):
            text, value = (thought + end).strip(), rest
        try:
            value = read_written_calls(value)
        except ValueError:
            text = f'{at}: expected a call as JSON, {{"name", "arguments"}}, or a list of them.'
            problems.append(Problem("bad-tool-calls", text))
            return []
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        value = [part.get("text", part) if part.get("type") == "text" else part for part in value]
    calls = _call_items(at, value if isinstance(value, list) else [value], problems)
    return [(place, {**message, "content": text, "tool_calls": calls})]


def read_calls_beside(place: str, turn: Message, problems: list[Problem]) -> list[Any]:
    """The calls that stand beside a turn's text, in OpenAI's form.

    Args:
        place: Where the turn stands.
        turn: As a row has it.
        problems: Appended to.
    """
    holder = turn
    kwargs = turn.get("additional_kwargs")
    if isinstance(kwargs, dict) and not any(turn.get(key) for key in CALL_KEYS):
        holder = kwargs  # older LangChain
    read: list[Any] = []
    for key in CALL_KEYS:
        value = holder.get(key)
        if value in NOTHING:
            continue
        if isinstance(value, str):
            try:
                value = read_written_calls(value)
            except ValueError:
                text = f"{place}.{key}: expected a list of calls."
                problems.append(Problem("bad-tool-calls", text))
                continue
        if not isinstance(value, list):
            value = [value]
        calls = _call_items(f"{place}.{key}", value, problems)
        if read and [c["function"] for c in read] != [c["function"] for c in calls]:
            text = f"{place}: {key} and another key hold different calls; keep tool_calls."
            problems.append(Problem("bad-tool-calls", text))
        read = read or calls
    return read


def _call_items(at: str, calls: list[Any], problems: list[Problem]) -> list[Any]:
    """Calls in OpenAI's form; none when one of them is refused."""
    read = [call_at(f"{at}[{index}]", call, problems) for index, call in enumerate(calls)]
    items = [call.item for call in read if call]
    return items if len(items) == len(calls) else []


def call_at(at: str, call: Any, problems: list[Problem]) -> Call | None:
    """A call, or None with a problem when it cannot be read."""
    if isinstance(call, str) and call.lstrip().startswith("{"):  # in a table's list
        with suppress(ValueError):  # refused below
            call = parse_literal(call)
    try:
        read = read_call(call)
    except ArgumentsError as error:
        problems.append(Problem("bad-arguments", f"{at}: {error}."))
        return None
    except ValueError as error:
        problems.append(Problem("bad-tool-calls", f"{at}: {error}."))
        return None
    problems += [unread_key(at, key) for key in read.unread]
    return read
