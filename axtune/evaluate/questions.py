"""What a model is asked: every assistant turn of a conversation is a question.

The prompt is what stands before the turn, as it is served (`axtune.data.requests`), and what is
wanted is the turn itself. Benchmarks bring their questions and rules themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from axtune.data.native_calls import Answer
from axtune.data.requests import Request, request_of
from axtune.data.samples import UnpairedSample
from axtune.data.statistics import RowResult
from axtune.evaluate.score import Fields, Rules, Wanted, wanted_of


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked, and what is right.

    Attributes:
        id: Unique in its file.
        category: By which answers are counted.
        messages: The prompt, in OpenAI's form.
        tools: In OpenAI's form, with JSON Schema types.
        wanted: What is right.
        rules: What is equal.
        reference: The text that is recorded, where a text is wanted.
        file: Where it stands.
        line: Of the file, from 1.
        prompt: Token ids, where training rendered them; None where the messages are still to be.
        published: Whether an answer is right as the benchmark's own program counts, where that
            passes what is wrong here; None where it says the same.
        cluster: What it has in common with other questions, so that they are right or wrong
            together; empty where it stands alone.
    """

    id: str
    category: str
    messages: list[dict[str, Any]]
    tools: Sequence[dict[str, Any]]
    wanted: Wanted
    rules: Rules
    reference: str = ""
    file: str = ""
    line: int = 0
    prompt: list[int] | None = None
    published: Callable[[Answer], bool] | None = None
    cluster: str = ""

    @property
    def asked(self) -> str:
        """The last message of the prompt, for people."""
        return str((self.messages[-1].get("content") or "") if self.messages else "")

    @property
    def right(self) -> str:
        """A right answer, for people: the recorded text, or the calls with their first values."""
        calls = [f"{call.name}({_first(call.arguments)})" for call in self.wanted.calls]
        return "\n".join(calls) or self.reference


def questions_of(rows: Iterable[RowResult]) -> Iterator[Question]:
    """The questions of conversation rows.

    Args:
        rows: Checked with their turns; one that is refused has none, and an answer that a
            preference does not want is no right one.
    """
    for checked in rows:
        if any(isinstance(one, UnpairedSample) and not one.label for one in checked.samples):
            continue
        for number, turn in enumerate(checked.turns):
            request = request_of(turn)
            yield Question(
                id=f"{checked.file}:{checked.line}" + (f"#{number + 1}" if number else ""),
                category=_category(request),
                messages=request.messages,
                tools=request.tools or (),
                wanted=wanted_of(request.answer),
                rules=Rules(),
                reference=request.answer["content"],
                file=checked.file,
                line=checked.line,
                prompt=request.prompt,
                cluster=f"{checked.file}:{checked.line}",
            )


def _first(value: Any) -> str:
    """The first of the right values, as JSON."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(fields: Fields) -> dict[str, Any]:
    rights = fields.properties.items()
    return {name: right.values[0] for name, right in rights if right.values}


def _category(request: Request) -> str:
    """What the recorded answer does."""
    calls = len(request.answer.get("tool_calls", ()))
    if calls:
        return "call" if calls == 1 else "parallel_calls"
    if request.messages and request.messages[-1]["role"] == "tool":
        return "after_result"
    return "no_call" if request.tools else "text"
