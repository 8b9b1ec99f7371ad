"""The data gate: personal data of a row is masked, or refuses it.

Masked is everything that the model would be shown: documents, whole, before they are cut; contents,
reasoning, arguments of calls, and the texts of tools. A mask is one of the tokenizer's own tokens,
of which a text may hold any number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from axtune.checkpoint.tokenizer import AxTokenizer, Tool
from axtune.config.recipe import Data
from axtune.data.conversation import Conversation
from axtune.data.documents import DocumentRow
from axtune.data.messages import Message
from axtune.data.parse import AnyRow, PreferenceRow
from axtune.errors import AxtuneError, CheckpointError, Problem
from axtune.privacy.kinds import MASKS
from axtune.privacy.own_kinds import OwnKind, read_own_kinds
from axtune.privacy.scrub import Known, Scrubber

_CONTEXT = 80  # characters of the turn before, whose labels say what a turn's number is


class PrivacyGate:
    """Masks personal data of rows.

    Args:
        data: Whose ``privacy_kinds`` are the user's own.
        tokenizer: The checkpoint's.

    Raises:
        AxtuneError: When the file of own kinds is wrong, or one of their masks a control token.
        CheckpointError: When rows are to be masked, and the tokenizer lacks a mask token.
    """

    def __init__(self, data: Data, tokenizer: AxTokenizer) -> None:
        own = read_own_kinds(data.privacy_kinds) if data.privacy_kinds else ()
        if data.privacy == "mask":
            _require_masks(tokenizer, own)
        self._scrubber = Scrubber(own)

    def masked(self, row: AnyRow) -> tuple[AnyRow, Counter[str]]:
        """A row without personal data, and how much of each kind there was.

        Raises:
            AxtuneError: When the pattern of an own kind takes too long.
        """
        counts: Counter[str] = Counter()
        known: Known = {}
        masked = self._row(row, counts, known)
        if known:  # what only a later turn has named may stand in an earlier one as well
            masked = self._row(masked, counts, known)
        return masked, counts

    def _row(self, row: AnyRow, counts: Counter[str], known: Known) -> AnyRow:
        if isinstance(row, DocumentRow):
            scrubbed = self._scrubber.scrub(row.text, "", known)
            counts.update(scrubbed.counts)
            return DocumentRow(scrubbed.text)
        if isinstance(row, Conversation):
            return self._conversation(row, counts, known)
        first = self._conversation(row.learned, counts, known)
        if row.rejected is None or row.chosen is None:
            made = first if row.chosen else None
            return replace(row, chosen=made, rejected=None if made else first)
        said = row.rejected.messages
        last = said[row.prompt - 1]["content"] if row.prompt else ""
        answer = self._messages(said[row.prompt :], counts, known, last)
        rejected = replace(
            row.rejected, messages=[*first.messages[: row.prompt], *answer], tools=first.tools
        )
        return replace(row, chosen=first, rejected=rejected)

    def _conversation(
        self, conversation: Conversation, counts: Counter[str], known: Known
    ) -> Conversation:
        tools = conversation.tools
        return replace(
            conversation,
            messages=list(self._messages(conversation.messages, counts, known)),
            tools=tools and [self._tool(tool, counts, known) for tool in tools],
        )

    def _messages(
        self, messages: Sequence[Message], counts: Counter[str], known: Known, before: str = ""
    ) -> Iterator[Message]:
        def text(said: str) -> str:
            scrubbed = self._scrubber.scrub(said, before[-_CONTEXT:], known)
            counts.update(scrubbed.counts)
            return scrubbed.text

        for message in messages:
            masked = {**message, "content": text(message["content"])}
            if isinstance(reasoning := message.get("reasoning_content"), str):
                masked["reasoning_content"] = text(reasoning)
            if calls := message.get("tool_calls"):
                masked["tool_calls"] = [self._call(call, counts, known) for call in calls]
            before = message["content"]
            yield masked

    def _call(self, call: dict[str, Any], counts: Counter[str], known: Known) -> dict[str, Any]:
        function = call["function"]
        arguments, found = self._scrubber.scrub_value(
            function["arguments"], function["name"], known
        )
        counts.update(found)
        return {**call, "function": {**function, "arguments": arguments}}

    def _tool(self, tool: Tool, counts: Counter[str], known: Known) -> Tool:
        """A tool with its texts masked; its numbers are limits and lengths."""

        def text(said: str) -> str:
            scrubbed = self._scrubber.scrub(said, "", known)
            counts.update(scrubbed.counts)
            return scrubbed.text

        before = counts.total()
        function = _texts(tool["function"], text)
        return tool if counts.total() == before else Tool(function)


def refusal(counts: Counter[str]) -> Problem:
    """The problem of a row that holds personal data."""
    held = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
    message = f"it holds personal data ({held}); remove it, or set data.privacy: mask."
    return Problem("personal-data", message)


def same_when_masked(row: AnyRow) -> Iterator[Problem]:
    """The problem of a preference whose answers differ in personal data alone."""
    if not isinstance(row, PreferenceRow) or row.chosen is None or row.rejected is None:
        return
    if row.chosen.messages == row.rejected.messages:
        message = "with personal data masked, chosen and rejected are the same answer."
        yield Problem("same-answers", message)


def broken_by_masks(before: Sequence[Problem], after: Sequence[Problem]) -> list[Problem]:
    """The problems of a masked row, where its masks are what breaks a tool's schema."""
    known = {problem for problem in before if problem.code == "schema-violation"}
    return [
        problem._replace(
            message=f"{problem.message} It is the mask that breaks it, a string such as "
            "<|telephone|>. Let the schema take the mask's text, or leave the row out."
        )
        if problem.code == "schema-violation" and problem not in known
        else problem
        for problem in after
    ]


def _texts(value: Any, mask: Callable[[str], str]) -> Any:
    """A JSON value with each of its strings masked for itself."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [_texts(item, mask) for item in value]
    if isinstance(value, dict):
        return {key: _texts(item, mask) for key, item in value.items()}
    return value


def _require_masks(tokenizer: AxTokenizer, own: Sequence[OwnKind]) -> None:
    """The mask tokens are the tokenizer's own, and no own kind's mask steers the model."""
    added = {token.content for token in tokenizer.backend.get_added_tokens_decoder().values()}
    # Of an added token that its family's record does not name, nobody knows that it is a mask.
    known = added & tokenizer.family.personal_data_tokens
    if missing := [mask for mask in MASKS.values() if mask not in known]:
        raise CheckpointError(
            f"The tokenizer of {tokenizer.name} has no {missing[0]}, so that it would cut a mask "
            "into pieces.",
            "Set data.privacy: refuse, or replace personal data in the files yourself.",
        )
    for kind in own:
        if steering := sorted(one for one in tokenizer.control_tokens if one in kind.mask):
            raise AxtuneError(
                f"The mask of the kind {kind.name} holds the control token {steering[0]}.",
                "Give a mask such as [사번].",
            )
