"""The shapes of rows whose answers somebody has judged.

A pair is two answers behind a prompt, or two whole conversations:

- ``chosen`` and ``rejected`` (TRL, LLaMA-Factory, Axolotl), ``chosen_response`` and
  ``rejected_response`` (Axolotl), ``preferred_output`` and ``non_preferred_output`` (OpenAI)
- ``rejected_response`` or ``rejected_messages`` beside a conversation whose last answer is the
  chosen one (ms-swift)

An unpaired answer has a ``label`` (TRL, ms-swift) or ``kto_tag`` (LLaMA-Factory).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

from axtune.data.cells import says, speaker_of, text_of
from axtune.data.messages import Placed
from axtune.data.prompts import (
    asks,
    behind_transcript,
    take_answer,
    take_conversation,
    take_prompt,
    with_system,
)
from axtune.errors import Problem

PAIRS = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("preferred_output", "non_preferred_output"),
)
# Beside a conversation that ends with the chosen answer.
REJECTED = ("rejected_messages", "rejected_response")
LABELS = ("kto_tag", "label")
_OPENING = ("system", "developer", "user", "human")


class RawAnswer(NamedTuple):
    """What stands at a key such as ``chosen``; no turns when that is nothing."""

    key: str
    turns: list[Placed]


@dataclass(slots=True)
class RawPreference:
    """Answers that somebody has judged, as a row has them.

    Attributes:
        prompt: Its turns; None when the answers are whole conversations.
        chosen: The answer that is preferred, or the only one when its label is true; else None.
        rejected: The other answer, or the only one when its label is false; else None.
        tools: The row's.
    """

    prompt: list[Placed] | None
    chosen: RawAnswer | None
    rejected: RawAnswer | None
    tools: Any = None


def as_label(value: Any) -> bool | None:
    """A judgement as a boolean, also as tables write it (1 and 0, true and false); else None."""
    if isinstance(value, str):
        value = {"true": 1, "1": 1, "1.0": 1, "false": 0, "0": 0, "0.0": 0}.get(
            value.strip().lower()
        )
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def take_pair(
    fields: dict[str, Any], keys: tuple[str, str], problems: list[Problem]
) -> RawPreference:
    """Take two answers at keys of their own, and their prompt.

    Args:
        fields: The row's cells that are not null; what is read is taken out.
        keys: Those of the chosen and of the rejected answer.
        problems: Appended to.
    """
    taken = ((key, take_answer(fields, key, problems)) for key in keys)
    chosen, rejected = (RawAnswer(key, behind_transcript(fields, turns)) for key, turns in taken)
    whole = all(a.turns and speaker_of(a.turns[0][1]) in _OPENING for a in (chosen, rejected))
    if whole and not asks(fields):
        return RawPreference(None, chosen, rejected)
    prompt = take_prompt(fields, problems)
    if whole and prompt and _repeats(prompt, chosen.turns, rejected.turns):
        prompt = None
    return RawPreference(prompt, chosen, rejected)


def _repeats(prompt: list[Placed], chosen: list[Placed], rejected: list[Placed]) -> bool:
    """Whether a prompt says again how two whole conversations begin, or what is chosen.

    UltraFeedback and its like have all three; spaces around a text may have been lost.
    """
    one, two, given = (
        [(speaker_of(turn), _stripped(turn)) for _, turn in turns]
        for turns in (chosen, rejected, prompt)
    )
    pairs = zip(one, two, strict=False)
    shared = [text for (_, text), _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return given == one or all(text in shared for _, text in given)


def _stripped(turn: Any) -> Any:
    text = text_of(turn)
    return text.strip() if isinstance(text, str) else text


def take_rejected(
    fields: dict[str, Any], turns: list[Placed], key: str, problems: list[Problem]
) -> RawPreference:
    """Take ms-swift's rejected answer to a conversation that ends with the chosen one.

    Args:
        fields: The row's cells that are not null; what is read is taken out.
        turns: The conversation.
        key: ``rejected_messages``, a whole conversation as well; or ``rejected_response``, a text
            in the place of the last turn, or messages in the place of all after the last question.
        problems: Appended to.
    """
    if key == "rejected_messages":
        rejected = take_conversation(fields, key, problems)
        return RawPreference(None, RawAnswer("messages", turns), RawAnswer(key, rejected))
    end = len(turns) - 1
    if isinstance(fields[key], list):
        asked = [n for n, (_, turn) in enumerate(turns) if speaker_of(turn) in ("user", "human")]
        end = asked[-1] + 1 if asked else end
    prompt, answer = turns[: max(end, 0)], turns[max(end, 0) :]
    chosen = RawAnswer(answer[0][0] if answer else "messages", answer)
    return RawPreference(prompt, chosen, RawAnswer(key, take_answer(fields, key, problems)))


def take_label(
    fields: dict[str, Any],
    shape: str | None,
    prompt: list[Placed],
    answer: RawAnswer,
    problems: list[Problem],
) -> RawPreference:
    """Take the judgement of the only answer.

    Args:
        fields: The row's cells that are not null, one of `LABELS` among them; what is read is
            taken out.
        shape: What the row is without the judgement, by its name in ``data.format``; None of one
            without a name.
        prompt: What stands before the answer.
        answer: What was judged.
        problems: Appended to.
    """
    key = next(key for key in LABELS if says(fields.get(key)))
    label = as_label(fields.pop(key))
    if label is None:
        way_out = f"; data.format: {shape} reads the row without it" if shape else ""
        message = f"{key}: expected true or false (1 or 0){way_out}."
        problems.append(Problem("bad-label", message))
    return RawPreference(prompt, answer if label else None, None if label else answer)


def behind(
    system: Placed | None, preference: RawPreference, problems: list[Problem]
) -> RawPreference:
    """A preference with the row's system prompt before its prompt and whole conversations."""
    if system is None:
        return preference
    if preference.prompt is not None:
        preference.prompt = with_system(system, preference.prompt, problems)
    parts = []
    for answer in (preference.chosen, preference.rejected):
        if answer and answer.turns and speaker_of(answer.turns[0][1]) in _OPENING:
            answer = RawAnswer(answer.key, with_system(system, answer.turns, problems))
        parts.append(answer)
    preference.chosen, preference.rejected = parts
    return preference
