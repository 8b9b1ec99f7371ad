"""What a turn says and nobody is shown: each such key is named in a warning."""

from __future__ import annotations

from typing import Any

from axtune.data.messages import Message
from axtune.errors import Problem

# Reasoning that stands beside the text. vLLM hands on the first two.
SERVED_REASONING = ("reasoning", "reasoning_content")
REASONING = (
    *("thinking", "thought", "thoughts", "reasoning_details", "analysis"),
    *("think", "thinking_content", "thinking_blocks", "reasoning_text", "reasoningContent"),
)
# Keys that mean something in some tool, and whose meaning is not kept when they say something.
_UNREAD = (
    "prefix",  # Mistral, DeepSeek: an answer to be continued
    "partial",  # Qwen: the same
    "files",
    "attachments",
    "documents",
    "refusal",  # OpenAI: what is said in place of the content
    "is_error",  # Anthropic: the result is an error
    "invalid_tool_calls",  # LangChain
    "output",
    "result",
    "response",
    "tool_response",
    "tool_responses",
    "tool_results",
    "observation",
    "task",
    "channel",  # Harmony: whether it is reasoning, a call or an answer
    "recipient",  # Harmony: what is called
    "toolInvocations",  # AI SDK: calls and their results
    "calls",
    "actions",
    "action",
    "action_input",
    "image_url",
    "ipython",  # torchtune: the turn calls a built-in tool
    "api_call",
    "api_calls",
    "artifact",  # LangChain: what a tool gave besides its text
    "artifacts",
    "alternatives",  # other answers, and what each was worth
    "candidates",
    "score",
    "rating",
    "feedback",
)
# What a call has, whatever its key: a name, and arguments.
_CALLED = {"name", "function", "tool", "tool_name", "toolName", "function_name", "action"}
_GIVEN = {"arguments", "args", "parameters", "params", "input", "kwargs", "action_input"}
# What a model that reads text is not shown; an answer about it would be learned blindly.
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
NOTHING: tuple[Any, ...] = (None, "", [], {}, False)


def unread_key(place: str, key: str) -> Problem:
    """The warning that a key, known from some tool, says something that nobody is shown."""
    text = f"{place}: the key {key} is not read; nothing of it is shown."
    return Problem("unread-key", text, "warning")


def reasoning_unseen(place: str, key: str) -> Problem:
    """The warning that a turn's reasoning is not learned."""
    text = (
        f"{place}: {key} is never shown by the template and is not labelled; write it into content "
        "as <think>…</think> to train it."
    )
    return Problem("reasoning-unseen", text, "warning")


def _are_calls(value: Any) -> bool:
    """Whether a value is a call, or a list of them, in a form like OpenAI's."""
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(
        isinstance(item, dict) and item.keys() & _CALLED and item.keys() & _GIVEN for item in items
    )


def unread_calls(place: str, key: str) -> Problem:
    """The problem that a key says what a turn calls, and is not read."""
    text = f"{place}: the key {key} holds calls and is not read; write them as tool_calls."
    return Problem("bad-tool-calls", text)


def report_unread(
    place: str, turn: Message, role: str, content_key: str | None, problems: list[Problem]
) -> None:
    """Warnings of what a turn says and nobody is shown.

    Args:
        place: Where the turn stands.
        turn: As a row has it.
        role: Its own, as `axtune.data.messages.known_role` names it.
        content_key: Under which its content stands, which is read.
        problems: Appended to.
    """
    for key in _UNREAD:
        if key == "channel" and turn.get(key) == "final":  # the answer, which is read
            continue
        if key in turn and turn[key] not in NOTHING and key != content_key:
            calls = _are_calls(turn[key]) and role in ("assistant", "tool_call")
            problems.append(unread_calls(place, key) if calls else unread_key(place, key))
    for key in _MEDIA:
        if turn.get(key) not in NOTHING:
            text = f"{place}.{key}: the models read text only; remove the row, or the key."
            problems.append(Problem("bad-content", text))
    served = role in ("assistant", "tool_call")
    if (
        served
        and turn.get("reasoning")
        and turn.get("reasoning_content")
        not in (
            None,
            turn["reasoning"],
        )
    ):
        problems.append(unread_key(place, "reasoning_content"))
    for key in REASONING if served else REASONING + SERVED_REASONING:
        if turn.get(key) not in NOTHING:
            problems.append(reasoning_unseen(place, key))
    kwargs = turn.get("additional_kwargs")  # LangChain
    if isinstance(kwargs, dict) and kwargs.get("reasoning_content"):
        problems.append(reasoning_unseen(place, "additional_kwargs.reasoning_content"))
    if turn.get("eot") is False:  # torchtune: the turn goes on
        problems.append(unread_key(place, "eot"))
    if turn.get("status") == "error":  # LangChain: the result is an error
        problems.append(unread_key(place, "status"))
    if role not in ("tool", "tool_call") and turn.get("name") not in NOTHING:
        problems.append(unread_key(place, "name"))
