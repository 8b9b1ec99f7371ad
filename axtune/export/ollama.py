"""A Modelfile: what Ollama needs to serve a GGUF file in the checkpoint's native format.

Ollama 0.30 and later render with the template in the GGUF file, the checkpoint's own, as
llama-server does. Older ones know only a TEMPLATE in Go's language. The one written here is put
together from what the checkpoint's own template writes around each part, and it leaves out the
words by which newer versions recognise a TEMPLATE that they should prefer to the checkpoint's
(``eq .Role "tool"``; server/images.go, goTemplateHasToolRoundTrip).

In either case Ollama first reads tools into types of its own: keys come in its order, and those
that it does not know are lost.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from axtune.checkpoint.tokenizer import AxTokenizer, Tool
from axtune.errors import CheckpointError

# A word that no template has a reason to write itself.
_WORD = "axtunesword"

# The JSON of a tool as Python writes it. Go's own JSON has no spaces, and so other tokens.
_TOOL = (
    '{"type": "function", "function": {"name": {{ json .Function.Name }}, "description": '
    "{{ if .Function.Description }}{{ json .Function.Description }}{{ else }}null{{ end }}"
    ', "parameters": {"type": {{ json .Function.Parameters.Type }}, "properties": {{ "{" }}'
    '{{ $comma := "" }}{{ range $name, $property := .Function.Parameters.Properties }}'
    '{{ $comma }}{{ json $name }}: {"type": {{ json $property.Type }}'
    '{{ if $property.Description }}, "description": {{ json $property.Description }}{{ end }}'
    '{{ if $property.Enum }}, "enum": [{{ range $index, $value := $property.Enum }}'
    "{{ if $index }}, {{ end }}{{ json $value }}{{ end }}]{{ end }}"
    '{{ if $property.Items }}, "items": {{ json $property.Items }}{{ end }}'
    '}{{ $comma = ", " }}{{ end }}}'
    '{{ if .Function.Parameters.Required }}, "required": ['
    "{{ range $index, $name := .Function.Parameters.Required }}"
    "{{ if $index }}, {{ end }}{{ json $name }}{{ end }}]{{ end }}}}}"
)
_ARGUMENTS = (
    '{{ "{" }}{{ $comma := "" }}{{ range $name, $value := .Function.Arguments }}'
    '{{ $comma }}{{ json $name }}: {{ json $value }}{{ $comma = ", " }}{{ end }}}'
)


@dataclass(frozen=True)
class _Format:
    """What a chat template writes before, between and behind the parts of a conversation."""

    tools: tuple[str, str, str]  # before the first tool, behind each, behind them all
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    call: tuple[str, str, str]  # before the name, before the arguments, behind them
    result: tuple[str, str]
    generation: str

    def render(self, messages: list[dict[str, Any]], tools: list[Tool]) -> str:
        """What the template in Go's language writes for a prompt."""
        before, between, behind = self.tools
        text = before + "".join(tool.json + between for tool in tools) + behind if tools else ""
        around = {"system": self.system, "user": self.user, "tool": self.result}
        for message in messages:
            opening, closing = around.get(message["role"], self.assistant)
            text += opening + message["content"]
            for call in message.get("tool_calls", ()):
                function = call["function"]
                name, arguments, end = self.call
                text += name + function["name"] + arguments
                text += json.dumps(function["arguments"], ensure_ascii=False) + end
            text += closing
        return text + self.generation


def modelfile(tokenizer: AxTokenizer, file: str) -> str:
    """The text of a Modelfile.

    Args:
        tokenizer: The checkpoint's.
        file: Name of the GGUF file, beside the Modelfile.

    Raises:
        CheckpointError: When the checkpoint's template does not write a conversation turn by turn.
    """
    stop = json.dumps(tokenizer.end_of_turn)
    return f"""FROM ./{file}
PARAMETER stop {stop}
PARAMETER num_ctx {tokenizer.context}
PARAMETER repeat_penalty 1
TEMPLATE \"\"\"{go_template(tokenizer)}\"\"\"
"""


def go_template(tokenizer: AxTokenizer) -> str:
    """A checkpoint's chat template in the language of Ollama's TEMPLATE.

    Raises:
        CheckpointError: As `modelfile`.
    """
    form = _format(tokenizer)
    tools, between, end_of_tools = map(_literal, form.tools)
    name, arguments, end_of_call = map(_literal, form.call)
    turns = [
        f"{_literal(opening)}{{{{ .Content }}}}{_literal(closing)}"
        for opening, closing in (form.system, form.user, form.result)
    ]
    opening, closing = map(_literal, form.assistant)
    calls = (
        f"{{{{ if .ToolCalls }}}}{{{{ range .ToolCalls }}}}{name}{{{{ .Function.Name }}}}"
        f"{arguments}{_ARGUMENTS}{end_of_call}{{{{ end }}}}{{{{ end }}}}"
    )
    return (
        f"{{{{ if .Tools }}}}{tools}{{{{ range .Tools }}}}{_TOOL}{between}{{{{ end }}}}"
        f"{end_of_tools}{{{{ end }}}}{{{{ range .Messages }}}}"
        f'{{{{ if eq .Role "system" }}}}{turns[0]}'
        f'{{{{ else if eq .Role "user" }}}}{turns[1]}'
        f'{{{{ else if eq .Role "assistant" }}}}{opening}{{{{ .Content }}}}{calls}{closing}'
        f"{{{{ else }}}}{turns[2]}{{{{ end }}}}{{{{ end }}}}{_literal(form.generation)}"
    )


def _format(tokenizer: AxTokenizer) -> _Format:
    """Taken from what the template writes, and proved on a conversation that has all parts."""

    def render(*messages: dict[str, Any], tools: list[Tool] | None = None) -> str:
        return tokenizer.render(messages, tools, add_generation_prompt=False)

    user = {"role": "user", "content": _WORD}
    asked = render(user)
    one, two = (Tool({"name": f"{_WORD}{number}"}) for number in (1, 2))
    called = {"role": "assistant", "content": "", "tool_calls": [_call(_WORD, {"a": "b"})]}
    said = render({"role": "assistant", "content": _WORD})
    answered = tokenizer.render([user], None, add_generation_prompt=True)
    before, between, rest = _cut(render(tools=[one, two]), one.json, two.json)
    opening, closing = _cut(said, _WORD)
    name, arguments, end = _cut(render(called), _WORD, '{"a": "b"}')
    form = _Format(
        tools=(before, between, rest.removeprefix(between)),
        system=_pair(render({"role": "system", "content": _WORD})),
        user=_pair(asked),
        assistant=(opening, closing),
        call=(name.removeprefix(opening), arguments, end.removesuffix(closing)),
        result=_pair(render({"role": "tool", "content": _WORD})),
        generation=answered.removeprefix(asked),
    )
    calls = [_call("f", {"a": "가", "b": [1, {"c": None}]}), _call("g", {})]
    conversation: list[dict[str, Any]] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a", "tool_calls": calls},
        {"role": "tool", "content": "r"},
        {"role": "tool", "content": "q"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "v"},
    ]
    for tools in ([one, two], []):
        whole = tokenizer.render(conversation, tools, add_generation_prompt=True)
        if form.render(conversation, tools) != whole:
            raise _not_turn_by_turn()
    return form


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _pair(text: str) -> tuple[str, str]:
    before, behind = _cut(text, _WORD)
    return before, behind


def _cut(text: str, *words: str) -> list[str]:
    """What stands around words that follow each other."""
    parts = []
    for word in words:
        part, found, text = text.partition(word)
        if not found:
            raise _not_turn_by_turn()
        parts.append(part)
    return [*parts, text]


def _not_turn_by_turn() -> CheckpointError:
    return CheckpointError(
        "The checkpoint's chat template does not write a conversation turn by turn, so no "
        "Modelfile can express it in Ollama's language.",
        "Use the original template of an A.X checkpoint, which does.",
    )


def _literal(text: str) -> str:
    """Text as a Go template has it; braces must not run into those of an action."""
    if '"""' in text:  # ends a Modelfile's text
        raise _not_turn_by_turn()
    text = text.replace("{{", '{{ "{{" }}')
    return text[:-1] + '{{ "{" }}' if text.endswith("{") else text
