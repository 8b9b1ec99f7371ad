"""How a model writes a call, in this one place: what is learned, what is read back and recognised.

A family names vLLM's parser of its calls (`axtune.checkpoint.families`); the form that this parser
reads is here. (Data of other tools that holds calls as text is `hermes`'s.)
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, Protocol

from axtune.checkpoint.families import Family


class Answer(NamedTuple):
    """What a model said, as vLLM's parser hands it to the client."""

    content: str
    tool_calls: list[dict[str, Any]]


class CallForm(Protocol):
    """A form in which calls are written."""

    @property
    def shown(self) -> str:
        """The form, for people."""

    def write(self, name: str, arguments: dict[str, Any]) -> str:
        """A call as the model is to write it.

        Args:
            name: Of the tool.
            arguments: By their names.
        """

    def pattern(self, name: str, arguments: str) -> str:
        """A regular expression of a written call, for an engine that has to keep to it.

        Args:
            name: Of the tool.
            arguments: A regular expression of the object of the arguments.
        """

    def before(self, text: str) -> str:
        """What an answer says before its first call."""

    def parse(self, text: str) -> Answer:
        """Take a model's answer apart as vLLM's parser does.

        Args:
            text: What the model said, without the closing end of turn.
        """


class HermesForm:
    """``<tool_call>{"name": …, "arguments": …}</tool_call>``, which vLLM's hermes parser reads."""

    shown = "<tool_call>{…}</tool_call>"
    _opening, _closing = shown.split("{…}")
    # A call that is not closed runs to the end.
    _block = re.compile(f"{_opening}(?:(.*?){_closing}|(.*))", re.DOTALL)

    def write(self, name: str, arguments: dict[str, Any]) -> str:
        """As the template of A.X does, space by space."""
        values = json.dumps(arguments, ensure_ascii=False)
        return f'{self._opening}{{"name": "{name}", "arguments": {values}}}{self._closing}'

    def pattern(self, name: str, arguments: str) -> str:
        """Of what `write` writes."""
        head = rf'\{{"name": "{re.escape(name)}", "arguments": '
        return rf"{self._opening}{head}{arguments}\}}{self._closing}"

    def before(self, text: str) -> str:
        """The text as it is when it holds no call."""
        return text.partition(self._opening)[0]

    def parse(self, text: str) -> Answer:
        """As vllm/tool_parsers/hermes_tool_parser.py does.

        Returns:
            The text before the first call, and the calls in OpenAI's form with string arguments.
            Text behind a call is lost, the last call need not be closed, and an answer with a call
            that cannot be parsed is all text: that is what a client gets.
        """
        items: list[dict[str, Any]] = []
        for number, (closed, open_end) in enumerate(self._block.findall(text), 1):
            try:
                call = json.loads(closed or open_end)
                name, arguments = call["name"], json.dumps(call["arguments"], ensure_ascii=False)
            except (ValueError, TypeError, LookupError, RecursionError):
                return Answer(text, [])
            if not isinstance(name, str):
                return Answer(text, [])
            function = {"name": name, "arguments": arguments}
            items.append({"id": f"call_{number}", "type": "function", "function": function})
        return Answer(self.before(text), items)


HERMES = HermesForm()

# By vLLM's name of the parser; a parser of another name reads the form of A.X unless it is here.
_FORMS: dict[str, CallForm] = {"hermes": HERMES}


def form_of(family: Family) -> CallForm:
    """The form in which the models of a family write calls."""
    return _FORMS.get(family.tool_parser, HERMES)
