"""What other models write for a call, a turn or an end, and what is plain text to this one.

A call that is left as text is learned as text: a server's parser finds no call in it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from axtune.data.calls import python_calls
from axtune.data.literals import parse_sequence

_SIGNS = re.compile(
    r"\[TOOL_CALLS\]|\[/?INST\]|<</?SYS>>|</s>"  # Mistral, Llama 2
    r"|</?TOOLCALL>|<function=\w|<eos>|<(?:start|end)_of_turn>"  # Nemotron, Functionary, Gemma
    r"|<\|(?:python_tag|start_header_id|end_header_id|eot_id|eom_id|begin_of_text)\|>"  # Llama 3
    r"|<\|/?tool_calls?(?:_section)?(?:_begin|_end)?\|>"  # Phi, Granite, Kimi
    r"|<\|(?:channel|call|return)\|>|<｜(?:tool|begin|end|User|Assistant)"  # gpt-oss, DeepSeek
    r"|<function_calls>|<(?:antml:)?invoke name=|<end_code>"  # Claude, MiniMax, smolagents
    r"|\[\|(?:endofturn|assistant|user|system)\|\]|<\|endofturn\|>"  # EXAONE, HyperCLOVA X
    r"|<\|(?:START|END)_OF_TURN_TOKEN\|>"  # Command
    r"|<\|(?:begin|end)_of_(?:thought|solution)\|>"  # OpenThoughts, Sky-T1
)
_RECIPIENT = re.compile(r">>>(\w+)\n")  # Functionary
_REACT = re.compile(r"^Action:\s*\S.*\n+Action Input:", re.MULTILINE)
_FENCED = re.compile(r"```(?:json|tool_code|tool_call|python)?\s*\n(.*)\n\s*```", re.DOTALL)
_BEGINS_CALL = re.compile(r"\[?\s*[\w.\- ]+\(")
# Of a call in JSON: under which keys its name and its arguments stand.
_NAMES = ("name", "function", "tool", "tool_name", "function_name", "action")
_ARGUMENTS = ("arguments", "parameters", "args", "params", "input", "tool_input", "action_input")
_WRAPPERS = ("tool_calls", "function_call", "tool_call", "function", "calls", "tool_uses")


def foreign_markup(text: str, tools: Collection[str]) -> str:
    """How an answer writes a call, a turn or an end as other models do; empty when it does not.

    Args:
        text: What an assistant says.
        tools: The names of the row's tools.
    """
    if ("<" in text or "[" in text) and (sign := _SIGNS.search(text)):
        return sign[0]
    if "Action Input:" in text and _REACT.search(text):
        return "Action: and Action Input:"
    if (to := _RECIPIENT.match(text)) and (to[1] in tools or to[1] == "all"):
        return ">>> and a name"
    said = text.rpartition("</think>")[2].strip()
    if fenced := _FENCED.fullmatch(said):
        said = fenced[1].strip()
    if said[:1] in ("{", "[") and said[-1:] in ("}", "]") and _is_json_call(said, tools):
        return "nothing but a call in JSON"
    if tools and said[-1:] in (")", "]") and _BEGINS_CALL.match(said) and _is_python(said, tools):
        return "nothing but a call in Python"
    return ""


def _is_json_call(text: str, tools: Collection[str]) -> bool:
    """Whether a text is calls: to tools of the row, or of the form that is a call's alone."""
    if not any(f'"{key}"' in text or f"'{key}'" in text for key in _NAMES):
        return False
    try:
        values = parse_sequence(text.replace("};", "}"))  # Llama puts ; between calls
    except ValueError:
        return False
    return bool(values) and all(_is_call(value, tools) for value in values)


def _is_call(value: Any, tools: Collection[str]) -> bool:
    if not isinstance(value, dict):
        return False
    for key in _WRAPPERS:
        inner = value.get(key)
        if isinstance(inner, dict):
            return _is_call(inner, tools) or _is_call({"name": value.get("name"), **inner}, tools)
        if isinstance(inner, list) and inner:
            return all(_is_call(item, tools) for item in inner)
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    arguments = [key for key in _ARGUMENTS if isinstance(value.get(key), (dict, str))]
    if name in tools:
        return bool(arguments) or len(value) == 1
    return value.keys() in ({"name", "arguments"}, {"name", "parameters"})


def _is_python(text: str, tools: Collection[str]) -> bool:
    try:
        return all(call["name"] in tools for call in python_calls(text))
    except ValueError:
        return False
