"""A content in parts: Anthropic's, Gemini's, OpenAI's and the AI SDK's, as messages."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from axtune.data.messages import Message, Placed
from axtune.data.turn_calls import call_at, call_id
from axtune.data.unread import reasoning_unseen, unread_key
from axtune.errors import Problem

_TEXT_PARTS = (None, "text", "input_text", "output_text", "refusal")
_THINKING_PARTS = ("thinking", "redacted_thinking", "reasoning", "summary_text", "reasoning_text")
CALL_PARTS = ("tool_use", "tool_call", "tool-call", "function_call")
RESULT_PARTS = ("tool_result", "tool-result")
# Of the AI SDK: a call with its result, and what no model is shown.
_INVOCATION, _OTHER_INVOCATIONS = "tool-", ("dynamic-tool", "tool-invocation")
_STEP, _UNSHOWN = "step-start", ("source", "source-url", "source-document")


def is_text_part(part: Any) -> bool:
    """Whether a part is one that vLLM reads as text."""
    return isinstance(part, str) or (
        isinstance(part, dict) and part.get("type") in _TEXT_PARTS[1:] and "value" not in part
    )


def _is_invocation(kind: Any) -> bool:
    return isinstance(kind, str) and (
        kind in _OTHER_INVOCATIONS
        or (kind.startswith(_INVOCATION) and kind not in (*CALL_PARTS, *RESULT_PARTS))
    )


def _as_javascript(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass
class PartsReader:
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
        elif kind in RESULT_PARTS or part.keys() & {"toolResult", "functionResponse"}:
            self._read_result(at, part)
        elif kind in CALL_PARTS or part.keys() & {"toolUse", "functionCall"}:
            value = part.get("value", part)  # LLaMA-Factory: JSON text
            if call := call_at(at, value, self.problems):
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
        call = call_at(at, {"type": "tool-call", "toolName": name, **given}, self.problems)
        if call is None:
            return
        self.calls.append(call.item)
        said = next((inner[k] for k in ("output", "result", "errorText") if k in inner), None)
        if said is not None:
            # As its providers send it: JSON.stringify.
            text = said if isinstance(said, str) else _as_javascript(said)
            self.results.append((at, {"role": "tool", "content": text, **call_id(inner)}))

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
        message |= call_id(part)
        name = part.get("name", part.get("toolName"))
        message |= {"name": name} if isinstance(name, str) else {}
        self.out.append((at, message))
