"""A call to a tool, as any common tool writes it, in OpenAI's form.

OpenAI's own is ``{"type": "function", "function": {"name", "arguments"}}``. Flat calls are read too
(LangChain's ``args``, Anthropic's ``input``, Cohere's ``parameters``, OpenAI Responses'
``function_call``), and so are calls written as Python (``[f(a=1)]``: ToolACE, Llama).
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any, NamedTuple

from axtune.data.literals import parse_sequence

_NAMES = ("name", "tool_name", "toolName", "function_name", "tool")
_ARGUMENTS = ("arguments", "args", "parameters", "params", "input", "tool_input", "kwargs")
_IDS = ("call_id", "tool_call_id", "toolCallId", "toolUseId", "id")
# A call inside of its type's object: OpenAI, Gemini, Bedrock.
_WRAPPERS = ("function", "functionCall", "toolUse")
_TYPES = (None, "function", "function_call", "tool_call", "tool-call", "tool_use")
# What a call's object also holds: nothing that the model is shown.
_NEUTRAL = {*_NAMES, *_ARGUMENTS, *_IDS, *_WRAPPERS, "type", "index", "status", "cache_control"}
# What belongs elsewhere, and would be lost here: a result, a thought.
_UNREAD = ("result", "results", "output", "response", "observation", "error", "thought", "thinking")
_PLAIN = {"id", "type", "function", "index"}
_PLAIN_FUNCTION = {"name", "arguments"}
_EMPTY: tuple[Any, ...] = (None, "", {})
_EXPECTED = 'expected {"type": "function", "function": {"name", "arguments"}}'
# Python's call; the names of ToolACE's functions have spaces.
_PYTHON_CALL = re.compile(r"\s*([^\s\[\]()=,'\"][^\[\]()=,'\"]*?)\s*\(")
_CONSTANTS = {"true": True, "false": False, "null": None}


class Call(NamedTuple):
    """A call, and what of it is not read.

    Attributes:
        item: In OpenAI's form; name and arguments are as the row has them.
        unread: Keys that mean something and are shown to no model.
    """

    item: dict[str, Any]
    unread: list[str]


class ArgumentsError(ValueError):
    """A call whose arguments cannot be told."""


def is_openai(call: Any) -> bool:
    """Whether a call is wholly of OpenAI's form, as most are."""
    return (
        isinstance(call, dict)
        and call.get("type") == "function"
        and call.keys() <= _PLAIN
        and isinstance(function := call.get("function"), dict)
        and function.keys() == _PLAIN_FUNCTION
    )


def read_call(call: Any) -> Call:
    """A call of any form.

    Args:
        call: An object.

    Raises:
        ArgumentsError: When it is not clear which of its keys holds the arguments.
        ValueError: When it is no call.
    """
    if not isinstance(call, dict):
        raise ValueError(_EXPECTED)
    if is_openai(call):
        return Call(call, [])
    if call.get("type") not in _TYPES:
        raise ValueError(_EXPECTED)
    flat = {key: value for key, value in call.items() if value is not None}
    for key in _WRAPPERS:
        if isinstance(flat.get(key), dict):
            inner = flat.pop(key)
            flat |= {inner_key: value for inner_key, value in inner.items() if value is not None}
    names = [flat[key] for key in _NAMES if key in flat]
    if isinstance(call.get("function"), str) and not names:
        names = [call["function"]]
    if not names:
        raise ValueError(_EXPECTED)
    item: dict[str, Any] = {"type": "function"}
    if ids := [flat[key] for key in _IDS if isinstance(flat.get(key), str)]:
        item["id"] = ids[0]
    item["function"] = {"name": names[0], "arguments": _arguments(flat)}
    return Call(item, [key for key in _UNREAD if flat.get(key) not in (None, "", [], {})])


def _arguments(flat: dict[str, Any]) -> Any:
    given = [flat[key] for key in _ARGUMENTS if key in flat]
    full = [value for value in given if value not in _EMPTY]
    if any(value != full[0] for value in full[1:]):
        raise ArgumentsError("the arguments stand under two keys; keep arguments")
    if full:
        return full[0]
    # A call without arguments, or one that has them where nobody reads them.
    others = [value for key, value in flat.items() if key not in _NEUTRAL and key not in _UNREAD]
    if any(not given or (isinstance(value, dict) and value) for value in others):
        raise ArgumentsError("the arguments stand under no key that is read; expected arguments")
    return given[0] if given else {}


def read_written_calls(text: str) -> list[Any]:
    """Calls written as text: a call or a list of them as JSON, or as Python.

    Raises:
        ValueError: When the text is neither.
    """
    try:
        return parse_sequence(text)
    except ValueError:
        return python_calls(text)


def python_calls(text: str) -> list[dict[str, Any]]:
    """Calls written as Python, ``[f(a=1), g(b="x")]``, the brackets optional.

    Args:
        text: Nothing but calls, with literals as arguments; JSON's constants are read too.

    Returns:
        The calls as ``{"name": …, "arguments": …}``.

    Raises:
        ValueError: When the text is not of this form, or an argument has no name.
    """
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    calls, at = [], 0
    while text[at:].strip():
        opening = _PYTHON_CALL.match(text, at)
        if opening is None:
            raise ValueError("not of the form [name(argument=value)]")
        end = _closing(text, opening.end())
        arguments = _python_arguments(text[opening.end() : end - 1])
        calls.append({"name": opening[1], "arguments": arguments})
        rest = text[end:].lstrip()
        at = len(text) - len(rest) + rest.startswith(",")
    if not calls:
        raise ValueError("there is no call")
    return calls


def _closing(text: str, at: int) -> int:
    """The place behind the bracket that closes the one before `at`."""
    depth, quote = 1, ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    raise ValueError("a bracket is not closed")


def _python_arguments(text: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
            raise ValueError("an argument has no name")
        values = {str(k.arg): ast.literal_eval(_Constants().visit(k.value)) for k in call.keywords}
        arguments: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, SyntaxError, RecursionError, MemoryError):
        raise ValueError("an argument is no literal") from None
    return arguments


class _Constants(ast.NodeTransformer):
    """JSON's constants as Python's."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(_CONSTANTS[node.id]) if node.id in _CONSTANTS else node
