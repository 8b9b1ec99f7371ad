"""Messages and tools become a Conversation, normalised as vLLM normalises a request.

The normalisation follows vLLM 0.32: ``vllm/renderers/chat_utils.py`` (contents, arguments),
``vllm/entrypoints/generate/base/protocol.py`` (tools) and ``vllm/renderers/hf.py`` (developer).
What vLLM hides, such as arguments that are not an object, is a problem of the row here.

Messages of problems name places (``messages[2].tool_calls[0]``), never what a row says.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from axtune.checkpoint.tokenizer import Tool
from axtune.data.key_names import described
from axtune.data.literals import parse_json
from axtune.data.messages import ROLES, Message, bad_role
from axtune.errors import Problem

_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation in the form that a serving engine hands to the template.

    Attributes:
        messages: Keys ``role``, ``content`` (a string) and, where given, ``name``; for the
            assistant also ``tool_calls`` (``type``, ``function`` with ``name`` and ``arguments``,
            an object) and ``reasoning_content``; for a result ``tool_call_id``. The role
            ``developer`` is still itself: see `as_served`.
        tools: In vLLM's key order, or None.
        places: Where each message stands in the row, such as ``messages[2]``.
        learn: Indices of the assistant turns to be labelled.
    """

    messages: list[Message]
    tools: list[Tool] | None
    places: list[str]
    learn: list[int]


def as_served(messages: list[Message]) -> list[Message]:
    """What vLLM hands to a template that knows no developer role (vllm/renderers/hf.py).

    A developer turn becomes a system turn; and then all system turns, when one of them is not the
    first message, are merged into one at the beginning, joined by an empty line.
    """
    if all(message["role"] != "developer" for message in messages):
        return messages
    messages = [
        {**message, "role": "system"} if message["role"] == "developer" else message
        for message in messages
    ]
    system = [index for index, message in enumerate(messages) if message["role"] == "system"]
    merged = "\n\n".join(
        messages[index]["content"] for index in system if messages[index]["content"]
    )
    rest = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": merged}, *rest]


def normalise_request(
    raw: list[tuple[str, Any]], raw_tools: Any, problems: list[Problem]
) -> Conversation:
    """Normalise messages and tools as vLLM does; what it would refuse or hide is a problem.

    Args:
        raw: Each message with the place it came from. ``weight: 0`` marks an assistant turn that
            is context only.
        raw_tools: OpenAI tools, bare functions, or None.
        problems: Appended to.

    Returns:
        The conversation; whole only when no problem is an error.
    """
    conversation = Conversation([], _normalise_tools(raw_tools, problems), [], [])
    for place, message in raw:
        if normal := _normalise_message(place, message, problems):
            weight = message.get("weight")
            if weight not in (None, 0, 1):
                text = f"{place}.weight: expected 0 (context only) or 1 (labelled)."
                problems.append(Problem("bad-weight", text))
            if normal["role"] == "assistant" and weight != 0:
                conversation.learn.append(len(conversation.messages))
            conversation.messages.append(normal)
            conversation.places.append(place)
    return conversation


# --- messages ---------------------------------------------------------------------------------


def _normalise_message(place: str, message: Any, problems: list[Problem]) -> Message | None:
    if not isinstance(message, dict):
        problems.append(
            Problem(
                "bad-messages",
                f"{place}: expected an object with role and content, found {described(message)}.",
            )
        )
        return None
    role = message.get("role")
    if role not in ROLES:
        problems.append(bad_role(place, role, ROLES))
        return None
    content = _text(place, message.get("content"), problems)
    out: Message = {"role": role, "content": content}
    if role == "assistant":
        if calls := message.get("tool_calls"):
            out["tool_calls"] = _normalise_calls(place, calls, problems)
        reasoning = message.get("reasoning")
        if reasoning is None:
            reasoning = message.get("reasoning_content")
        if reasoning is not None:
            out["reasoning_content"] = reasoning
    elif message.get("tool_calls"):
        problems.append(
            Problem("bad-tool-calls", f"{place}: only an assistant message can have tool_calls.")
        )
    if role == "tool" and isinstance(message.get("tool_call_id"), str):
        out["tool_call_id"] = message["tool_call_id"]
    if isinstance(message.get("name"), str):
        out["name"] = message["name"]
    return out


def _text(place: str, content: Any, problems: list[Problem]) -> str:
    """A content as text: null is empty, text parts are joined with a newline."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list):
        texts = []
        for index, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else None
            text = part if isinstance(part, str) else None
            if isinstance(part, dict) and kind in _TEXT_PARTS:
                text = part.get("refusal" if kind == "refusal" else "text")
                text = "" if text is None else text
            if not isinstance(text, str):
                message = (
                    f"{place}.content[{index}]: expected a text part; the models read text only. "
                    "Write JSON data as a string."
                )
                problems.append(Problem("bad-content", message))
                continue
            if text:  # vLLM drops empty parts before it joins
                texts.append(text)
        return "\n".join(texts)
    message = f"{place}.content: expected a text, null or text parts; write JSON data as a string."
    problems.append(Problem("bad-content", message))
    return ""


def _normalise_calls(place: str, calls: Any, problems: list[Problem]) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        problems.append(Problem("bad-tool-calls", f"{place}.tool_calls: expected a list of calls."))
        return []
    out = []
    for index, call in enumerate(calls):
        at = f"{place}.tool_calls[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or call.get("type", "function") != "function":
            message = f'{at}: expected {{"type": "function", "function": {{"name", "arguments"}}}}.'
            problems.append(Problem("bad-tool-calls", message))
        elif (
            not isinstance(name, str)
            or not name
            or json.dumps(name, ensure_ascii=False) != f'"{name}"'
        ):
            message = f"{at}: expected a function name, without quotes or line breaks."
            problems.append(Problem("bad-tool-calls", message))
        elif (arguments := _arguments(at, function.get("arguments"), problems)) is not None:
            item: dict[str, Any] = {"type": "function"}
            if isinstance(call.get("id"), str):
                item["id"] = call["id"]
            item["function"] = {"name": name, "arguments": arguments}
            out.append(item)
    return out


def _arguments(at: str, value: Any, problems: list[Problem]) -> dict[str, Any] | None:
    """A call's arguments as an object; vLLM takes null and the empty string for ``{}``."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            message = (
                f"{at}.function.arguments: the string is not JSON; vLLM would show {{}} instead."
            )
            problems.append(Problem("bad-arguments", message))
            return None
    if not isinstance(value, dict):
        message = f"{at}.function.arguments: expected an object; vLLM would show {{}} instead."
        problems.append(Problem("bad-arguments", message))
        return None
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        message = f"{at}.function.arguments: a number is not finite, which JSON cannot express."
        problems.append(Problem("bad-arguments", message))
        return None
    return value


# --- tools ------------------------------------------------------------------------------------


def _normalise_tools(raw: Any, problems: list[Problem]) -> list[Tool] | None:
    if not raw:
        return None
    if not isinstance(raw, list):
        problems.append(Problem("bad-tools", "tools: expected a list of tools."))
        return None
    tools: list[Tool] = []
    by_name: dict[str, Tool] = {}
    for index, tool in enumerate(raw):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        wrong = _wrong_with_function(function)
        if (
            isinstance(tool, dict)
            and "function" in tool
            and tool.get("type", "function") != "function"
        ):
            wrong = 'the type is not function; expected "type": "function"'
        if wrong or not isinstance(function, dict):
            problems.append(Problem("bad-tools", f"tools[{index}]: {wrong}."))
            continue
        # The key order of vLLM's FunctionDefinition; unknown keys vanish there too.
        normal = {key: function.get(key) for key in ("name", "description", "parameters")}
        if function.get("strict") is not None:
            normal["strict"] = function["strict"]
        made = Tool(normal)
        if "Infinity" in made.json or "NaN" in made.json:
            try:
                parse_json(made.json)
            except ValueError:
                message = f"tools[{index}]: a number is not finite, which JSON cannot express."
                problems.append(Problem("bad-tools", message))
                continue
        if by_name.setdefault(function["name"], made) != made:
            message = (
                f"tools[{index}]: another tool of the row has its name and says something else; a "
                "call could mean either. Rename one, or remove it."
            )
            problems.append(Problem("bad-tools", message))
        tools.append(made)
    return tools


def _wrong_with_function(function: Any) -> str | None:
    if not isinstance(function, dict):
        return 'expected {"type": "function", "function": {…}}'
    for key, kind, form in (
        ("name", str, "a text"),
        ("description", (str, type(None)), "a text"),
        ("parameters", (dict, type(None)), "a JSON Schema object"),
        ("strict", (bool, type(None)), "true or false"),
    ):
        if not isinstance(function.get(key), kind):
            return f"function.{key}: expected {form}"
    return None


# --- decomposed text --------------------------------------------------------------------------


def to_nfc(conversation: Conversation) -> Conversation:
    """The conversation with contents, calls and tools in NFC."""
    tools = conversation.tools
    return replace(
        conversation,
        messages=_nfc(conversation.messages),
        tools=tools and [Tool(_nfc(tool["function"])) for tool in tools],
    )


def _nfc(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else unicodedata.normalize("NFC", value)
    if isinstance(value, list):
        return [_nfc(item) for item in value]
    if isinstance(value, dict):
        return {_nfc(key): _nfc(item) for key, item in value.items()}
    return value
