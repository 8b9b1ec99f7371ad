"""The requests that trained rows stand for: what a client would send, and the prompt that it makes.

Every learned turn is one request: the turns before it as OpenAI messages, the row's tools, the ids
of the prompt that training showed before the answer, and the answer that the row records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from axtune.checkpoint.tokenizer import AxTokenizer, Tool
from axtune.config.recipe import Data, Task
from axtune.data.conversation import Conversation
from axtune.data.messages import Message
from axtune.data.pipeline import RowChecker
from axtune.data.render import LearnedTurn, render, turns_of
from axtune.data.sources import files_of
from axtune.data.statistics import RowResult
from axtune.errors import AxtuneError


@dataclass(frozen=True)
class Request:
    """One request and the answer that the data record for it.

    Attributes:
        messages: In OpenAI's form, as a client sends them.
        tools: As a client sends them, or None.
        prompt: Token ids that training showed before the answer.
        answer: The recorded turn, normalised, with the calls' arguments as objects.
    """

    messages: list[Message]
    tools: list[Tool] | None
    prompt: list[int]
    answer: Message


def requests_of(conversation: Conversation, tokenizer: AxTokenizer) -> Iterator[Request]:
    """The requests of a conversation's learned turns, in order.

    Raises:
        CheckpointError: When the template cannot write the conversation.
    """
    return map(request_of, turns_of(conversation, render(tokenizer, conversation)))


def read_requests(
    data: Data, tokenizer: AxTokenizer, task: Task | None = None
) -> Iterator[Request]:
    """The requests of every row that training takes, as a stream; of a preference, the chosen
    answer's.

    Rows go through the pass that training makes: one that it refuses is no request, nor is a turn
    that ``data.truncate`` cut.

    Args:
        data: Which files, and how rows are read; files that are no longer there are left out.
        tokenizer: The checkpoint's.
        task: What the rows were to train; None takes each row for what it is.
    """
    checker = RowChecker(tokenizer, data, task, with_turns=True, training=True)
    for source in data.sources:
        try:
            files = files_of(source)
        except AxtuneError:
            continue
        for checked in checker.stream(files):
            yield from map(request_of, checked.turns)


def document_ids(rows: Iterable[RowResult]) -> Iterator[list[int]]:
    """Token ids of the first piece of each document among some rows."""
    for checked in rows:
        if checked.document and checked.samples:
            yield list(checked.samples[0].stretches[0].ids)


def request_of(learned: LearnedTurn) -> Request:
    """The request that a learned turn answers."""
    conversation = learned.conversation
    before, answer = conversation.messages[: learned.turn], conversation.messages[learned.turn]
    return Request(_as_sent(before), conversation.tools, learned.prompt, answer)


def _as_sent(messages: list[Message]) -> list[Message]:
    """Normalised messages in OpenAI's form: arguments as text, results with their call's id."""
    sent: list[Message] = []
    waiting: list[str] = []
    for number, message in enumerate(messages):
        message = dict(message)
        if calls := message.get("tool_calls"):
            ids = [f"call_{number}_{place}" for place in range(len(calls))]
            waiting = list(ids)
            message["tool_calls"] = [
                {
                    "id": identity,
                    "type": "function",
                    "function": {
                        "name": call["function"]["name"],
                        "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                    },
                }
                for identity, call in zip(ids, calls, strict=True)
            ]
        elif message["role"] == "tool":
            message["tool_call_id"] = waiting.pop(0) if waiting else f"call_{number}"
        sent.append(message)
    return sent


def same_answer(answer: Message, content: str, calls: list[tuple[str, str]]) -> bool:
    """Whether what a client got back is what the row records.

    Args:
        answer: As `Request.answer`.
        content: The text that came back.
        calls: Name and arguments, JSON text, of the calls that came back.
    """
    recorded = [
        (call["function"]["name"], call["function"]["arguments"])
        for call in answer.get("tool_calls", ())
    ]
    came = [(name, json.loads(arguments)) for name, arguments in calls]
    return came == recorded and content == answer["content"]
