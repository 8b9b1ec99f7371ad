"""The cells of a row: which of them say something, and messages that a table holds as text.

A CSV file and some Parquet files hold a list of messages as JSON text, as a list of JSON texts, as
Python's text of it (``DataFrame.to_csv``) or as NumPy's, which has no commas between the items.
"""

from __future__ import annotations

import io
import re
import tokenize
from typing import Any

from axtune.data.key_names import described
from axtune.data.literals import parse_json, parse_literal
from axtune.data.messages import Placed
from axtune.errors import Problem

# What tables fill the cells with that a row lacks, besides null.
NOTHING: tuple[Any, ...] = ("", [], {})

_SPEAKERS = ("system", "developer", "user", "human", "assistant", "gpt", "tool", "function")
# How a text begins that was a list of messages.
_TURNS = re.compile(r"""\[\s*\{\s*['"](role|content|from|value)['"]\s*:""")
# Where NumPy leaves out a comma. Inside a string it may look the same: see `_with_commas`.
_NO_COMMA = re.compile(r"""[}\]'"]\s+[{\['"]""")
# A conversation in one text, as hh-rlhf writes it.
_TRANSCRIPT = re.compile(r"\n\nHuman:|\s*Human:.*\n\nAssistant:", re.DOTALL)
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def not_null(row: dict[str, Any]) -> dict[str, Any]:
    """The cells of a row without those that are null (or NaN, as tables of numbers write it)."""
    return {key: value for key, value in row.items() if value is not None and value == value}


def says(value: Any) -> bool:
    """Whether a cell says something."""
    return value is not None and value not in NOTHING


def text_of(turn: Any) -> Any:
    """What a turn says, whatever tool wrote it."""
    if not isinstance(turn, dict):
        return None
    return turn.get("content", turn.get("value", turn.get("text")))


def speaker_of(turn: Any) -> Any:
    """Who says a turn, by the name that its tool uses."""
    if not isinstance(turn, dict):
        return None
    return turn.get("role", turn.get("from", turn.get("speaker", turn.get("sender"))))


def placed(value: Any, key: str, problems: list[Problem]) -> list[Placed]:
    """The turns of a list at a key, each with its place.

    Args:
        value: A list of turns, or one of the texts that tables make of it.
        key: Where it stands in the row.
        problems: Appended to.

    Returns:
        No turns when there is no list.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = parse_list(value)
        except ValueError:
            problems.append(_no_list(key))
            return []
    if isinstance(value, dict):  # a list of objects, as `datasets.Sequence` stores it
        value = _rows_of_columns(value)
    if not isinstance(value, list) or not value:
        text = f"{key}: expected a list with at least one turn, found {described(value)}."
        problems.append(Problem("bad-messages", text))
        return []
    return [
        (f"{key}[{index}]", item if isinstance(item, dict) else _object(item))
        for index, item in enumerate(value)
    ]


def text_or_turns(value: Any, key: str, problems: list[Problem]) -> Any:
    """A cell that may be a text or messages: messages that became a text are messages again.

    Args:
        value: The cell.
        key: Where it stands in the row.
        problems: Appended to.

    Returns:
        A text; a turn; a list of turns; the value as it is; or None, with a problem.
    """
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        if all(isinstance(_object(item), dict) for item in value):
            return value  # JSON texts, see `placed`
        message = (
            f"{key}: a list of {len(value)} texts; expected one text or a list of messages. Give "
            "each answer a row of its own, or a pair the keys chosen and rejected."
        )
        problems.append(Problem("bad-content", message))
        return None
    if not isinstance(value, str):
        return _rows_of_columns(value) if isinstance(value, dict) else value
    text = value.strip()
    if text[:1] == "[" and text[-1:] == "]":
        try:
            turns = [_object(turn) for turn in parse_list(text)]
        except ValueError:
            if _TURNS.match(text):
                problems.append(_no_list(key))
                return None
            return value
        return turns if turns and all(map(_is_turn, turns)) else value
    if text[:1] == "{" and text[-1:] == "}" and ("role" in text or "from" in text):
        turn = _object(text)
        return turn if _is_turn(turn) and speaker_of(turn) in _SPEAKERS else value
    return _transcript(value, key, problems) if is_transcript(value) else value


def is_transcript(value: Any) -> bool:
    """Whether a cell is a conversation in one text, as hh-rlhf writes it."""
    return isinstance(value, str) and "Human:" in value and _TRANSCRIPT.match(value) is not None


def parse_list(text: str) -> list[Any]:
    """A list of the text that JSON, Python or NumPy makes of it.

    Raises:
        ValueError: When the text is none of these.
    """
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError("no list")
    try:
        value = parse_json(text)
    except ValueError:
        value = parse_literal(_with_commas(text) if _NO_COMMA.search(text) else text)
    if not isinstance(value, list):
        raise ValueError("no list")
    return value


def _with_commas(text: str) -> str:
    """Python's text with a comma between any two values that lack one.

    Raises:
        ValueError: When the text is not made of Python's tokens.
    """
    begins = [0]
    for line in text.split("\n"):
        begins.append(begins[-1] + len(line) + 1)
    parts: list[str] = []
    copied = 0
    closed = False
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NL:
                continue
            if closed and (token.string in ("{", "[") or token.type == tokenize.STRING):
                at = begins[token.start[0] - 1] + token.start[1]
                parts += [text[copied:at], ","]
                copied = at
            closed = token.string in ("}", "]") or token.type == tokenize.STRING
    except (tokenize.TokenError, SyntaxError):
        raise ValueError("not Python") from None
    return "".join([*parts, text[copied:]])


def table_tools(tools: Any) -> Any:
    """A row's tools, where a table made Python's or NumPy's text of the list or of its items."""
    if isinstance(tools, str) and tools.strip().startswith("["):
        try:
            tools = parse_list(tools)
        except ValueError:
            return tools  # reported as bad-tools
    return [_object(tool) for tool in tools] if isinstance(tools, list) else tools


def _object(item: Any) -> Any:
    """An object of its text, JSON or Python's; all else as it is."""
    if not isinstance(item, str) or not item.lstrip().startswith("{"):
        return item
    try:
        value = parse_literal(item.strip())
    except ValueError:
        return item
    return value if isinstance(value, dict) else item


def _rows_of_columns(columns: dict[str, Any]) -> Any:
    if not columns.keys() & {"role", "from"}:
        return columns
    lists = [cells for cells in columns.values() if isinstance(cells, list)]
    if len(lists) < len(columns) or len({len(cells) for cells in lists}) != 1:
        return columns
    return [not_null(dict(zip(columns, cells, strict=True))) for cells in zip(*lists, strict=True)]


def _is_turn(turn: Any) -> bool:
    """Whether an object is a turn, rather than data that happens to have a role."""
    return isinstance(turn, dict) and (
        ("role" in turn and ("content" in turn or "tool_calls" in turn))
        or ("from" in turn and "value" in turn)
    )


def _transcript(text: str, key: str, problems: list[Problem]) -> list[dict[str, Any]] | None:
    """The turns of a conversation in one text; the assistant's last may still be to come."""
    _, *parts = _SPEAKER.split(f"\n\n{text.strip()}")
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [
        {"role": roles[speaker], "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    if turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()
    alternate = [("user", "assistant")[index % 2] for index in range(len(turns))]
    if [turn["role"] for turn in turns] != alternate or not all(t["content"] for t in turns):
        message = (
            f"{key}: in the text Human: and Assistant: do not take turns; write the conversation "
            "as a list of messages."
        )
        problems.append(Problem("bad-messages", message))
        return None
    return turns


def _no_list(key: str) -> Problem:
    message = (
        f"{key}: the text is no list of messages, neither JSON nor what pandas and NumPy write of "
        "one (nested arrays and … cannot be read back); store the column as JSON text, or the rows "
        "as JSONL."
    )
    return Problem("bad-messages", message)
