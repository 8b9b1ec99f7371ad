"""What a row says in columns that are not read: named, or refused where an answer depends on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

from axtune.data.cells import parse_list, says
from axtune.data.choices import choice_columns, is_choices, unseen_choices
from axtune.data.context import is_context, unseen_context
from axtune.data.key_names import HOLDERS, plain
from axtune.data.labels import is_mark
from axtune.data.preferences import LABELS, PAIRS, REJECTED
from axtune.data.prompts import ANSWERS, CONVERSATIONS, QUESTIONS, SYSTEMS
from axtune.data.row_labels import ON_QUESTIONS
from axtune.data.tools import TOOL_KEYS, other_tools
from axtune.errors import Problem

# What a model that reads text is not shown; an answer about it would be learned blindly.
_MEDIA = frozenset(("images", "image", "videos", "video", "audios", "audio", "rejected_images"))
# Every key that axtune or another tool (TRL, LLaMA-Factory, ms-swift, Axolotl, Unsloth, OpenAI)
# gives a meaning to. One that says something and was not read is named; all other keys are free.
KNOWN = _MEDIA.union(
    # conversations, questions, answers
    ("messages", *CONVERSATIONS, "instruction", *QUESTIONS, *ANSWERS, "history", "context", "text"),
    ("system", "system_prompt", *TOOL_KEYS, "target", "targets", "solution", "segments"),
    ("answers", "chat", "contents", "instructions", "systemInstruction", "system_instruction"),
    # judgements
    (*(key for keys in PAIRS for key in keys), *REJECTED, "rejected_tools", *LABELS, "completions"),
    ("accepted", "response_0", "response_1", "better_response_id", "response_j", "response_k"),
    ("margin", "score", "score_chosen", "score_rejected", "ref_chosen_logps", "ref_rejected_logps"),
    # what is learned of a row, and how much
    ("weight", "loss_scale", "completion_mask", "assistant_masks", "loss_mask", *ON_QUESTIONS),
    ("sample_weight", "example_weight", "row_weight", "importance", "importance_weight"),
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
    ("feedback", "kto_label", "thumbs", "preference", "preferred", "winner", "verdict"),
    ("quality_score", "user_feedback", "human_feedback", "평가", "error"),
    ("helpfulness", "correctness", "coherence", "overall_preference", "preference_strength"),
    ("rejected_answer", "rejected_completion", "negative", "dispreferred", "bad_response"),
    ("incorrect_answers", "wrong_answers", "correct_answers", "correct_answer", "best_answer"),
    ("positive_messages", "negative_messages", "alternatives", "generations", "chosen_rating"),
    ("rejected_rating", "chosen_score", "rejected_score"),
    ("image_url", "image_urls", "image_path", "pixel_values", "file", "files", "attachments"),
)
_KNOWN = frozenset(map(plain, KNOWN))  # in tables also as Prompt, Messages


def unread_columns(
    fields: dict[str, Any], shape: str, turns: list[Any], tools: Any
) -> Iterator[Problem]:
    """The problems of columns that say something, have a meaning in some tool, and were not read.

    Args:
        fields: The row's cells that are left.
        shape: What the row is read as.
        turns: Every turn that is read of it.
        tools: The tools that are read of it.
    """
    if not fields:
        return
    left = {key: value for key, value in fields.items() if _is_known(key) and says(value)}
    for key in filter(_MEDIA.__contains__, list(left)):
        del left[key]
        message = (
            f"{key}: the models read text only, and would learn to answer what they do not see; "
            "remove the row, or the key where the text says it all."
        )
        yield Problem("bad-content", message)
    left |= {".".join(keys): value for keys, value in other_tools(fields) if value != tools}
    one_by_one = choice_columns(fields)
    left |= _systems_beside(fields) | one_by_one
    if not left:
        return
    texts = {text.strip() for text in _texts(turns)}
    for key, value in list(left.items()):
        # What an answer is about often stands within a longer question.
        within = key in one_by_one or is_context(key) or is_choices(key) or key == "text"
        if _repeats(value, texts, within=within):
            del left[key]
    for key, problem in (*unseen_context(left), *unseen_choices(left)):
        del left[key]
        yield problem
    for key in [key for key in left if plain(key) == "label"]:
        del left[key]
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


@lru_cache(maxsize=4096)
def _is_known(key: str) -> bool:
    return plain(key) in _KNOWN or is_mark(key) or is_context(key) or is_choices(key)


def _systems_beside(fields: dict[str, Any]) -> dict[str, Any]:
    """The system prompts in objects beside the row."""
    return {
        f"{key}.{inner}": value[inner]
        for key, value in fields.items()
        if isinstance(value, dict) and plain(key) in HOLDERS
        for inner in SYSTEMS
        if says(value.get(inner))
    }


def _repeats(value: Any, texts: set[str], *, within: bool) -> bool:
    """Whether a cell only says again what is read, or a part of it."""
    said = [text.strip() for text in _texts(value)]
    if within:
        return bool(said) and all(any(text in read for read in texts) for text in said)
    return bool(said) and texts.issuperset(said)


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
