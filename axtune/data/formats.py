"""The shapes that rows have, and how each becomes a list of messages.

Recognised by their keys:

- preference: ``chosen`` and ``rejected``, each a text, a message, or a list of messages, behind a
  prompt (see `_open_prompt`) or as whole conversations; or OpenAI's ``preferred_output`` and
  ``non_preferred_output`` behind ``input``
- unpaired_preference: ``prompt``, ``completion`` and ``label``; or one of the shapes below with
  LLaMA-Factory's ``kto_tag``
- chat: ``messages`` (OpenAI), optional ``tools``
- sharegpt: ``conversations`` of ``from``/``value``
- alpaca: ``instruction`` and ``output``, optional ``input``, ``system``, ``history``
- prompt_completion: ``prompt`` and ``completion``, each a text or a list of messages
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from axtune.data.hermes import parse_json, parse_literal
from axtune.errors import Problem

Message = dict[str, Any]
# A message as a row has it, with the place where it stands.
Placed = tuple[str, Any]
# Messages as a row has them; and the row's tools.
RawRow = tuple[list[Placed], Any]


class RawAnswer(NamedTuple):
    """What stands at a key such as ``chosen``; no turns when that is nothing."""

    key: str
    turns: list[Placed]


@dataclass(slots=True)
class RawPreference:
    """Answers that somebody has judged, as a row has them.

    Attributes:
        prompt: Its messages; None when the answers are whole conversations.
        chosen: The answer that is preferred, or the only one when its label is true; else None.
        rejected: The other answer, or the only one when its label is false; else None.
        tools: The row's.
    """

    prompt: list[Placed] | None
    chosen: RawAnswer | None
    rejected: RawAnswer | None
    tools: Any


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

_LEARNED_KEYS = {
    "chat": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
}
_JUDGED_KEYS = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
_LABEL_KEYS = ("kto_tag", "label")


def open_row(row: Any, row_format: str, problems: list[Problem]) -> RawRow | RawPreference | None:
    """A row's messages and tools, not normalised yet.

    Args:
        row: A parsed JSON value.
        row_format: A shape's name, or ``auto`` to recognise it by the row's keys.
        problems: Appended to.

    Returns:
        None when the shape is unknown.
    """
    if not isinstance(row, dict):
        problems.append(
            Problem("not-an-object", 'expected a JSON object such as {"messages": […]}.')
        )
        return None
    shape = _shape(row) if row_format == "auto" else row_format
    if shape is None:
        message = (
            "no known shape; expected the keys messages, conversations, instruction and output, "
            "prompt and completion, or chosen and rejected; see data_templates/README.md."
        )
        problems.append(Problem("unknown-shape", message))
        return None
    if shape == "preference":
        return _open_preference(row, problems)
    if shape == "unpaired_preference":
        return _open_unpaired(row, problems)
    if missing := [key for key in _LEARNED_KEYS[shape] if key not in row]:
        problems.append(_lacking(shape, missing[0]))
        return None
    return _OPENERS[shape](row, problems)


def _shape(row: dict[str, Any]) -> str | None:
    """The shape that a row's keys say. A judgement of null, as tables write it, is none."""
    for keys in _JUDGED_KEYS:
        if all(key in row for key in keys) and any(row[key] is not None for key in keys):
            return "preference"
    learned = _learned_shape(row)
    if learned and row.get("kto_tag") is not None:
        return "unpaired_preference"
    if learned == "prompt_completion" and row.get("label") is not None:
        return "unpaired_preference"
    return learned


def _learned_shape(row: dict[str, Any]) -> str | None:
    shapes = _LEARNED_KEYS.items()
    return next((shape for shape, keys in shapes if all(key in row for key in keys)), None)


def _lacking(shape: str, key: str) -> Problem:
    message = f"data.format is {shape}, and the row has no key {key}."
    return Problem("unknown-shape", message)


# --- answers that were judged -----------------------------------------------------------------


def _open_preference(row: dict[str, Any], problems: list[Problem]) -> RawPreference | None:
    keys = next((keys for keys in _JUDGED_KEYS if row.keys() & set(keys)), _JUDGED_KEYS[0])
    if missing := [key for key in keys if key not in row]:
        problems.append(_lacking("preference", missing[0]))
        return None
    prompt, tools = _open_prompt(row, problems)
    chosen, rejected = (_open_answer(row, key, prompt is None, problems) for key in keys)
    return RawPreference(prompt, chosen, rejected, tools)


def _open_unpaired(row: dict[str, Any], problems: list[Problem]) -> RawPreference | None:
    key = next((key for key in _LABEL_KEYS if row.get(key) is not None), None)
    shape = _learned_shape(row)
    if key is None or shape is None:
        problems.append(_lacking("unpaired_preference", "completion" if key else "label"))
        return None
    if shape == "prompt_completion":
        given, tools = _open_prompt(row, problems)
        prompt, answer = given or [], _open_answer(row, "completion", False, problems)
    else:  # the last turn was judged
        raw, tools = _OPENERS[shape](row, problems)
        prompt, answer = raw[:-1], RawAnswer(raw[-1][0] if raw else shape, raw[-1:])
    label = row[key]
    if isinstance(label, str):  # CSV has no booleans
        label = {"true": True, "false": False}.get(label.strip().lower(), label)
    if not isinstance(label, bool):
        message = f"{key}: expected true or false"
        if shape == "prompt_completion":
            message += "; data.format: prompt_completion reads the row without it"
        problems.append(Problem("bad-label", f"{message}."))
    return RawPreference(
        prompt, answer if label is True else None, None if label is True else answer, tools
    )


def _open_prompt(row: dict[str, Any], problems: list[Problem]) -> tuple[list[Placed] | None, Any]:
    """What stands before the answers, and the tools.

    ``prompt``, ``question`` or ``input``, a text (with ``system``), messages, or OpenAI's object of
    both messages and tools; ``conversations``; ``instruction``; or ``messages``.
    """
    tools = row.get("tools")
    system = _system(row)
    if "instruction" in row and "prompt" not in row:
        return _open_instruction(row, problems), tools
    for key in ("prompt", "question", "input"):
        value = _text_or_messages(row.get(key))
        if isinstance(value, dict) and "messages" in value:
            turns = _placed(value["messages"], f"{key}.messages", problems)
            return turns, value.get("tools", tools)
        if isinstance(value, str):
            return [*system, (key, {"role": "user", "content": value})], tools
        if value is not None:
            return _any_turns(_placed(value, key, problems), problems), tools
    if row.get("conversations") is not None:
        turns = _placed(row["conversations"], "conversations", problems)
        return [*system, *_any_turns(turns, problems)], tools
    if row.get("messages") is not None:
        return _placed(row["messages"], "messages", problems), tools
    return None, tools


def _open_answer(row: dict[str, Any], key: str, whole: bool, problems: list[Problem]) -> RawAnswer:
    """An answer, or with `whole` a conversation that ends with one."""
    value = _text_or_messages(row[key])
    if value is None or value in ("", []):
        return RawAnswer(key, [])
    if isinstance(value, dict):
        return RawAnswer(key, _any_turns([(key, value)], problems))
    if isinstance(value, str):
        if not whole:
            return RawAnswer(key, [(key, {"role": "assistant", "content": value})])
        message = f"{key}: a text needs a prompt in the same row (prompt, question or instruction)."
        problems.append(Problem("bad-messages", message))
        return RawAnswer(key, [])
    return RawAnswer(key, _any_turns(_placed(value, key, problems), problems))


def _text_or_messages(value: Any) -> Any:
    """A value as it is, but messages that a table holds as text (JSON, or Python's) as a list."""
    if isinstance(value, str) and value.startswith("[{") and value.rstrip().endswith("}]"):
        with suppress(ValueError):
            turns = parse_literal(value)
            if all(isinstance(turn, dict) and turn.keys() & {"role", "from"} for turn in turns):
                return turns
    return value


def _any_turns(turns: list[Placed], problems: list[Problem]) -> list[Placed]:
    """Turns of role and content as they are, those of from and value opened."""
    out: list[Placed] = []
    for place, turn in turns:
        if not isinstance(turn, dict) or "from" not in turn:
            out.append((place, turn))
        elif message := _open_turn(place, turn, problems):
            out.append((place, message))
    return out


# --- conversations to learn -------------------------------------------------------------------


def _open_chat(row: dict[str, Any], problems: list[Problem]) -> RawRow:
    return _placed(row["messages"], "messages", problems), row.get("tools")


def _open_sharegpt(row: dict[str, Any], problems: list[Problem]) -> RawRow:
    raw = _system(row)
    for place, turn in _placed(row["conversations"], "conversations", problems):
        if message := _open_turn(place, turn, problems):
            raw.append((place, message))
    return raw, row.get("tools")


def _system(row: dict[str, Any]) -> list[Placed]:
    """The turn that a key ``system`` stands for."""
    if isinstance(row.get("system"), str) and row["system"]:
        return [("system", {"role": "system", "content": row["system"]})]
    return []


def _open_turn(place: str, turn: Any, problems: list[Problem]) -> Message | None:
    """A message of a turn of ``from`` and ``value``."""
    if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
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


def _open_alpaca(row: dict[str, Any], problems: list[Problem]) -> RawRow:
    raw = _open_instruction(row, problems)
    raw.append(("output", {"role": "assistant", "content": row["output"]}))
    return raw, row.get("tools")


def _open_instruction(row: dict[str, Any], problems: list[Problem]) -> list[Placed]:
    raw: list[Placed] = []
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
            return raw
    question = "\n".join(filter(None, (row["instruction"], row.get("input"))))
    raw.append(("instruction", {"role": "user", "content": question}))
    return raw


def _open_prompt_completion(row: dict[str, Any], problems: list[Problem]) -> RawRow:
    raw: list[Placed] = []
    for key, role in (("prompt", "user"), ("completion", "assistant")):
        value = row[key]
        if isinstance(value, str):
            raw.append((key, {"role": role, "content": value}))
            continue
        for place, message in _placed(value, key, problems):
            if role == "user" and isinstance(message, dict) and message.get("role") == "assistant":
                message = {"weight": 0, **message}  # the prompt is context, not to be labelled
            raw.append((place, message))
    return raw, row.get("tools")


_OPENERS: dict[str, Callable[[dict[str, Any], list[Problem]], RawRow]] = {
    "chat": _open_chat,
    "sharegpt": _open_sharegpt,
    "alpaca": _open_alpaca,
    "prompt_completion": _open_prompt_completion,
}


def _placed(value: Any, key: str, problems: list[Problem]) -> list[Placed]:
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
