"""Tool data written as text, turned back into calls, results and tools.

Nous Hermes, Qwen and A.X write a call as ``<tool_call>{"name": …, "arguments": …}</tool_call>``
inside the assistant's text, Glaive as ``<functioncall> {…}``, ToolACE and Llama as ``[f(a=1)]``.
Data that holds such text is taken apart here, so that the checkpoint's own template writes it again
in its own way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from axtune.data.calls import ArgumentsError, Call, python_calls, read_call
from axtune.data.literals import parse_json, parse_json_at, parse_literal, parse_sequence
from axtune.data.messages import Message, Placed
from axtune.data.tools import in_json_schema
from axtune.data.unread import unread_key
from axtune.errors import Problem

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_RESULT = re.compile(r"<(tool_response|tool_output)>(.*?)</\1>", re.DOTALL)
_TOOLS = re.compile(r"<tools>\s*([\[{].*?[\]}])\s*</tools>", re.DOTALL)
# How the tool instructions of A.X, Nous Hermes and Qwen begin; they end with an example of a call.
_TOOLS_PREAMBLE = re.compile(
    r"당신은 도구 호출 기능을 갖춘|You are a function calling AI model|# Tools\s+You (may|can) call"
)
_GLAIVE = "<functioncall>"
# Glaive quotes the JSON of the arguments as Python would: {"name": "f", "arguments": '{"a": 1}'}.
_GLAIVE_CALL = re.compile(r"""\{\s*"name":\s*("[^"]+"),\s*"arguments":\s*'(.*)'\s*\}""", re.DOTALL)
# How a system text asks for calls as Python, sentences that belong to that, and such calls.
_ASKS_FOR_PYTHON = re.compile(r"\[func\w*\(param")
_ABOUT_CALLS = re.compile(r"\bfunctions?\b|\[func|other text|point it out", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s*(?=[A-Z가-힣])|\n+")
_JSON_LIST = re.compile(r"\[\s*\{")
_PYTHON_CALLS = re.compile(r"""\[\s*[^\s\[\](){}"'][^\[\](){}"']*\(""")


def asks_for_python(turns: Iterable[Placed]) -> bool:
    """Whether a system text asks for calls as Python, ``[func(params=value)]``."""
    return any(
        isinstance(text := turn.get(key), str) and "[func" in text and _ASKS_FOR_PYTHON.search(text)
        for _, turn in turns
        if isinstance(turn, dict) and "system" in (turn.get("role"), turn.get("from"))
        for key in ("content", "value")
    )


def from_text(
    raw: list[Placed], problems: list[Problem], *, python: bool = False
) -> tuple[list[Placed], list[Placed]]:
    """Turn tool data written as text back into calls, results and tools.

    Args:
        raw: OpenAI messages, not normalised yet.
        problems: Appended to.
        python: Whether the turns before these ask for calls as Python.

    Returns:
        The messages, and the tools that system texts hold, each with its place.
    """
    out: list[Placed] = []
    tools: list[Placed] = []
    for place, message in raw:
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str):
            out.append((place, message))
            continue
        role = message.get("role")
        if role == "assistant":
            made = _assistant(place, message, python, problems)
            out += [(place, made)] if made else []
        elif role == "system" and "<tools>" in content and (block := _TOOLS.search(content)):
            tools.append((place, _tools_text(block.group(1))))
            if text := _without_tools(content, block):
                out.append((place, {**message, "content": text}))
        elif role == "system" and "[func" in content and _ASKS_FOR_PYTHON.search(content):
            python = True
            found, text = _python_tools(content)
            tools += [(place, in_json_schema(found, problems))] if found else []
            out += [(place, {**message, "content": text})] if text else []
        elif "<tool" in content and role in ("tool", "user"):
            out += _results(place, message)
        else:
            out.append((place, message))
    return out, tools


# --- the assistant's calls --------------------------------------------------------------------


def _assistant(
    place: str, message: Message, python: bool, problems: list[Problem]
) -> Message | None:
    """A message whose calls lie in its text, with the calls taken out; None when they are broken.

    Args:
        place: Where it stands.
        message: The assistant's.
        python: Whether the system text asks for calls as Python.
        problems: Appended to.
    """
    content = message["content"]
    hermes, glaive = "<tool_call>" in content, _GLAIVE in content
    if message.get("tool_calls") or not (hermes or glaive or python):
        return message
    try:
        split = split_calls if hermes else _split_glaive if glaive else _split_python
        text, calls = split(content)
    except ValueError as error:
        problems.append(Problem("bad-hermes-call", f"{place}: {error}."))
        return None
    if not calls:
        return message
    for call in calls:
        problems += [unread_key(f"{place}: a call", key) for key in call.unread]
    return {**message, "content": text.rstrip(), "tool_calls": [call.item for call in calls]}


def split_calls(text: str) -> tuple[str, list[Call]]:
    """Take an assistant's Hermes text apart.

    Args:
        text: Text with ``<tool_call>{…}</tool_call>`` blocks, of one call or several each.

    Returns:
        The text before the first call, and the calls.

    Raises:
        ValueError: When a block is not a JSON object with a name, it is not clear what the
            arguments are, or text follows a call.
    """
    content, begin, rest = text.partition("<tool_call>")
    rest = begin + rest
    if _CALL.sub("", rest).strip():
        raise ValueError("there is text after a tool call, or a <tool_call> is not closed")
    return content, [call for body in _CALL.findall(rest) for call in _calls_of(body.strip())]


def _calls_of(body: str) -> list[Call]:
    found = parse_sequence(body)
    if not found or not all(isinstance(call, dict) for call in found):
        raise ValueError("a <tool_call> block is not a JSON object with name and arguments")
    calls = [read_call(call) for call in found]
    if not all(isinstance(call.item["function"]["name"], str) for call in calls):
        raise ValueError("a <tool_call> block is not a JSON object with name and arguments")
    return calls


def _split_glaive(text: str) -> tuple[str, list[Call]]:
    content, *bodies = text.split(_GLAIVE)
    return content, [_glaive_call(body.replace("<|endoftext|>", "").strip()) for body in bodies]


def _glaive_call(body: str) -> Call:
    if quoted := _GLAIVE_CALL.fullmatch(body):
        name, arguments = quoted.groups()
        try:
            return read_call({"name": parse_json(name), "arguments": parse_json(arguments)})
        except ValueError:
            arguments = parse_json(arguments.replace("\\'", "'"))
            return read_call({"name": parse_json(name), "arguments": arguments})
    try:
        return read_call(parse_literal(body))
    except ArgumentsError:
        raise
    except ValueError:
        message = "a <functioncall> is not a JSON object with name and arguments, to the text's end"
        raise ValueError(message) from None


def _split_python(text: str) -> tuple[str, list[Call]]:
    """The calls at the end of a text; a text that begins with a call must be calls."""
    begin = _PYTHON_CALLS.search(text)
    if begin is None:
        return text, []
    content = text[: begin.start()]
    try:
        return content, [read_call(call) for call in python_calls(text[begin.start() :])]
    except ValueError:
        if content.strip():
            return text, []
        raise


# --- results and tools ------------------------------------------------------------------------


def _results(place: str, message: Message) -> list[Placed]:
    """The results of a turn that holds nothing else; else the turn."""
    content = message["content"]
    results = _RESULT.findall(content)
    if not results or _RESULT.sub("", content).strip():
        return [(place, message)]
    if len(results) == 1 and message["role"] == "tool":  # it may name its call
        return [(place, {**message, "content": results[0][1].strip()})]
    return [(place, {"role": "tool", "content": text.strip()}) for _, text in results]


def _tools_text(text: str) -> Any:
    """The inside of ``<tools>``: a JSON list, or JSON objects one behind the other."""
    try:
        return parse_sequence(text)
    except ValueError:
        return text  # reported as bad-tools


def _without_tools(content: str, block: re.Match[str]) -> str:
    """A system text without tool instructions, which the checkpoint's template writes itself."""
    preamble = _TOOLS_PREAMBLE.search(content, 0, block.start())
    start = preamble.start() if preamble else block.start()
    example = content.rfind("</tool_call>", block.end())
    end = example + len("</tool_call>") if preamble and example >= 0 else block.end()
    return "\n\n".join(filter(None, (content[:start].strip(), content[end:].strip())))


def _python_tools(content: str) -> tuple[Any, str]:
    """The tools of a system text that asks for calls as Python, and what else it says."""
    found: Any = None
    if begin := _JSON_LIST.search(content):
        try:
            found, end = parse_json_at(content, begin.start())
            content = f"{content[: begin.start()]}\n{content[end:].lstrip('. ')}"
        except ValueError:
            found = content[begin.start() :]  # reported as bad-tools
    sentences = (sentence.strip() for sentence in _SENTENCE_END.split(content))
    kept = [sentence for sentence in sentences if sentence and not _ABOUT_CALLS.search(sentence)]
    return found, "\n".join(kept)
