"""Questions with choices in columns of their own: MMLU's ``choices``, KMMLU's ``A`` to ``D``.

The choices are written below the question, a line each, and the answer names one of them by its
letter or says it. Where that cannot be told, as of a number that may count from 0 or from 1, the
row is refused; a question without its choices is never learned.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from axtune.data.cells import parse_list, says
from axtune.data.context import question_key
from axtune.data.key_names import plain
from axtune.data.prompts import ANSWERS
from axtune.errors import Problem

# Columns that hold all choices, and one each.
_LISTS = frozenset(
    (
        *("choices", "choice", "options", "option", "answerchoices", "answeroptions"),
        *("multiplechoices", "mcqoptions", "endings", "choicelist", "optionlist", "choicesdict"),
        *("보기", "선택지", "선지", "객관식보기"),
    )
)
_ONE = re.compile(
    r"(?:(?:option|opt|op|choice|ending|alternative|보기|선택지|선지)([a-j]|\d)|([a-e]|[1-5]))"
)
# Names of the answer that only such rows have.
_ANSWER_KEYS = frozenset(
    (
        *("answerkey", "correctanswer", "correctoption", "correctchoice", "correctletter"),
        *("answerletter", "answeroption", "gold", "goldanswer", "goldlabel", "correct", "cop"),
        *("answeridx", "answerindex", "answerid", "correctindex", "correctidx", "label"),
        *("target", "solution", "정답", "답", "답안"),
    )
)
_NAMED = re.compile(r"[(\[]?\s*([A-Za-z]|\d{1,2})\s*[)\].:]*")  # A, (A), A., 1)


@lru_cache(maxsize=4096)
def _column(key: str) -> str | None:
    """What a column is: ``list`` of all choices, or the letter or number of one; else None."""
    name = plain(key)
    if name in _LISTS:
        return "list"
    one = _ONE.fullmatch(name)
    return (one[1] or one[2]) if one else None


def is_choices(key: str) -> bool:
    """Whether a column holds the choices of a question, all of them."""
    return _column(key) == "list"


def choice_columns(fields: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row that hold one choice each.

    Args:
        fields: The row's cells that are not null.
    """
    ones = {column: key for key in fields if (column := _column(key)) and column != "list"}
    return {key: fields[key] for key in ones.values()} if _in_order(ones) else {}


def take_choices(fields: dict[str, Any], problems: list[Problem]) -> None:
    """Write a question's choices below it, and its answer as one of them.

    Args:
        fields: The row's cells that are not null; the columns are taken out, and the cells of
            question and answer changed. Choices beside anything else than a question that is a
            text stay, for `axtune.data.unread_columns`.
        problems: Appended to.
    """
    columns = {key: column for key in fields if (column := _column(key)) and says(fields[key])}
    asked = question_key(fields) if columns else None
    if asked is None:
        return
    ones = {column: key for key, column in columns.items() if column != "list"}
    keys = [key for key, column in columns.items() if column == "list"]
    if not keys and not _in_order(ones):
        return
    choices = _listed(fields[keys[0]]) if keys else _of_columns(fields, ones)
    if not keys:
        keys = list(ones.values())
    elif isinstance(fields[keys[0]], str) and choices is None:
        return  # a text, and perhaps no list
    if choices is None:
        message = (
            f"{keys[0]}: expected a list of texts, or texts by their letters; write the choices "
            "into the question."
        )
        problems.append(Problem("bad-choices", message))
    else:
        _write_answer(fields, choices, kmmlu="A" in keys, problems=problems)
        _write_question(fields, asked, choices)
    for key in keys:
        del fields[key]


def _in_order(ones: dict[str, str]) -> bool:
    """Whether columns are those of at least two choices, none left out."""
    if len(ones) < 2:
        return False
    for begin in ("a", "1", "0"):
        letters = "".join(sorted(ones))
        first = ord(begin)
        if letters == "".join(chr(first + n) for n in range(len(letters))):
            return True
    return False


def _of_columns(fields: dict[str, Any], ones: dict[str, str]) -> dict[str, str] | None:
    texts = {name.upper(): _choice(fields[ones[name]]) for name in sorted(ones)}
    return {label: text for label, text in texts.items() if text} if all(texts.values()) else None


def _listed(value: Any) -> dict[str, str] | None:
    """Choices by their labels; None of what is no list of texts."""
    if isinstance(value, str):
        try:
            value = parse_list(value)
        except ValueError:
            return None
    if isinstance(value, dict):
        named = {plain(key): key for key in value}
        if "text" in named and "label" in named:  # ARC
            labels, texts = value[named["label"]], value[named["text"]]
            same = isinstance(labels, list) and isinstance(texts, list)
            pairs = zip(labels, texts, strict=False) if same and len(labels) == len(texts) else ()
        else:
            pairs = value.items()  # type: ignore[assignment]
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        label = next((key for key in ("label", "key", "id", "letter") if key in value[0]), "")
        text = next((key for key in ("text", "value", "content", "option") if key in value[0]), "")
        pairs = ((item.get(label), item.get(text)) for item in value)  # type: ignore[assignment]
    else:
        items = value if isinstance(value, list) else []
        pairs = zip(string.ascii_uppercase, items, strict=False)
        if len(items) > len(string.ascii_uppercase):
            return None
    out = {str(label).strip(): _choice(text) for label, text in pairs}
    whole = len(out) > 1 and all(out) and all(out.values())
    return {label: text for label, text in out.items() if text} if whole else None


def _choice(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value).strip() or None


def _write_question(fields: dict[str, Any], asked: str, choices: dict[str, str]) -> None:
    question = fields[asked]
    if not all(text in question for text in choices.values()):
        lines = (f"{label}. {text}" for label, text in choices.items())
        fields[asked] = "\n".join((question.rstrip(), *lines))


def _write_answer(
    fields: dict[str, Any], choices: dict[str, str], *, kmmlu: bool, problems: list[Problem]
) -> None:
    """The answer as a text: the label of a choice, or what it says itself.

    Args:
        fields: The row's; its answer's cell is changed.
        choices: By their labels.
        kmmlu: Whether the choices are columns A, B, …, of which ``answer`` counts from 1.
        problems: Appended to.
    """
    key = next((key for key in ANSWERS if says(fields.get(key))), None)
    if key is None:
        named = [name for name in fields if plain(name) in _ANSWER_KEYS and says(fields[name])]
        if not named or "chosen" in fields:
            return
        key = named[0]
    value = fields[key]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    text = _choice(value)
    if text is None:
        return  # reported as bad-content
    said = _which(text, choices, from_one=kmmlu and key == "answer")
    if said is None:
        message = (
            f"{key}: it names none of the row's {len(choices)} choices, or it is not clear which "
            "(a number may count from 0 or from 1); write the letter or the text of one."
        )
        problems.append(Problem("bad-choices", message))
        said = text
    if key not in ANSWERS:
        del fields[key]
        key = "answer"
    fields[key] = said


def _which(text: str, choices: dict[str, str], *, from_one: bool) -> str | None:
    """What an answer says of the choices; None where that is not clear."""
    labels = {label.casefold(): label for label in choices}
    named = _NAMED.fullmatch(text)
    label = labels.get(named[1].casefold()) if named else None
    said = [one for one, choice in choices.items() if choice == text]
    number = int(text) if text.isdecimal() and len(text) < 3 and label is None else None
    counts = number is not None and number <= len(choices)
    if said:
        return text if len(said) == 1 and label in (None, said[0]) and not counts else None
    if label is not None:
        return label
    if number is not None:
        return list(choices)[number - 1] if from_one and counts and number else None
    # An explanation that comes to one of them.
    within = any(choice in text for choice in choices.values())
    return text if within or any(_says_label(text, label) for label in choices) else None


def _says_label(text: str, label: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(label)}(?![A-Za-z0-9])", text) is not None


def unseen_choices(columns: dict[str, Any]) -> Iterator[tuple[str, Problem]]:
    """The columns that hold the choices of a question, and are not shown.

    Args:
        columns: The row's that are not read and say something else than what is read.

    Yields:
        The column, and why the row is refused.
    """
    for key in filter(_column, columns):
        message = (
            f"{key}: the choices are not shown, and the model would learn to answer without them; "
            "write them into the question or the turns, or remove the key."
        )
        yield key, Problem("bad-choices", message)
