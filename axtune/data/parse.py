"""A row becomes a document or a conversation to learn, or a preference to learn from.

Tool data already written as Hermes text is turned back into calls, results and tools (`hermes`).

Messages of problems name places (``rejected[0].tool_calls[0]``), never what a row says.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from axtune.data.conversation import Conversation, normalise_request, to_nfc
from axtune.data.documents import DocumentRow
from axtune.data.formats import RawRow, open_row
from axtune.data.hermes import asks_for_python, from_text
from axtune.data.literals import watching_keys
from axtune.data.messages import Message, Placed
from axtune.data.preferences import RawAnswer, RawPreference
from axtune.data.tools import read_tools
from axtune.data.turns import read_turns
from axtune.errors import Problem


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """Two answers to a prompt, of which one is preferred; or one answer, wanted or not.

    Attributes:
        chosen: The prompt and the answer that is wanted, a whole conversation of which the answer's
            turns are labelled; None in an unpaired row whose label is false.
        rejected: The same of the answer that is not wanted; None when the label is true. It
            shares the chosen one's prompt messages and tools.
        prompt: How many messages the prompt has.
    """

    chosen: Conversation | None
    rejected: Conversation | None
    prompt: int

    @property
    def learned(self) -> Conversation:
        """The chosen answer behind its prompt; of a row with one answer, that one."""
        (_, first), *_ = self.answers
        return first

    @property
    def answers(self) -> list[tuple[str, Conversation]]:
        """What there is of ``chosen`` and ``rejected``, in this order."""
        both = (("chosen", self.chosen), ("rejected", self.rejected))
        return [(name, conversation) for name, conversation in both if conversation is not None]


AnyRow = Conversation | PreferenceRow | DocumentRow


def read_row(
    row: Any, *, row_format: str = "auto", nfc: bool = False
) -> tuple[AnyRow | None, list[Problem]]:
    """Turn a row into what it is to teach.

    Args:
        row: A parsed JSON value.
        row_format: A shape's name, or ``auto`` to recognise it by the row's keys.
        nfc: Convert decomposed text to NFC, in documents, contents, calls and tools.

    Returns:
        The document, the conversation or the preference, whole only when no problem is an error,
        None when the shape is unknown; and every problem found.
    """
    problems: list[Problem] = []
    with watching_keys() as keys:
        read = _read(row, row_format, nfc, problems)
    if keys.found:
        text = (
            "in JSON text inside the row (arguments of a call, say) a key stands twice in an "
            "object, with different values, and the last one is read; keep one."
        )
        problems.append(Problem("duplicate-key", text, "warning"))
    return read, problems


def _read(row: Any, row_format: str, nfc: bool, problems: list[Problem]) -> AnyRow | None:
    opened = open_row(row, row_format, problems)
    if opened is None:
        return None
    if isinstance(opened, DocumentRow):
        text = unicodedata.normalize("NFC", opened.text) if nfc else opened.text
        return DocumentRow(text)
    if isinstance(opened, RawPreference):
        return _read_preference(opened, nfc, problems)
    return _read_conversation(opened, nfc, problems)


def _read_conversation(opened: RawRow, nfc: bool, problems: list[Problem]) -> Conversation:
    turns, raw_tools = opened
    messages, found = _open_turns(turns, problems)
    tools = _one_of(read_tools(raw_tools, problems), found, problems)
    conversation = normalise_request(messages, tools, problems)
    # Only now are arguments and tools that lay in JSON text values.
    return to_nfc(conversation) if nfc else conversation


def _open_turns(
    turns: list[Placed], problems: list[Problem], before: Sequence[Placed] = ()
) -> tuple[list[Placed], list[Placed]]:
    """The messages of turns behind others, and the tools that they and system texts hold."""
    messages, on_turns = read_turns(turns, problems)
    messages, in_texts = from_text(messages, problems, python=asks_for_python(before))
    return messages, on_turns + in_texts


def _one_of(
    tools: list[Any] | None, found: list[Placed], problems: list[Problem]
) -> list[Any] | None:
    """The row's tools or, where it has none, those that its turns hold; others are reported."""
    for place, raw in found:
        ignored: list[Problem] = []
        held = read_tools(raw, problems if tools is None else ignored)
        if tools is None:
            tools = held
        elif held != tools:
            text = f"{place}: the tools here are not those of the row and are not shown."
            problems.append(Problem("unread-key", text, "warning"))
    return tools


# --- preferences ------------------------------------------------------------------------------


def _read_preference(opened: RawPreference, nfc: bool, problems: list[Problem]) -> PreferenceRow:
    raw = [answer for answer in (opened.chosen, opened.rejected) if answer is not None]
    parts = _normalise(opened, raw, problems)
    prompt, *answers = map(to_nfc, parts) if nfc else parts
    begin = 0
    if all(problem.severity == "warning" for problem in problems):
        keys = [answer.key for answer in raw]
        given = None if opened.prompt is None else prompt
        begin = _end_of_prompt(given, answers, keys, problems)
        if begin:
            tools, first = prompt.tools, answers[0]
            prompt = Conversation(first.messages[:begin], tools, first.places[:begin], [])
        if all(problem.severity == "warning" for problem in problems):
            _check_prompt(prompt, problems)
            _check_answers(keys, answers, begin, problems)
    joined = iter([_join(prompt, answer, begin) for answer in answers])
    chosen = next(joined) if opened.chosen is not None else None
    rejected = next(joined) if opened.rejected is not None else None
    return PreferenceRow(chosen, rejected, len(prompt.messages))


def _normalise(
    opened: RawPreference, answers: list[RawAnswer], problems: list[Problem]
) -> list[Conversation]:
    """The prompt with the row's tools, and each answer."""
    given = opened.prompt or []
    parts = [_open_turns(given, problems)]
    parts += [_open_turns(answer.turns, problems, before=given) for answer in answers]
    tools = read_tools(opened.tools, problems)
    before, *written = [[tools for _, tools in found] for _, found in parts]
    held = before or written[0]
    if tools is None and (written[0] not in ([], held) or any(w != written[0] for w in written)):
        message = "the two conversations begin with different tools; give both the same."
        problems.append(Problem("prompt-differs", message))
    tools = _one_of(tools, parts[0][1] + parts[1][1], problems)
    return [
        normalise_request(part, None if number else tools, problems)
        for number, (part, _) in enumerate(parts)
    ]


def _end_of_prompt(
    prompt: Conversation | None,
    answers: list[Conversation],
    keys: list[str],
    problems: list[Problem],
) -> int:
    """How many messages at the beginning of each answer are the prompt.

    None, unless the answers are whole conversations: then all that they share, which has to end
    where the assistant speaks in both.

    Args:
        prompt: What the row gives as its prompt, if it does.
        answers: As the row gives them.
        keys: Their keys.
        problems: Appended to.
    """
    given = [_shown(message) for message in prompt.messages] if prompt else []
    said = [[_shown(message) for message in answer.messages] for answer in answers]
    if prompt is not None:
        size = len(given)
        if given and all(turns[:size] == given and len(turns) > size for turns in said):
            return size
        if len(said) == 1 or not all(turns and turns[0][0] != "assistant" for turns in said):
            return 0
    silent = [all(role != "assistant" for role, *_ in turns) for turns in said]
    if any(silent):
        problems += [_empty_answer(key) for key, none in zip(keys, silent, strict=True) if none]
        return 0
    one, two = said
    pairs = zip(one, two, strict=False)
    shared = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)))
    if one == two:
        problems.append(_same_answers(keys))
    elif any(len(turns) == shared or turns[shared][0] != "assistant" for turns in said):
        message = (
            f"{keys[0]} and {keys[1]} first differ at their turn [{shared}], which is not the "
            "assistant's in both; they must share every turn before the answer."
        )
        problems.append(Problem("prompt-differs", message))
    elif not set(given) <= set(one[:shared]):
        message = "the prompt is not what the two conversations begin with; remove one of the two."
        problems.append(Problem("prompt-differs", message))
    return shared


def _check_prompt(prompt: Conversation, problems: list[Problem]) -> None:
    """There is something to answer."""
    if not any(message["content"].strip() for message in prompt.messages):
        text = "there is no text before the answer; give the row a prompt."
        problems.append(Problem("empty-prompt", text))
    elif prompt.messages[-1]["role"] == "assistant":
        text = (
            f"{prompt.places[-1]}: the prompt ends with an assistant turn; end it with the turn "
            "that is to be answered."
        )
        problems.append(Problem("prompt-role", text))


def _check_answers(
    keys: list[str], answers: list[Conversation], begin: int, problems: list[Problem]
) -> None:
    """Each answer is the assistant's and says something, and no two say the same."""
    said = [[_shown(message) for message in answer.messages[begin:]] for answer in answers]
    for key, answer in zip(keys, answers, strict=True):
        messages = answer.messages[begin:]
        spoken = [message for message in messages if message["role"] == "assistant"]
        if messages and messages[0]["role"] != "assistant":
            text = (
                f"{answer.places[begin]}: an answer must begin with an assistant turn; move the "
                "turns before it to the prompt."
            )
            problems.append(Problem("answer-role", text))
        elif not any(message["content"].strip() or message.get("tool_calls") for message in spoken):
            problems.append(_empty_answer(key))
        elif len(said) == 2 and _stripped(said[0]) == _stripped(said[1]) and key == keys[0]:
            problems.append(_same_answers(keys))


def _join(prompt: Conversation, answer: Conversation, begin: int) -> Conversation:
    """A prompt and an answer without its first messages, as one conversation."""
    shift = len(prompt.messages) - begin
    return Conversation(
        prompt.messages + answer.messages[begin:],
        prompt.tools,
        prompt.places + answer.places[begin:],
        [turn + shift for turn in answer.learn if turn >= begin],
    )


def _shown(message: Message) -> tuple[str, ...]:
    """What the model is shown of a message; ids of calls and reasoning are not."""
    calls = message.get("tool_calls", ())
    return (message["role"], message["content"], *(json.dumps(c["function"]) for c in calls))


def _stripped(said: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Messages as `_shown` gives them, without the white space around what they say."""
    return [(role, content.strip(), *calls) for role, content, *calls in said]


def _empty_answer(key: str) -> Problem:
    text = f"{key}: the answer is empty; give it a text or a call."
    return Problem("empty-answer", text)


def _same_answers(keys: list[str]) -> Problem:
    text = f"{keys[0]} and {keys[1]} are the same answer; there is nothing to prefer."
    return Problem("same-answers", text)
