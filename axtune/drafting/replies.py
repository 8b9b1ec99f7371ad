"""What a server's text says: the pairs that it drafts, and what it answers to a question.

Without structured output models put JSON into fences and sentences, write an object for each pair,
or name the keys in Korean: that is read. Anything else is counted by reason and not guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_QUESTION = ("question", "질문")
_ANSWER = ("answer", "답변", "답")
_PAIRS = ("pairs", "질문답변")
_MOST_STARTS = 200  # braces at which no JSON begins, before the rest is given up
_OPENS = re.compile(r"[{\[]")
_UNSOUND = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
_NO_WORD = re.compile(r"[\W_]+")
_UNANSWERABLE = re.compile("(?:답할|답변할|알|확인할)수없")
_SHORT = 40  # characters


@dataclass(frozen=True, slots=True)
class Pair:
    """A drafted question and its answer."""

    question: str
    answer: str


@dataclass(slots=True)
class Drafted:
    """What a reply to a passage holds.

    Attributes:
        pairs: Those that could be read, in order.
        malformed: How many could not.
        failed: Why the reply as a whole could not be read; empty where it could.
    """

    pairs: list[Pair] = field(default_factory=list)
    malformed: int = 0
    failed: str = ""


def read_pairs(text: str, finish_reason: str) -> Drafted:
    """Read the pairs of a reply.

    Args:
        text: Of the reply.
        finish_reason: As the server gives it; ``length`` is a reply that was cut off.
    """
    if finish_reason == "length":
        return Drafted(failed="cut-off")
    values = list(_values(text))
    if not values:
        return Drafted(failed="unreadable")
    drafted = Drafted()
    for item in _items(values):
        pair = _pair(item)
        if pair is None:
            drafted.malformed += 1
        else:
            drafted.pairs.append(pair)
    if not drafted.pairs and not drafted.malformed:
        drafted.failed = "nothing-to-ask"
    return drafted


def read_check(text: str, finish_reason: str) -> str | None:
    """The answer of a reply to a question; empty where it cannot be answered.

    Returns:
        None when the reply cannot be read.
    """
    if finish_reason == "length":
        return None
    for value in _values(text):
        if not isinstance(value, dict):
            continue
        answer, answerable = _of(value, _ANSWER), value.get("answerable", True)
        if answerable is False or (isinstance(answer, str) and _says_unanswerable(answer)):
            return ""
        if isinstance(answer, str) and answer.strip() and answerable is True:
            return None if _UNSOUND.search(answer) else answer.strip()
    return None


def _says_unanswerable(answer: str) -> bool:
    """Whether a short answer says so in words; a long one may say it of a part."""
    return len(answer) <= _SHORT and _UNANSWERABLE.search(_NO_WORD.sub("", answer)) is not None


def _values(text: str) -> Iterator[Any]:
    """The JSON objects and lists of a text, in order; what is around them is passed over."""
    decoder = json.JSONDecoder()
    at = text.rfind("</think>") + 1  # a model's reasoning may hold drafts that it gave up
    misses = 0
    while misses < _MOST_STARTS and (opens := _OPENS.search(text, at)):
        try:
            value, at = decoder.raw_decode(text, opens.start())
        except (ValueError, RecursionError):
            at, misses = opens.end(), misses + 1
            continue
        yield value


def _items(values: list[Any]) -> Iterator[Any]:
    """What stands where pairs stand."""
    for value in values:
        if isinstance(value, list):
            yield from value
        elif isinstance(value, dict) and isinstance(pairs := _of(value, _PAIRS), list):
            yield from pairs
        else:
            yield value


def _pair(item: Any) -> Pair | None:
    if not isinstance(item, dict):
        return None
    question, answer = _of(item, _QUESTION), _of(item, _ANSWER)
    if not isinstance(question, str) or not isinstance(answer, str):
        return None
    if _UNSOUND.search(question) or _UNSOUND.search(answer):
        return None
    return Pair(question.strip(), answer.strip())


def _of(value: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((value[key] for key in keys if key in value), None)
