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

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from axtune.data.literals import parse_json, parse_literal
from axtune.data.tools import row_tools
from axtune.data.traces import open_trace
from axtune.data.turns import Placed, as_context
from axtune.errors import Problem

# Turns as a row has them, for `axtune.data.turns.read_turns`; and the row's tools.
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
    if shape is None and (trace := open_trace(row, problems)):
        return trace
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
    tools = row_tools(row)
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
            return _placed(value, key, problems), tools
    if row.get("conversations") is not None:
        turns = _placed(row["conversations"], "conversations", problems)
        return [*system, *turns], tools
    if row.get("messages") is not None:
        return _placed(row["messages"], "messages", problems), tools
    return None, tools


def _open_answer(row: dict[str, Any], key: str, whole: bool, problems: list[Problem]) -> RawAnswer:
    """An answer, or with `whole` a conversation that ends with one."""
    value = _text_or_messages(row[key])
    if value is None or value in ("", []):
        return RawAnswer(key, [])
    if isinstance(value, dict):
        return RawAnswer(key, [(key, value)])
    if isinstance(value, str):
        if not whole:
            return RawAnswer(key, [(key, {"role": "assistant", "content": value})])
        message = f"{key}: a text needs a prompt in the same row (prompt, question or instruction)."
        problems.append(Problem("bad-messages", message))
        return RawAnswer(key, [])
    return RawAnswer(key, _placed(value, key, problems))


def _text_or_messages(value: Any) -> Any:
    """A value as it is, but messages that a table holds as text (JSON, or Python's) as a list."""
    if isinstance(value, str) and value.startswith("[{") and value.rstrip().endswith("}]"):
        with suppress(ValueError):
            turns = parse_literal(value)
            if all(isinstance(turn, dict) and turn.keys() & {"role", "from"} for turn in turns):
                return turns
    return value


# --- conversations to learn -------------------------------------------------------------------


def _open_chat(row: dict[str, Any], problems: list[Problem]) -> RawRow:
    return _placed(row["messages"], "messages", problems), row_tools(row)


def _open_sharegpt(row: dict[str, Any], problems: list[Problem]) -> RawRow:
    turns = _placed(row["conversations"], "conversations", problems)
    return [*_system(row), *turns], row_tools(row)


def _system(row: dict[str, Any]) -> list[Placed]:
    """The turn that a key ``system`` stands for."""
    if isinstance(row.get("system"), str) and row["system"]:
        return [("system", {"role": "system", "content": row["system"]})]
    return []


def _open_alpaca(row: dict[str, Any], problems: list[Problem]) -> RawRow:
    raw = _open_instruction(row, problems)
    raw.append(("output", {"role": "assistant", "content": row["output"]}))
    return raw, row_tools(row)


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
            # The prompt is context, not to be labelled.
            raw.append((place, as_context(message) if role == "user" else message))
    return raw, row_tools(row)


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
