"""A turn as any common tool writes it becomes OpenAI messages.

Which keys of a row hold turns is known to `axtune.data.formats`. Here is what a turn is: role and
content, ShareGPT's from and value, Anthropic's and Gemini's parts, the items of OpenAI Responses,
LangChain's messages, and the roles that calls and results have elsewhere.

Every key of a turn that means something in one of these tools is read, or named in a warning;
others (id, source, timestamp, …) are free. Nothing is guessed: what vLLM makes of a message is in
`axtune.data.conversation`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from axtune.data.calls import ArgumentsError, Call, is_openai, read_call, read_written_calls
from axtune.data.literals import parse_literal
from axtune.errors import Problem

Message = dict[str, Any]
# A turn as a row has it, or a message, with the place where it stands.
Placed = tuple[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")

# What each tool calls a role, in lower case (Cohere writes CHATBOT) and without hyphens.
_ROLES = {
    **{role: role for role in ROLES},
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "environment": "tool",
    "function_response": "tool",
    "function_result": "tool",
    "function_call_output": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "tool_output": "tool",
}
# Roles of turns that are calls: part of the assistant's turn before them, if that is open.
_CALL_ROLES = ("function_call", "tool_call")
# Under which keys a turn says who speaks; LangChain's type comes last.
_SPEAKERS = ("role", "from", "speaker", "sender", "type")
_SHAREGPT_ROLES = ("system", "human", "gpt", "function_call", "observation", "tool")
_PLAIN = {"role", "content"}
_PLAIN_ROLES = ("user", "assistant", "system", "developer", "tool")
_PLAIN_RESULT = {"role", "content", "tool_call_id", "name"}
_PLAIN_CALLS = {"role", "content", "tool_calls"}

_CONTENTS = ("content", "value", "text", "message", "parts")
_CALLS = (
    "tool_calls", "function_call", "function_calls", "tool_call", "toolCalls", "toolCall",
    "functionCall", "toolUse", "tool_use",
)  # fmt: skip
# Whether a turn is labelled: OpenAI, ms-swift and AgentInstruct, axolotl, LLaMA-Factory, XTuner.
_LABELLED = (
    "weight", "loss", "train", "training", "trainable", "loss_weight", "loss_scale",
    "output_with_loss",
)  # fmt: skip
_MASKED = ("masked",)  # torchtune
# Reasoning that stands beside the text. vLLM hands on the first two.
_SERVED_REASONING = ("reasoning", "reasoning_content")
_REASONING = ("thinking", "thought", "thoughts", "reasoning_details", "analysis")
# Keys that mean something in some tool, and whose meaning is not kept when they say something.
_UNREAD = (
    "prefix",  # Mistral, DeepSeek: an answer to be continued
    "partial",  # Qwen: the same
    "train_detail",  # axolotl: which characters are labelled
    "mask",  # labelled or not: tools differ
    "loss_mask",
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
)
# What a model that reads text is not shown; an answer about it would be learned blindly.
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
# Read somewhere below, or said elsewhere: no meaning of a turn is lost with these.
_USED = {
    *_SPEAKERS,
    "name",
    "tool_call_id",
    "call_id",
    "toolCallId",
    "tool_use_id",
    "tools",
    "functions",
    "additional_kwargs",
    "eot",
    "status",
    "id",
    *_CONTENTS,
    *_CALLS,
    *_LABELLED,
    *_MASKED,
    *_SERVED_REASONING,
    *_REASONING,
}
_NOTHING: tuple[Any, ...] = (None, "", [], {}, False)
_TEXT_PARTS = (None, "text", "input_text", "output_text", "refusal")
_THINKING_PARTS = ("thinking", "redacted_thinking", "reasoning", "summary_text", "reasoning_text")
_CALL_PARTS = ("tool_use", "tool_call", "tool-call", "function_call")
_RESULT_PARTS = ("tool_result", "tool-result")
# Of the AI SDK: a call with its result, and what no model is shown.
_INVOCATION, _OTHER_INVOCATIONS = "tool-", ("dynamic-tool", "tool-invocation")
_STEP, _UNSHOWN = "step-start", ("source", "source-url", "source-document")
_CALL_IDS = ("tool_call_id", "call_id", "tool_use_id", "toolCallId", "toolUseId")


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


def bad_role(place: str, role: Any, known: Iterable[str]) -> Problem:
    """The problem of a role that is none of the known ones, with the one it is most like."""
    names = list(known)
    close = (
        difflib.get_close_matches(role.strip().lower(), names, 1, 0.5)
        if isinstance(role, str)
        else []
    )
    hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names)}."
    if role == "tools":  # what some call results, and some the tools themselves
        hint = "write a result with the role tool, and the tools themselves at the row's key tools."
    return Problem("bad-role", f"{place}: unknown role; {hint}")


def known_role(written: str) -> str | None:
    """The role that some tool calls so; ``tool_call`` of a turn that is calls."""
    name = written.lower().replace("-", "_")
    return "tool_call" if name in _CALL_ROLES else _ROLES.get(name)


def as_context(turn: Any) -> Any:
    """A turn that is context unless it says itself that it is to be labelled."""
    if not isinstance(turn, dict) or any(turn.get(key) is not None for key in _LABELLED + _MASKED):
        return turn
    return {**turn, "weight": 0}


def read_turns(turns: list[Placed], problems: list[Problem]) -> tuple[list[Placed], list[Placed]]:
    """The OpenAI messages of turns.

    Args:
        turns: As a row has them.
        problems: Appended to.

    Returns:
        The messages, not normalised yet; and the tools that turns hold, each with its place.
    """
    out: list[Placed] = []
    tools: list[Placed] = []
    for place, turn in turns:
        if _is_plain(turn) or not isinstance(turn, dict):
            out.append((place, turn))
            continue
        for key in ("tools", "functions"):
            if turn.get(key) not in (None, "", []):
                tools.append((f"{place}.{key}", turn[key]))
        messages = _read_turn(place, _unwrapped(turn), problems)
        if messages and out and _continues(out[-1][1], turn, messages[0][1]):
            first, message = out[-1]
            out[-1] = (first, _joined(place, message, messages[0][1], problems))
        else:
            out += messages
    return out, tools


def _is_plain(turn: Any) -> bool:
    """Whether a turn is wholly of OpenAI's form, as most are."""
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), (str, type(None))):
        return False
    keys, role = turn.keys(), turn.get("role")
    if keys == _PLAIN:
        return role in _PLAIN_ROLES
    if role == "tool":
        return "content" in keys and keys <= _PLAIN_RESULT
    if role != "assistant" or keys != _PLAIN_CALLS:
        return False
    calls = turn["tool_calls"]
    return isinstance(calls, list) and all(map(is_openai, calls))


def _continues(before: Any, turn: Message, message: Message) -> bool:
    """Whether a turn of nothing but calls is part of the assistant's message before it."""
    return (
        _written_role(turn)[1] == "tool_call"
        and isinstance(before, dict)
        and before.get("role") == "assistant"
        and not message["content"]
    )


def _joined(place: str, first: Message, second: Message, problems: list[Problem]) -> Message:
    """An assistant's message with calls that stand in a turn of their own."""
    if first.get("weight") != second.get("weight"):
        text = f"{place}: labelled otherwise than the turn that it belongs to; label both or none."
        problems.append(Problem("bad-weight", text))
    given = first.get("tool_calls") or []
    return {**second, **first, "tool_calls": [*given, *second["tool_calls"]]}


# --- one turn ---------------------------------------------------------------------------------


def _unwrapped(turn: Message) -> Message:
    """A turn out of the object that some dumps put around it."""
    if isinstance(turn.get("data"), dict) and "content" not in turn:  # LangChain's messages_to_dict
        return {"type": turn.get("type"), **turn["data"]}
    if isinstance(turn.get("kwargs"), dict) and isinstance(turn.get("id"), list):  # its dumpd
        kind = str(turn["id"][-1:]).strip("[]'").removesuffix("Chunk").removesuffix("Message")
        return {"type": kind, **turn["kwargs"]}
    if isinstance(turn.get("message"), dict) and "role" in turn["message"]:  # OpenAI's choices
        return turn["message"]  # type: ignore[no-any-return]
    if _is_ui_message(turn):  # the AI SDK's: its parts say all, and these say it again
        return {key: turn[key] for key in turn if key not in ("content", "toolInvocations")}
    return turn


def _is_ui_message(turn: Message) -> bool:
    """Whether a turn has the parts of the AI SDK, which have a type each; Gemini's have none."""
    parts = turn.get("parts")
    return (
        isinstance(parts, list)
        and bool(parts)
        and all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts)
    )


def _written_role(turn: Message) -> tuple[str, str | None]:
    """The key of a turn's role, and the role that stands there; None of an unknown one."""
    key = next((key for key in _SPEAKERS if turn.get(key) is not None), "role")
    written = turn.get(key)
    return key, known_role(written) if isinstance(written, str) else None


def _read_turn(place: str, turn: Message, problems: list[Problem]) -> list[Placed]:
    """The messages of a turn: one, several where results stand in parts, none where it is broken
    or holds nothing that is shown.
    """
    if turn.get("type") == "reasoning" and "role" not in turn:  # an item of OpenAI Responses
        problems.append(reasoning_unseen(place, "reasoning"))
        return []
    role = _role(place, turn, problems)
    if role is None:
        return []
    where = _content_key(place, turn, problems)
    said = turn[where] if where == "value" else None
    if isinstance(said, list) and len(said) > 1 and all(isinstance(text, str) for text in said):
        text = (
            f"{place}.value: a list of {len(said)} texts; expected one. Give each a row of its own."
        )
        problems.append(Problem("bad-content", text))
        return []
    _report_unread(place, turn, role, where, problems)
    message: Message = {"role": "assistant" if role in _CALL_ROLES else role}
    _label(place, turn, message, problems)
    for key in _SERVED_REASONING:
        if key in turn:
            message[key] = turn[key]
    if isinstance(turn.get("name"), str) and role != "tool_call":
        message["name"] = turn["name"]
    if message["role"] == "tool":
        message |= _call_id(turn)
    if role in _CALL_ROLES:
        return _call_turn(place, where, turn, message, problems)
    calls = _read_calls(place, turn, problems)
    sharegpt = "from" in turn and "role" not in turn
    if where is None and not calls and (sharegpt or _says_elsewhere(turn)):
        expected = "from and value" if sharegpt else "role and content"
        problems.append(Problem("bad-messages", f"{place}: expected keys {expected}."))
        return []
    content = turn[where] if where else None
    if isinstance(content, dict) and content.get("type") in ("text", *_CALL_PARTS, *_RESULT_PARTS):
        content = [content]
    if calls:
        message["tool_calls"] = calls
    if isinstance(content, list) and not all(map(_is_text_part, content)):
        return _Parts(place, message, problems).read(content)
    return [(place, {**message, "content": content})]


def _role(place: str, turn: Message, problems: list[Problem]) -> str | None:
    """The role of a turn; those of calls are kept."""
    key, role = _written_role(turn)
    if role is None:
        if key == "type":
            text = f"{place}: an item of a type that is not read; expected keys role and content."
            problems.append(Problem("bad-messages", text))
        else:
            problems.append(
                bad_role(place, turn.get(key), _SHAREGPT_ROLES if key == "from" else ROLES)
            )
        return None
    if role == "tool_call":
        return role
    other = turn.get("from")
    if key == "role" and isinstance(other, str) and _ROLES.get(other.lower(), role) != role:
        problems.append(Problem("bad-role", f"{place}: role and from differ; remove one."))
    return role


def _report_unread(
    place: str, turn: Message, role: str, content_key: str | None, problems: list[Problem]
) -> None:
    """Warnings of what a turn says and nobody is shown."""
    for key in _UNREAD:
        if key in turn and turn[key] not in _NOTHING and key != content_key:
            problems.append(unread_key(place, key))
    for key in _MEDIA:
        if turn.get(key) not in _NOTHING:
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
    for key in _REASONING if served else _REASONING + _SERVED_REASONING:
        if turn.get(key) not in _NOTHING:
            problems.append(reasoning_unseen(place, key))
    kwargs = turn.get("additional_kwargs")  # LangChain
    if isinstance(kwargs, dict) and kwargs.get("reasoning_content"):
        problems.append(reasoning_unseen(place, "additional_kwargs.reasoning_content"))
    if turn.get("eot") is False:  # torchtune: the turn goes on
        problems.append(unread_key(place, "eot"))
    if turn.get("status") == "error":  # LangChain: the result is an error
        problems.append(unread_key(place, "status"))
    if role not in ("tool", "tool_call") and turn.get("name") not in _NOTHING:
        problems.append(unread_key(place, "name"))


def _label(place: str, turn: Message, message: Message, problems: list[Problem]) -> None:
    """Sets ``weight`` to 0 in the message of a turn that is context only."""
    said: dict[str, bool] = {}
    for key in _LABELLED + _MASKED:
        value = turn.get(key)
        if isinstance(value, str):  # tables without booleans
            value = {"true": True, "false": False, "1": True, "0": False, "": None}.get(
                value.strip().lower(), value
            )
        if value is None:
            continue
        if value in (0, 1):
            said[key] = bool(value) is not (key in _MASKED)
        elif key == "weight":
            text = f"{place}.weight: expected 0 (context only) or 1 (labelled)."
            problems.append(Problem("bad-weight", text))
        elif isinstance(value, (int, float)):
            text = f"{place}.{key}: expected true or false; a turn is labelled wholly or not."
            problems.append(Problem("bad-weight", text))
        else:
            problems.append(unread_key(place, key))
    if len(set(said.values())) > 1:
        text = f"{place}: {' and '.join(said)} contradict each other; keep one."
        problems.append(Problem("bad-weight", text))
    if message["role"] == "assistant":
        if said and not all(said.values()):
            message["weight"] = 0
    elif any(said.values()):
        text = f"{place}: only an assistant's turn is labelled; {next(iter(said))} is not read."
        problems.append(Problem("unread-key", text, "warning"))


def _content_key(place: str, turn: Message, problems: list[Problem]) -> str | None:
    """The key that holds what a turn says; others that say something else are reported."""
    keys = [key for key in _CONTENTS if key in turn]
    if turn.get("type") == "function_call_output":
        keys = ["output"]
    full = [key for key in keys if turn[key] not in (None, "", [])]
    for key in full[1:]:
        if turn[key] != turn[full[0]]:
            problems.append(unread_key(place, key))
    return full[0] if full else keys[0] if keys else None


def _says_elsewhere(turn: Message) -> bool:
    """Whether a turn without content holds something under a key of its own."""
    return any(
        key not in _USED and value not in _NOTHING and not isinstance(value, bool)
        for key, value in turn.items()
    )


def _call_id(result: Message) -> Message:
    """The id of the call that a result answers, under its key in OpenAI's form."""
    ids = [result[key] for key in _CALL_IDS if isinstance(result.get(key), str)]
    return {"tool_call_id": ids[0]} if ids else {}


# --- calls ------------------------------------------------------------------------------------


def _call_turn(
    place: str, key: str | None, turn: Message, message: Message, problems: list[Problem]
) -> list[Placed]:
    """A turn that is calls: as JSON text or values, behind the assistant's thoughts perhaps."""
    item = {name: value for name, value in turn.items() if name not in _LABELLED}
    value = item if key is None else turn[key]
    at = place if key is None else f"{place}.{key}"
    text = ""
    if isinstance(value, str):
        if "<tool_call>" in value:  # Hermes text, taken apart later
            return [(place, {**message, "content": value, "tool_calls": []})]
        thought, end, rest = value.partition("</think>")
        if end and thought.lstrip().startswith("<think>"):
            text, value = (thought + end).strip(), rest
        try:
            value = read_written_calls(value)
        except ValueError:
            text = f'{at}: expected a call as JSON, {{"name", "arguments"}}, or a list of them.'
            problems.append(Problem("bad-tool-calls", text))
            return []
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        value = [part.get("text", part) if part.get("type") == "text" else part for part in value]
    calls = _call_items(at, value if isinstance(value, list) else [value], problems)
    return [(place, {**message, "content": text, "tool_calls": calls})]


def _read_calls(place: str, turn: Message, problems: list[Problem]) -> list[Any]:
    """The calls that stand beside a turn's text."""
    holder = turn
    kwargs = turn.get("additional_kwargs")
    if isinstance(kwargs, dict) and not any(turn.get(key) for key in _CALLS):
        holder = kwargs  # older LangChain
    read: list[Any] = []
    for key in _CALLS:
        value = holder.get(key)
        if value in _NOTHING:
            continue
        if isinstance(value, str):
            try:
                value = read_written_calls(value)
            except ValueError:
                text = f"{place}.{key}: expected a list of calls."
                problems.append(Problem("bad-tool-calls", text))
                continue
        if not isinstance(value, list):
            value = [value]
        calls = _call_items(f"{place}.{key}", value, problems)
        if read and [c["function"] for c in read] != [c["function"] for c in calls]:
            text = f"{place}: {key} and another key hold different calls; keep tool_calls."
            problems.append(Problem("bad-tool-calls", text))
        read = read or calls
    return read


def _call_items(at: str, calls: list[Any], problems: list[Problem]) -> list[Any]:
    """Calls in OpenAI's form; none when one of them is refused."""
    read = [_call(f"{at}[{index}]", call, problems) for index, call in enumerate(calls)]
    items = [call.item for call in read if call]
    return items if len(items) == len(calls) else []


def _call(at: str, call: Any, problems: list[Problem]) -> Call | None:
    if isinstance(call, str) and call.lstrip().startswith("{"):  # in a table's list
        with suppress(ValueError):  # refused below
            call = parse_literal(call)
    try:
        read = read_call(call)
    except ArgumentsError as error:
        problems.append(Problem("bad-arguments", f"{at}: {error}."))
        return None
    except ValueError as error:
        problems.append(Problem("bad-tool-calls", f"{at}: {error}."))
        return None
    problems += [unread_key(at, key) for key in read.unread]
    return read


# --- contents in parts ------------------------------------------------------------------------


def _is_text_part(part: Any) -> bool:
    """Whether a part is one that vLLM reads as text."""
    return isinstance(part, str) or (
        isinstance(part, dict) and part.get("type") in _TEXT_PARTS[1:] and "value" not in part
    )


def _is_invocation(kind: Any) -> bool:
    return isinstance(kind, str) and (
        kind in _OTHER_INVOCATIONS
        or (kind.startswith(_INVOCATION) and kind not in (*_CALL_PARTS, *_RESULT_PARTS))
    )


def _as_javascript(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass
class _Parts:
    """Parts of a content, taken apart: texts, calls, results, thoughts.

    Attributes:
        place: Where the turn stands.
        message: Its role and whatever else a message has, without the content.
        problems: Appended to.
        out: The messages so far.
        texts: Text parts since the last result.
        calls: Calls.
        results: Results of the calls, where they stand in one part with them.
    """

    place: str
    message: Message
    problems: list[Problem]
    out: list[Placed] = field(default_factory=list)
    texts: list[Any] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    results: list[Placed] = field(default_factory=list)

    def read(self, parts: list[Any]) -> list[Placed]:
        """The messages of all parts."""
        for index, part in enumerate(parts):
            self._read_part(f"{self.place}.content[{index}]", part)
        if self.texts or self.calls or not self.out:
            self._close(self.place)
        return self.out

    def _close(self, place: str) -> None:
        calls = [*self.message.get("tool_calls", ()), *self.calls]
        message = {**self.message, "content": self.texts}
        self.out.append((place, message | ({"tool_calls": calls} if calls else {})))
        self.out += self.results
        self.texts, self.calls, self.results = [], [], []

    def _read_part(self, at: str, part: Any) -> None:
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        if not isinstance(part, dict):
            self._refuse(at)
            return
        full = {key: value for key, value in part.items() if value is not None}
        if not full and part:  # of a table, which fills absent keys with null
            return
        part = full
        kind = part.get("type")
        if kind in _THINKING_PARTS or part.get("thought") is True or "reasoningContent" in part:
            self.problems.append(reasoning_unseen(at, "thinking"))
        elif kind == _STEP:
            if self.texts or self.calls:
                self._close(self.place)
        elif isinstance(kind, str) and (kind in _UNSHOWN or kind.startswith("data-")):
            self.problems.append(unread_key(at, "source" if kind in _UNSHOWN else "data"))
        elif _is_invocation(kind):
            self._read_invocation(at, part)
        elif kind in _RESULT_PARTS or part.keys() & {"toolResult", "functionResponse"}:
            self._read_result(at, part)
        elif kind in _CALL_PARTS or part.keys() & {"toolUse", "functionCall"}:
            value = part.get("value", part)  # LLaMA-Factory: JSON text
            if call := _call(at, value, self.problems):
                self.calls.append(call.item)
        elif kind in _TEXT_PARTS and (part.keys() & {"text", "value", "refusal"} or kind):
            text = part.get("text", part.get("value", part.get("refusal")))
            if self.results and isinstance(text, str) and text.strip():
                self._close(self.place)
            if not isinstance(text, (str, type(None))):
                self._refuse(at)
            elif self.calls and text and text.strip():
                message = (
                    f"{at}: there is text behind a call; a turn's text stands before its calls."
                )
                self.problems.append(Problem("bad-tool-calls", message))
            elif text:
                self.texts.append(text)
        elif "cachePoint" not in part:
            self._refuse(at)

    def _refuse(self, at: str) -> None:
        message = (
            f"{at}: expected a text part; the models read text only. Write JSON data as a string."
        )
        self.problems.append(Problem("bad-content", message))

    def _read_invocation(self, at: str, part: Message) -> None:
        """The AI SDK's call, with its result once there is one."""
        inner = part.get("toolInvocation")
        inner = inner if isinstance(inner, dict) else part
        name = inner.get("toolName") or str(part["type"]).removeprefix(_INVOCATION)
        given = {key: inner[key] for key in ("toolCallId", "input", "args") if key in inner}
        call = _call(at, {"type": "tool-call", "toolName": name, **given}, self.problems)
        if call is None:
            return
        self.calls.append(call.item)
        said = next((inner[k] for k in ("output", "result", "errorText") if k in inner), None)
        if said is not None:
            # As its providers send it: JSON.stringify.
            text = said if isinstance(said, str) else _as_javascript(said)
            self.results.append((at, {"role": "tool", "content": text, **_call_id(inner)}))

    def _read_result(self, at: str, part: Message) -> None:
        """Anthropic's, the AI SDK's, Bedrock's or Gemini's result."""
        part = part.get("toolResult") or part.get("functionResponse") or part
        if self.texts:
            self._close(self.place)
        if part.get("is_error") or part.get("isError") or part.get("status") == "error":
            self.problems.append(unread_key(at, "is_error"))
        content = next(
            (part[k] for k in ("content", "output", "result", "response") if k in part), ""
        )
        if isinstance(content, dict) and content.keys() == {"type", "value"}:  # the AI SDK
            content = content["value"]
        if isinstance(content, list):
            bad = [inner for inner in content if not isinstance(inner, (str, dict))]
            texts = [inner.get("text") if isinstance(inner, dict) else inner for inner in content]
            if bad or not all(isinstance(text, str) for text in texts):
                self._refuse(at)
                return
            content = texts
        message: Message = {"role": "tool", "content": content}
        message |= _call_id(part)
        name = part.get("name", part.get("toolName"))
        message |= {"name": name} if isinstance(name, str) else {}
        self.out.append((at, message))
