"""What a row says, for finding rows that say the same: the one place that knows kinds of rows.

A row's text is what its turns say: contents, reasoning, the values that its calls pass and that
results hold, of a preference the prompt and each answer. Names of tools, keys of arguments and of
results, and declarations of tools are the same in all rows of a tool, and are no text. A system
prompt is context: it tells of two rows nothing where all share it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from axtune.data.conversation import Conversation
from axtune.data.documents import DocumentRow
from axtune.data.literals import parse_json
from axtune.data.messages import Message
from axtune.data.parse import AnyRow

_NO_LETTER = re.compile(r"[\W_]+")

Part = Literal["context", "question", "result", "answer", "rejected"]


class Said(NamedTuple):
    """One text of a row, and whose it is: ``rejected`` is the answer that is not wanted."""

    part: Part
    text: str


@dataclass(frozen=True, slots=True)
class RowText:
    """The text of a row.

    Attributes:
        said: In the order of the row.
        tools: Names of the tools that it offers; an answer to other tools is another answer.
    """

    said: list[Said]
    tools: frozenset[str] = frozenset()

    def joined(self, *parts: Part) -> str:
        """The texts of some parts, a line each."""
        return "\n".join(text for part, text in self.said if part in parts)


def letters(text: str) -> str:
    """The letters and digits of a text, in Unicode's NFKC, without case.

    What changes when a text is copied by hand or by a program goes: spaces, punctuation, width, and
    whether Hangul is composed.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _NO_LETTER.sub("", unicodedata.normalize("NFKC", folded))


def row_text(row: AnyRow) -> RowText:
    """The text of a row, as it was read: before personal data in it are masked."""
    if isinstance(row, DocumentRow):
        return RowText([Said("question", row.text)])
    if isinstance(row, Conversation):
        return RowText(list(_turns(row)), _tools(row))
    said = list(_turns(row.learned, end=row.prompt))
    for name, conversation in row.answers:
        answer = _turns(conversation, begin=row.prompt)
        said += answer if name == "chosen" else map(_as_rejected, answer)
    return RowText(said, _tools(row.learned))


def values(value: Any) -> Iterator[str]:
    """The texts and numbers inside a JSON value, also inside JSON that is written as a text."""
    if isinstance(value, str):
        inner = as_json(value)
        if inner is None:
            yield value
        else:
            yield from values(inner)
    elif isinstance(value, dict):
        for item in value.values():
            yield from values(item)
    elif isinstance(value, list):
        for item in value:
            yield from values(item)
    elif value is not None:
        yield str(value)


def _turns(conversation: Conversation, begin: int = 0, end: int | None = None) -> Iterator[Said]:
    """The texts of some turns; an assistant's turn that is not learned is one of the question's."""
    learned = set(conversation.learn)
    for place, message in list(enumerate(conversation.messages))[begin:end]:
        role = message["role"]
        if role in ("system", "developer"):
            yield Said("context", message["content"])
        elif role == "assistant":
            part: Part = "answer" if place in learned else "question"
            yield from (Said(part, text) for text in _spoken(message))
        elif role == "user":
            yield Said("question", message["content"])
        else:
            yield Said("result", " ".join(values(message["content"])))


def _spoken(message: Message) -> Iterator[str]:
    """What an assistant's turn says: reasoning, text, and the values of its calls."""
    reasoning = message.get("reasoning_content")
    if isinstance(reasoning, str) and reasoning:
        yield reasoning
    if message["content"]:
        yield message["content"]
    for call in message.get("tool_calls", ()):
        yield " ".join(values(call["function"]["arguments"]))


def _as_rejected(said: Said) -> Said:
    return said._replace(part="rejected") if said.part == "answer" else said


def _tools(conversation: Conversation) -> frozenset[str]:
    return frozenset(tool["function"]["name"] for tool in conversation.tools or ())


def as_json(text: str) -> Any:
    """The list or the object that a text is in JSON; None of any other text."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value = parse_json(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, (dict, list)) else None
