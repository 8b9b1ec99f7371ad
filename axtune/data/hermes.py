"""Tool data written as Hermes text, turned back into calls, results and tools.

Nous Hermes, Qwen and A.X write a call as ``<tool_call>{"name": …, "arguments": …}</tool_call>``
inside the assistant's text. Data that holds such text is taken apart here, so that the
checkpoint's own template writes it again in its own way.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any, NoReturn

from axtune.errors import Problem

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
# As vLLM's hermes parser reads an answer: a call that is not closed runs to the end.
CALL_BLOCK = re.compile(r"<tool_call>(?:(.*?)</tool_call>|(.*))", re.DOTALL)
_RESULT = re.compile(r"<(tool_response|tool_output)>(.*?)</\1>", re.DOTALL)
_TOOLS = re.compile(r"<tools>\s*([\[{].*?[\]}])\s*</tools>", re.DOTALL)
# How the tool instructions of A.X, Nous Hermes and Qwen begin; they end with an example of a call.
_TOOLS_PREAMBLE = re.compile(
    r"당신은 도구 호출 기능을 갖춘|You are a function calling AI model|# Tools\s+You (may|can) call"
)


def split_calls(text: str) -> tuple[str, list[dict[str, Any]]]:
    """Take an assistant's Hermes text apart.

    Args:
        text: Text with ``<tool_call>{…}</tool_call>`` blocks.

    Returns:
        The text before the first call, and the calls as ``{"name": …, "arguments": …}``.

    Raises:
        ValueError: When a block is not a JSON object with a name, or text follows a call.
    """
    content = text[: text.index("<tool_call>")] if "<tool_call>" in text else text
    rest = text[len(content) :]
    if _CALL.sub("", rest).strip():
        raise ValueError("there is text after a tool call, or a <tool_call> is not closed")
    calls = []
    for body in _CALL.findall(rest):
        call = parse_literal(body.strip())
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise ValueError("a <tool_call> block is not a JSON object with name and arguments")
        calls.append({"name": call["name"], "arguments": call.get("arguments", {})})
    return content, calls


def from_hermes(
    raw: list[tuple[str, Any]], problems: list[Problem]
) -> tuple[list[tuple[str, Any]], Any]:
    """Turn tool data written as text back into calls, results and tools."""
    out: list[tuple[str, Any]] = []
    tools = None
    for place, message in raw:
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str) or "<tool" not in content:
            out.append((place, message))
            continue
        role = message.get("role")
        if role == "assistant" and "<tool_call>" in content and not message.get("tool_calls"):
            try:
                text, calls = split_calls(content)
            except ValueError as error:
                problems.append(Problem("bad-hermes-call", f"{place}: {error}."))
                continue
            items = [{"type": "function", "function": call} for call in calls]
            out.append((place, {**message, "content": text.rstrip(), "tool_calls": items}))
        elif role in ("tool", "user") and (results := _RESULT.findall(content)):
            if _RESULT.sub("", content).strip():
                out.append((place, message))
                continue
            for _, text in results:
                out.append((place, {"role": "tool", "content": text.strip()}))
        elif role == "system" and (block := _TOOLS.search(content)):
            tools = _tools_text(block.group(1))
            text = _without_tools(content, block)
            if text:
                out.append((place, {**message, "content": text}))
        else:
            out.append((place, message))
    return out, tools


def _tools_text(text: str) -> Any:
    """The inside of ``<tools>``: a JSON list, or one JSON object a line."""
    try:
        tools = parse_literal(text)
    except ValueError:
        try:
            tools = [parse_literal(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            return text  # reported as bad-tools
    return tools if isinstance(tools, list) else [tools]


def _without_tools(content: str, block: re.Match[str]) -> str:
    """A system text without tool instructions, which the checkpoint's template writes itself."""
    preamble = _TOOLS_PREAMBLE.search(content, 0, block.start())
    start = preamble.start() if preamble else block.start()
    example = content.rfind("</tool_call>", block.end())
    end = example + len("</tool_call>") if preamble and example >= 0 else block.end()
    return "\n\n".join(filter(None, (content[:start].strip(), content[end:].strip())))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def parse_json(text: str) -> Any:
    """Strict JSON: no NaN, no Infinity.

    Raises:
        ValueError: When the text is not JSON, too deep, or holds a number of too many digits.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_literal(text: str) -> Any:
    """JSON, or the Python literals that some Hermes data holds ({'name': …}).

    Raises:
        ValueError: When the text is neither.
    """
    try:
        return parse_json(text)
    except ValueError:
        try:
            # Through JSON and back: a set or a bytes literal has no place in a call.
            return json.loads(json.dumps(ast.literal_eval(text), allow_nan=False))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise ValueError("neither JSON nor a Python literal of JSON values") from None
