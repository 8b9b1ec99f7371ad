"""The shapes that rows have, recognised by the keys that say something.

- chat: ``messages`` (OpenAI), optional ``tools``
- sharegpt: ``conversations`` of ``from``/``value``, or ``conversation`` (ms-swift)
- alpaca: ``instruction`` and ``output``, optional ``input``, ``history``
- prompt_completion: ``prompt`` and ``completion``, each a text or a list of messages; also
  ``query`` and ``response``, ``question`` and ``answer``, ``input`` and ``output``
- preference, unpaired_preference: see `axtune.data.preferences`
- document: ``text``, where a row has none of these keys; see `axtune.data.documents`
- traces of calls, which have no name: see `axtune.data.traces`

A key that is null says nothing. ``system`` stands before any of them. What a row has besides, and
some common tool would read, is never dropped in silence: see `axtune.data.unread_columns`.
"""

from __future__ import annotations

from typing import Any

from axtune.data.cells import NOTHING, not_null, says, speaker_of, text_of
from axtune.data.choices import take_choices
from axtune.data.context import take_context
from axtune.data.cut_answers import cut_answer
from axtune.data.documents import TEXT, DocumentRow, open_document
from axtune.data.key_names import named_keys
from axtune.data.messages import Placed
from axtune.data.preferences import (
    LABELS,
    PAIRS,
    REJECTED,
    RawAnswer,
    RawPreference,
    as_label,
    behind,
    take_label,
    take_pair,
    take_rejected,
)
from axtune.data.prompts import (
    ANSWERS,
    CONVERSATIONS,
    QUESTIONS,
    behind_transcript,
    repeats_prompt,
    take_answer,
    take_conversation,
    take_prompt,
    take_system,
    with_system,
)
from axtune.data.row_labels import RowMarks, mark_turns, take_marks
from axtune.data.tools import TOOL_KEYS, take_tools
from axtune.data.traces import open_trace
from axtune.data.unknown_shape import turns_key, unknown_shape
from axtune.data.unread_columns import unread_columns
from axtune.data.verdicts import take_answer_verdict, take_pair_verdict
from axtune.errors import Problem

# Turns as a row has them, for `axtune.data.turns.read_turns`; and the row's tools.
RawRow = tuple[list[Placed], Any]

# The keys of which a shape needs one each.
_LEARNED_KEYS = {
    "chat": (("messages",),),
    "sharegpt": (CONVERSATIONS,),
    "alpaca": (("instruction",), ("output", *ANSWERS)),
    "prompt_completion": (QUESTIONS, ANSWERS),
}
_DOCUMENT_KEYS = ((TEXT,),)
# Of two answers; a rejected one may also stand beside a whole conversation.
_PAIR_KEYS = frozenset(key for keys in PAIRS for key in keys) - frozenset(REJECTED)
_JUDGED_KEYS = frozenset((*REJECTED, *LABELS))

# Rows of no other keys say nothing besides.
_ORDINARY = frozenset(
    (
        *("messages", *CONVERSATIONS, *TOOL_KEYS, "instruction", *QUESTIONS, *ANSWERS, "history"),
        *("system", "chosen", "rejected", TEXT, "id", "source"),
    )
)


def open_row(
    row: Any, row_format: str, problems: list[Problem]
) -> RawRow | RawPreference | DocumentRow | None:
    """A row's turns and tools, not normalised yet; or its document.

    Args:
        row: A parsed JSON value.
        row_format: A shape's name, or ``auto`` to recognise it by the row's keys.
        problems: Appended to.

    Returns:
        None when the shape is unknown, or a document's text is none.
    """
    if not isinstance(row, dict):
        problems.append(
            Problem("not-an-object", 'expected a JSON object such as {"messages": […]}.')
        )
        return None
    fields = not_null(row)
    marked = RowMarks()
    take_context(fields, problems)
    if not fields.keys() <= _ORDINARY:
        marked = take_marks(fields, problems)
        problems += cut_answer("", fields)
        take_choices(fields, problems)
    filled = {key: value for key, value in fields.items() if value not in NOTHING}
    shape = _shape(filled) if row_format == "auto" else row_format
    if row_format == "auto" and shape in (None, "prompt_completion"):
        trace = open_trace(filled, problems)
        if trace:
            trace = mark_turns(marked, trace[0], problems), trace[1]
            opened = _judged(filled, trace, problems) or trace
            if isinstance(opened, tuple):
                take_answer_verdict(filled, opened[0], problems)
            problems += unread_columns(filled, "a trace of calls", *_said_of(opened))
            return opened
        document = "document" if TEXT in row and turns_key(fields) is None else None
        shape = shape or (document if TEXT in filled else None)
        shape = shape or _shape(fields) or _shape(row) or document
    if shape is None:
        problems.append(unknown_shape(not_null(row), _shape))
        return None
    if lacking := _lacking(row | fields, fields, shape, row_format):
        problems.append(lacking)
        return None
    if shape == "document":
        return open_document(fields, problems)
    opened = _open(fields, shape, marked, problems)
    if isinstance(opened, tuple):
        take_answer_verdict(fields, opened[0], problems)
    elif opened.chosen and opened.rejected:
        take_pair_verdict(fields, (opened.chosen.key, opened.rejected.key), problems)
    problems += unread_columns(fields, shape, *_said_of(opened))
    return opened


def _said_of(opened: RawRow | RawPreference) -> tuple[list[Any], Any]:
    """Every turn that is read of a row, and its tools."""
    if isinstance(opened, tuple):
        return [turn for _, turn in opened[0]], opened[1]
    answers = (answer.turns for answer in (opened.chosen, opened.rejected) if answer)
    return [turn for turns in (opened.prompt or [], *answers) for _, turn in turns], opened.tools


def _judged(fields: dict[str, Any], trace: RawRow, problems: list[Problem]) -> RawPreference | None:
    """A trace whose last answer somebody has judged; None where nobody has."""
    keys = [key for key in LABELS if key in fields]
    if not trace[0] or not (
        "kto_tag" in keys or any(as_label(fields[k]) is not None for k in keys)
    ):
        return None
    prompt, (place, answer) = trace[0][:-1], trace[0][-1]
    raw = RawAnswer(place, [(place, answer)])
    preference = take_label(fields, None, prompt, raw, problems)
    preference.tools = trace[1]
    return preference


# --- recognition ------------------------------------------------------------------------------


def _shape(row: dict[str, Any]) -> str | None:
    """The shape that a row's keys say."""
    if not _PAIR_KEYS.isdisjoint(row):
        return "preference"
    learned = _learned_shape(row)
    if _JUDGED_KEYS.isdisjoint(row):
        return learned
    if any(key in row for key in REJECTED):
        return "preference"
    judged = [key for key in LABELS if key in row]
    if learned is None:
        return "unpaired_preference" if "completion" in row else None
    # A label is also what a text classifier's data calls its classes.
    strict = "kto_tag" in judged or learned == "prompt_completion"
    return "unpaired_preference" if strict or as_label(row["label"]) is not None else learned


def _learned_shape(row: dict[str, Any]) -> str | None:
    for shape, needed in _LEARNED_KEYS.items():
        if all(any(key in row for key in keys) for keys in needed):
            return shape
    return None


def _lacking(
    row: dict[str, Any], fields: dict[str, Any], shape: str, row_format: str
) -> Problem | None:
    """The problem of a key that a shape needs and the row does not have."""
    needed: tuple[tuple[str, ...], ...]
    if shape == "preference":
        pair = _pair_of(fields)
        if pair is None and _rejected_of(fields):
            if _learned_shape(fields):
                return None
            pair = PAIRS[1]
        needed = tuple((key,) for key in pair or PAIRS[0])
    elif shape == "unpaired_preference":
        labelled = any(says(fields.get(key)) for key in LABELS)
        if not labelled:
            return _no_key(row, shape, "label", row_format)
        needed = () if _learned_shape(row) else (("completion",),)
    else:
        needed = _LEARNED_KEYS.get(shape, _DOCUMENT_KEYS)
    missing = next((keys[0] for keys in needed if not any(key in row for key in keys)), None)
    return _no_key(row, shape, missing, row_format) if missing else None


def _no_key(row: dict[str, Any], shape: str, key: str, row_format: str) -> Problem:
    if row_format == "auto":
        said = f"the row judges answers, and has no key {key}; rename the key that means it"
    else:
        said = f"data.format is {shape}, and the row has no key {key}"
    return Problem("unknown-shape", f"{said}. Found {named_keys(not_null(row))}.")


def _pair_of(fields: dict[str, Any]) -> tuple[str, str] | None:
    """The keys of two answers: those that say something, or at least are there."""
    own = [(keys, _PAIR_KEYS.intersection(keys)) for keys in PAIRS]
    said = next((keys for keys, names in own if any(says(fields.get(k)) for k in names)), None)
    if said or _rejected_of(fields):
        return said
    return next((keys for keys, names in own if any(k in fields for k in names)), None)


def _rejected_of(fields: dict[str, Any]) -> str | None:
    return next((key for key in REJECTED if says(fields.get(key))), None)


# --- reading ----------------------------------------------------------------------------------


def _open(
    fields: dict[str, Any], shape: str, marked: RowMarks, problems: list[Problem]
) -> RawRow | RawPreference:
    """Take what a shape reads out of a row's cells."""
    system = take_system(fields, problems)
    if shape not in ("preference", "unpaired_preference"):
        turns = mark_turns(marked, _take_learned(fields, shape, problems), problems)
        return with_system(system, turns, problems), take_tools(fields)
    for key in marked.lists:
        message = f"{key}: of answers that are judged all turns are labelled; remove the key."
        problems.append(Problem("bad-weight", message))
    pair, rejected = _pair_of(fields), _rejected_of(fields)
    if shape == "unpaired_preference":
        judged = _filled_shape(fields)
        prompt, answer = _take_answered(fields, judged, problems)
        preference = take_label(fields, judged, prompt, answer, problems)
    elif pair is None and rejected:
        turns = _take_learned(fields, _filled_shape(fields), problems)
        preference = take_rejected(fields, turns, rejected, problems)
    else:
        preference = take_pair(fields, pair or PAIRS[0], problems)
    answers = filter(None, (preference.chosen, preference.rejected))
    said = {answer.key: answer.turns for answer in answers}
    if repeated := repeats_prompt(preference.prompt or [], said):
        problems.append(repeated)
    preference = behind(system, preference, problems)
    preference.tools = take_tools(fields)
    return preference


def _filled_shape(fields: dict[str, Any]) -> str:
    """The shape of a conversation that is judged as a whole or in its last turn."""
    filled = {key: value for key, value in fields.items() if says(value)}
    return _learned_shape(filled) or _learned_shape(fields) or "prompt_completion"


def _take_learned(fields: dict[str, Any], shape: str, problems: list[Problem]) -> list[Placed]:
    """Take a whole conversation."""
    if shape in ("chat", "sharegpt"):
        return take_conversation(fields, _key_of(fields, _LEARNED_KEYS[shape][0]), problems)
    before = len(problems)
    prompt, answer = _take_answered(fields, shape, problems)
    if repeated := repeats_prompt(prompt, {answer.key: answer.turns}):
        problems.append(repeated)
    asked = text_of(prompt[-1][1]) if prompt else ""
    if len(problems) == before and isinstance(asked, str) and not asked.strip():
        text = "there is no text before the answer; give the row a question or an instruction."
        problems.append(Problem("empty-prompt", text))
    nothing = [(answer.key, {"role": "assistant", "content": ""})]  # reported as empty-assistant
    return [*prompt, *(answer.turns or nothing)]


def _take_answered(
    fields: dict[str, Any], shape: str, problems: list[Problem]
) -> tuple[list[Placed], RawAnswer]:
    """Take a conversation in two: what stands before the last answer, and that."""
    if shape in ("chat", "sharegpt"):
        key = _key_of(fields, _LEARNED_KEYS[shape][0])
        turns = take_conversation(fields, key, problems)
        return turns[:-1], RawAnswer(turns[-1][0] if turns else key, turns[-1:])
    key = _key_of(fields, _LEARNED_KEYS[shape][1])
    turns = take_answer(fields, key, problems)  # first: an output is no question
    turns = behind_transcript(fields, turns)
    prompt = take_prompt(fields, problems)
    if prompt is None and len(turns) > 1:
        return turns[:-1], RawAnswer(key, turns[-1:])
    prompt = prompt or []
    if len(turns) > len(prompt) and _said(turns[: len(prompt)]) == _said(prompt):
        turns = turns[len(prompt) :]  # the completion is the whole conversation
    return prompt, RawAnswer(key, turns)


def _key_of(fields: dict[str, Any], keys: tuple[str, ...]) -> str:
    """The key that says something, or is there, or is expected."""
    said = (key for key in keys if says(fields.get(key)))
    return next(said, next((key for key in keys if key in fields), keys[0]))


def _said(turns: list[Placed]) -> list[tuple[Any, Any]]:
    return [(speaker_of(turn), text_of(turn)) for _, turn in turns]
