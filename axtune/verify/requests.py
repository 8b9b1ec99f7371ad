"""The requests that trained rows stand for: what a client would send, and the prompt that it makes.

Every learned turn is one request: the turns before it as OpenAI messages, the row's tools, the ids
of the prompt that training showed before the answer, and the answer that the row records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from axtune.checkpoint.tokenizer import AxTokenizer, Tool
from axtune.config.recipe import Data
from axtune.data.conversation import Conversation
from axtune.data.formats import Message
from axtune.data.parse import PreferenceRow, read_row
from axtune.data.readers import read_rows
from axtune.data.render import encode, pieces
from axtune.data.samples import IGNORED, Sample
from axtune.data.sources import files_of
from axtune.errors import AxtuneError, CheckpointError


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
    samples = encode(tokenizer, pieces(tokenizer, conversation))
    prompts = [sample.input_ids[:start] for sample in samples for start in _answers(sample)]
    for index, prompt in zip(conversation.learn, prompts, strict=True):
        messages = _as_sent(conversation.messages[:index])
        yield Request(messages, conversation.tools, prompt, conversation.messages[index])


def read_requests(data: Data, tokenizer: AxTokenizer) -> Iterator[Request]:
    """The requests of every sound row of the training data, as a stream; of a preference, the
    chosen answer's.

    Args:
        data: Which files, and how rows are read; files that are no longer there are left out.
        tokenizer: The checkpoint's.
    """
    limit = int(data.max_line_mb * 1e6)
    for source in data.train:
        with suppress(AxtuneError):
            for file in files_of(source):
                for row in read_rows(file, max_line_bytes=limit):
                    if not row.fault:
                        yield from _requests_of_row(row.value, data, tokenizer)


def _requests_of_row(row: Any, data: Data, tokenizer: AxTokenizer) -> list[Request]:
    """None, where training refuses the row as well."""
    try:
        found, problems = read_row(row, row_format=data.format, nfc=data.nfc)
        if isinstance(found, PreferenceRow):
            found = found.chosen or found.rejected
        if found is None or any(problem.severity == "error" for problem in problems):
            return []
        return list(requests_of(found, tokenizer))
    except (CheckpointError, UnicodeEncodeError, RecursionError):
        return []


def _answers(sample: Sample) -> Iterator[int]:
    """Where each learned stretch begins."""
    before = IGNORED
    for place, label in enumerate(sample.labels):
        if label != IGNORED and before == IGNORED:
            yield place
        before = label


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
