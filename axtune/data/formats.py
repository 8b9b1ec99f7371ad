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
some common tool would read, is never dropped in silence: see `KNOWN`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from axtune.data.cells import NOTHING, not_null, parse_list, says, speaker_of, text_of
from axtune.data.documents import TEXT, DocumentRow, open_document
from axtune.data.key_names import HOLDERS, plain
from axtune.data.labels import is_mark
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
    SYSTEMS,
    repeats_prompt,
    take_answer,
    take_conversation,
    take_prompt,
    take_system,
    with_system,
)
from axtune.data.row_labels import RowMarks, mark_turns, take_marks
from axtune.data.tools import other_tools, take_tools
from axtune.data.traces import open_trace
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
_TOOLS = ("tools", "functions")
# Of two answers; a rejected one may also stand beside a whole conversation.
_PAIR_KEYS = frozenset(key for keys in PAIRS for key in keys) - frozenset(REJECTED)
_JUDGED_KEYS = frozenset((*REJECTED, *LABELS))

# What a model that reads text is not shown; an answer about it would be learned blindly.
_MEDIA = frozenset(("images", "image", "videos", "video", "audios", "audio", "rejected_images"))
# What an answer is about stands inside the prompt of many rows that still name it.
_PASSAGES = (
    "context", "documents", "text", "passage", "document", "contexts", "article", "evidence",
    "paragraph", "options", "choices", "knowledge",
)  # fmt: skip
# Every key that axtune or another tool (TRL, LLaMA-Factory, ms-swift, Axolotl, Unsloth, OpenAI)
# gives a meaning to. One that says something and was not read is named; all other keys are free.
KNOWN = _MEDIA.union(
    # conversations, questions, answers
    ("messages", *CONVERSATIONS, "instruction", *QUESTIONS, *ANSWERS, "history", "context", "text"),
    ("system", "system_prompt", *_TOOLS, "target", "targets", "solution", "segments"),
    ("answers", "chat", "contents", "instructions", "systemInstruction", "system_instruction"),
    # judgements
    (*(key for keys in PAIRS for key in keys), *REJECTED, "rejected_tools", *LABELS, "completions"),
    ("accepted", "response_0", "response_1", "better_response_id", "response_j", "response_k"),
    ("margin", "score", "score_chosen", "score_rejected", "ref_chosen_logps", "ref_rejected_logps"),
    # what is learned of a row, and how much
    ("weight", "loss_scale", "train_on_inputs", "completion_mask", "assistant_masks", "loss_mask"),
    # what changes the prompt that a template makes
    ("chat_template", "chat_template_kwargs", "enable_thinking", "tool_choice", "documents"),
    ("input_ids", "labels", "objects", "response_format"),
    # what people call these things where they name their columns themselves
    ("systemPrompt", "system_message", "systemMessage", "system_msg", "sys", "sys_prompt"),
    ("preamble", "developer", "tool", "function", "tool_schemas", "available_tools", "apis"),
    ("available_functions", "api_list", "tool_list", "tool_definitions", "functions_list"),
    ("tool_calls", "function_call", "function_calls"),
    ("reasoning", "reasoning_content", "thinking", "thought", "thoughts", "Complex_CoT", "cot"),
    ("chain_of_thought", "rationale"),
    ("loss", "train", "trainable", "weights", "mask", "train_mask"),
    ("reward", "rating", "is_safe", "is_good", "desirable", "correct", "is_correct", "passed"),
    ("feedback", "kto_label", "thumbs"),
    ("rejected_answer", "rejected_completion", "negative", "dispreferred", "bad_response"),
    ("image_url", "image_path", "file", "files", "attachments"),
    _PASSAGES,
)
_WRITTEN = frozenset(map(plain, KNOWN))  # in tables also as Prompt, Messages

# What other tools and exports call a list of turns; many of them hold something else elsewhere.
_PERHAPS_TURNS = (
    "data", "dialog", "dialogue", "dialogs", "turns", "utterances", "chat", "chat_messages",
    "thread", "history",
)  # fmt: skip
# Why a row of no known shape is not read, by a key that it has.
_UNREADABLE = {
    "input_ids": "the row is already tokenised; give it as messages",
    "segments": "segments are texts without roles; give the row messages",
    "completions": "completions judges steps; axtune learns whole answers: messages",
    "prompt": "the prompt has no answer (completion) behind it",
}


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
    marked = take_marks(fields, problems)
    filled = {key: value for key, value in fields.items() if value not in NOTHING}
    shape = _shape(filled) if row_format == "auto" else row_format
    if row_format == "auto" and shape in (None, "prompt_completion"):
        trace = open_trace(filled, problems)
        if trace:
            trace = mark_turns(marked, trace[0], problems), trace[1]
            opened = _judged(filled, trace, problems) or trace
            problems += _unread(filled, "a trace of calls", opened)
            return opened
        document = "document" if TEXT in row and _turns_key(fields) is None else None
        shape = shape or (document if TEXT in filled else None)
        shape = shape or _shape(fields) or _shape(row) or document
    if shape is None:
        problems.append(_unknown(fields))
        return None
    if lacking := _lacking(row, fields, shape, row_format):
        problems.append(lacking)
        return None
    if shape == "document":
        return open_document(fields, problems)
    opened = _open(fields, shape, marked, problems)
    problems += _unread(fields, shape, opened)
    return opened


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
            return _no_key(shape, "label", row_format)
        needed = () if _learned_shape(row) else (("completion",),)
    else:
        needed = _LEARNED_KEYS.get(shape, _DOCUMENT_KEYS)
    missing = next((keys[0] for keys in needed if not any(key in row for key in keys)), None)
    return _no_key(shape, missing, row_format) if missing else None


def _no_key(shape: str, key: str, row_format: str) -> Problem:
    if row_format == "auto":
        said = f"the row judges answers, and has no key {key}; rename the key that means it"
    else:
        said = f"data.format is {shape}, and the row has no key {key}"
    return Problem("unknown-shape", f"{said}.")


def _pair_of(fields: dict[str, Any]) -> tuple[str, str] | None:
    """The keys of two answers: those that say something, or at least are there."""
    own = [(keys, _PAIR_KEYS.intersection(keys)) for keys in PAIRS]
    said = next((keys for keys, names in own if any(says(fields.get(k)) for k in names)), None)
    if said or _rejected_of(fields):
        return said
    return next((keys for keys, names in own if any(k in fields for k in names)), None)


def _rejected_of(fields: dict[str, Any]) -> str | None:
    return next((key for key in REJECTED if says(fields.get(key))), None)


def _unknown(fields: dict[str, Any]) -> Problem:
    why = next((why for key, why in _UNREADABLE.items() if says(fields.get(key))), None)
    if key := _turns_key(fields):
        why = f"the key {key} seems to hold a conversation; name it conversations"
    keys = {key.strip().lower(): value for key, value in fields.items()}
    if _shape(keys) or (TEXT in keys and TEXT not in fields):
        why = "the keys are those of one but for case or spaces; rename them"
    expected = (
        "expected the keys messages, conversations, instruction and output, prompt and completion, "
        "chosen and rejected, or text"
    )
    message = f"no known shape; {why or expected}; see data_templates/README.md."
    return Problem("unknown-shape", message)


def _turns_key(fields: dict[str, Any]) -> str | None:
    """A key of a row that holds a conversation under a name that is not known."""
    found = [key for key in _PERHAPS_TURNS if isinstance(fields.get(key), list)]
    return next((key for key in reversed(found) if _seem_turns(fields[key])), None)


def _seem_turns(turns: list[Any]) -> bool:
    """Whether a list is one of turns, or of what two speakers say in turn."""
    texts = all(isinstance(turn, str) for turn in turns)
    return len(turns) > 1 and (texts or all(speaker_of(turn) is not None for turn in turns))


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


# --- what was not read ------------------------------------------------------------------------


def _unread(
    fields: dict[str, Any], shape: str, opened: RawRow | RawPreference
) -> Iterator[Problem]:
    """The problems of keys that say something, have a meaning in some tool, and were not read."""
    left = [k for k in fields if (plain(k) in _WRITTEN or is_mark(k)) and says(fields[k])]
    for key in filter(_MEDIA.__contains__, left):
        message = (
            f"{key}: the models read text only, and would learn to answer what they do not see; "
            "remove the row, or the key where the text says it all."
        )
        yield Problem("bad-content", message)
    left += [".".join(keys) for keys, value in other_tools(fields) if value != _tools_of(opened)]
    cells = dict(fields)
    for holder, inner in _systems_beside(fields):
        cells[f"{holder}.{inner}"] = fields[holder][inner]
        left.append(f"{holder}.{inner}")
    if left:
        texts = {text.strip() for text in _texts(_turns_of(opened))}
        left = [
            key
            for key in dict.fromkeys(left)
            if key not in _MEDIA and not _repeats(key, cells.get(key), texts)
        ]
    for key in [key for key in left if key.strip().lower() == "label"]:
        left.remove(key)
        message = (
            f"not read: {key}; the row is read as {shape}, and its answers are learned whatever "
            "that says (task: sft). Remove rows whose answers are not to be learned; true or false "
            "judges an answer (task: kto)."
        )
        yield Problem("unread-key", message, "warning")
    if left:
        message = (
            f"not read: {', '.join(left)}; the row is read as {shape}, and nothing of it is shown. "
            "Write what it says into the turns, or remove it."
        )
        yield Problem("unread-key", message, "warning")


def _systems_beside(fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Where a system prompt stands in an object beside the row."""
    for key, value in fields.items():
        if isinstance(value, dict) and plain(key) in HOLDERS:
            yield from ((key, inner) for inner in SYSTEMS if says(value.get(inner)))


def _tools_of(opened: RawRow | RawPreference) -> Any:
    return opened[1] if isinstance(opened, tuple) else opened.tools


def _repeats(key: str, value: Any, texts: set[str]) -> bool:
    """Whether a cell only says again what is read."""
    said = [text.strip() for text in _texts(value)]
    if key in _PASSAGES:
        return bool(said) and all(any(text in read for read in texts) for text in said)
    return bool(said) and texts.issuperset(said)


def _turns_of(opened: RawRow | RawPreference) -> list[Any]:
    if isinstance(opened, tuple):
        return [turn for _, turn in opened[0]]
    answers = (answer.turns for answer in (opened.chosen, opened.rejected) if answer)
    return [turn for turns in (opened.prompt or [], *answers) for _, turn in turns]


def _texts(value: Any) -> Iterator[str]:
    """Every text of a value, also of a list that became a text; not who says it."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = parse_list(value)
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in ("role", "from"):
                yield from _texts(item)
