"""How A.X writes a call, in this one place: what is learned, what is read back, what is recognised.

A family that writes them otherwise changes this module and names its parser of vLLM's in
`axtune.checkpoint.families`. (Data of other tools that holds such text is `hermes`'s.)
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

OPENING, CLOSING = "<tool_call>", "</tool_call>"
# For people.
FORM = f"{OPENING}{{…}}{CLOSING}"

# As vLLM's hermes parser reads an answer: a call that is not closed runs to the end.
_BLOCK = re.compile(f"{OPENING}(?:(.*?){CLOSING}|(.*))", re.DOTALL)


class Answer(NamedTuple):
    """What a model said, as vLLM's hermes parser hands it to the client."""

    content: str
    tool_calls: list[dict[str, Any]]


def written(name: str, arguments: dict[str, Any]) -> str:
    """A call as the model is to write it.

    Args:
        name: Of the tool.
        arguments: By their names.
    """
    values = json.dumps(arguments, ensure_ascii=False)
    return f'{OPENING}{{"name": "{name}", "arguments": {values}}}{CLOSING}'


def pattern(name: str, arguments: str) -> str:
    """A regular expression of a written call, for an engine that has to keep to it.

    Args:
        name: Of the tool.
        arguments: A regular expression of the object of the arguments.
    """
    return rf'{OPENING}\{{"name": "{re.escape(name)}", "arguments": {arguments}\}}{CLOSING}'


def before_calls(text: str) -> str:
    """What an answer says before its first call."""
    return text.partition(OPENING)[0]


def parse_answer(text: str) -> Answer:
    """Take a model's answer apart as vLLM's hermes parser does.

    After vllm/tool_parsers/hermes_tool_parser.py.

    Args:
        text: What the model said, without the closing end of turn.

    Returns:
        The text before the first call, and the calls in OpenAI's form with string arguments. Text
        behind a call is lost, the last call need not be closed, and an answer with a call that
        cannot be parsed is all text: that is what a client gets.
    """
    items: list[dict[str, Any]] = []
    for number, (closed, open_end) in enumerate(_BLOCK.findall(text), 1):
        try:
            call = json.loads(closed or open_end)
            name, arguments = call["name"], json.dumps(call["arguments"], ensure_ascii=False)
        except (ValueError, TypeError, LookupError, RecursionError):
            return Answer(text, [])
        if not isinstance(name, str):
            return Answer(text, [])
        function = {"name": name, "arguments": arguments}
        items.append({"id": f"call_{number}", "type": "function", "function": function})
    return Answer(before_calls(text), items)
