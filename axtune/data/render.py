"""Documents and conversations become token ids and labels.

Every token of a document is learned, and behind its last one the token that ended documents in
pre-training. Conversations go through the checkpoint's own template.

For every learned assistant turn the template renders the prompt exactly as a serving engine does:
the turns before it, with ``add_generation_prompt``. The turn's own text is written here (content,
calls, end of turn) and compared with what the template writes for it; if the two ever differ, the
row stops the run. When each turn's prompt continues the one before it, the conversation is one
sample; where the template shows an earlier turn differently later (a cut ``<think>`` block), every
turn is a sample of its own, so that each trained token has the context it is served with.

The answers of a preference are rendered as the same conversations would be, and cut where their
common prompt ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.conversation import Conversation, as_served, normalise_request
from axtune.data.cutting import cut
from axtune.data.documents import DocumentRow
from axtune.data.messages import Message
from axtune.data.native_calls import form_of
from axtune.data.samples import IGNORED, AnySample, Sample, learned_turns
from axtune.errors import AxtuneError, CheckpointError, DataError, Fault, Problem


class Span(NamedTuple):
    """A stretch of a sample's text that is learned as a whole or not at all."""

    text: str
    learned: bool


class LearnedTurn(NamedTuple):
    """An assistant turn that is learned, and where a sample has it.

    Attributes:
        conversation: Normalised; of a preference the prompt and one of its answers.
        turn: Its index among the conversation's messages.
        sample: The one that teaches it.
        begin: The turn's first token, counted from the beginning of what is served.
        end: Behind its end of turn.
    """

    conversation: Conversation
    turn: int
    sample: AnySample
    begin: int
    end: int

    @property
    def prompt(self) -> list[int]:
        """Token ids that stand before the turn, up to where the assistant begins to speak."""
        return _sequence(self.sample)[0][: self.begin]


def render(tokenizer: AxTokenizer, conversation: Conversation) -> list[Sample]:
    """Token ids and labels of a conversation, in one call.

    Args:
        tokenizer: The checkpoint's.
        conversation: With at least one turn to learn.

    Returns:
        Its samples: one, or one for each learned turn.

    Raises:
        CheckpointError: When the template and the text labelled here differ.
    """
    return encode(tokenizer, pieces(tokenizer, conversation))


def render_document(tokenizer: AxTokenizer, document: DocumentRow, max_length: int) -> list[Sample]:
    """Token ids and labels of a document, cut to a length.

    Args:
        tokenizer: The checkpoint's.
        document: Its text says something.
        max_length: Tokens of a sample; the last one has its end of document besides its text.

    Returns:
        A sample for each piece, whose ids are those of the piece's text alone. Behind the last one
        stands the end of document; nothing where it is cut, and nothing in front.

    Raises:
        CheckpointError: When the tokenizer has no end of document.
    """
    end = tokenizer.end_of_document_id
    ids = [piece.ids for piece in cut(tokenizer, document.text, max_length - 1)]
    ids[-1].append(end)
    return [Sample(each, list(each)) for each in ids]


def turns_of(conversation: Conversation, samples: Sequence[AnySample]) -> Iterator[LearnedTurn]:
    """The learned turns of a conversation, in order.

    Args:
        conversation: What was rendered; of a preference its first answer, with the prompt.
        samples: All that was made of it, whole; of a preference those that begin with that answer.
    """
    places = [(sample, *at) for sample in samples for at in learned_turns(_sequence(sample)[1])]
    for index, place in zip(conversation.learn, places, strict=True):
        yield LearnedTurn(conversation, index, *place)


def _sequence(sample: AnySample) -> tuple[list[int], list[int]]:
    """Ids and labels of a conversation, or of a preference's prompt and first answer."""
    first = sample.stretches[:2]
    return (
        [token for stretch in first for token in stretch.ids],
        [label for stretch in first for label in stretch.labels],
    )


def pieces(tokenizer: AxTokenizer, conversation: Conversation) -> list[list[Span]]:
    """The text of each sample of a conversation, cut where labels begin and end.

    Every cut lies right behind a control token, where the tokenizer splits anyway: encoding the
    pieces one by one gives the ids of the whole.

    Args:
        tokenizer: The checkpoint's.
        conversation: With at least one turn to learn.

    Returns:
        One list of pieces for each sample.

    Raises:
        CheckpointError: When the template and the text labelled here differ.
    """
    messages, tools = conversation.messages, conversation.tools
    turns = []
    for index in conversation.learn:
        prompt = tokenizer.render(as_served(messages[:index]), tools, add_generation_prompt=True)
        turns.append((index, prompt, answer_text(messages[index], tokenizer)))
    one_by_one = any(
        not later.startswith(prompt + answer)
        for (_, prompt, answer), (_, later, _) in pairwise(turns)
    )
    for index, prompt, answer in turns if one_by_one else turns[-1:]:
        whole = tokenizer.render(
            as_served(messages[: index + 1]), tools, add_generation_prompt=False
        )
        _compare(tokenizer, conversation.places[index], whole, prompt, answer)
    if one_by_one:
        return [[Span(prompt, False), Span(answer, True)] for _, prompt, answer in turns]
    sample, length = [], 0
    for _, prompt, answer in turns:
        sample += [Span(prompt[length:], False), Span(answer, True)]
        length = len(prompt) + len(answer)
    return [sample]


def answer_pieces(
    tokenizer: AxTokenizer, conversation: Conversation, prompt: int
) -> tuple[Span, list[Span]]:
    """The text of a prompt, and the text of the answer to it, cut as by `pieces`.

    Args:
        tokenizer: The checkpoint's.
        conversation: With turns to learn in the answer only.
        prompt: How many messages the prompt has.

    Returns:
        The prompt up to where the assistant begins to speak; and the answer.

    Raises:
        SplitAnswerError: When the turns of the answer make no single sequence.
        CheckpointError: When the template and the text labelled here differ.
    """
    sample, *more = pieces(tokenizer, conversation)
    served = sample[0].text
    if conversation.learn[0] != prompt:  # the answer begins with context
        served = tokenizer.render(
            as_served(conversation.messages[:prompt]),
            conversation.tools,
            add_generation_prompt=True,
        )
    if more or not sample[0].text.startswith(served):
        raise SplitAnswerError(
            "The template shows a turn of an answer differently in later turns.",
            "Make each of its turns a row, with the turns before it in the prompt.",
        )
    context = sample[0].text[len(served) :]
    return Span(served, False), [Span(context, False)] * bool(context) + sample[1:]


class SplitAnswerError(AxtuneError):
    """An answer of several turns that serving would not show as one sequence."""


def answer_text(message: Message, tokenizer: AxTokenizer) -> str:
    """An assistant's turn as the model is to say it: text, calls back to back, end of turn."""
    form = form_of(tokenizer.family)
    functions = (call["function"] for call in message.get("tool_calls", ()))
    calls = "".join(form.write(each["name"], each["arguments"]) for each in functions)
    return f"{message['content']}{calls}{tokenizer.end_of_turn}"


def encode(tokenizer: AxTokenizer, samples: Sequence[Sequence[Span]]) -> list[Sample]:
    """Token ids and labels of many samples, in one pass of the tokenizer.

    Args:
        tokenizer: The checkpoint's.
        samples: As `pieces` makes them.

    Returns:
        A Sample for each.
    """
    # Rows share their system prompts and tools, most of their text: each different turn is encoded
    # once. A turn ends with a control token, where the tokenizer splits anyway.
    cut = [[_turns(piece.text, tokenizer.end_of_turn) for piece in sample] for sample in samples]
    different = list(dict.fromkeys(chain.from_iterable(chain.from_iterable(cut))))
    turns = dict(zip(different, tokenizer.encode_batch(different), strict=True))
    out = []
    for sample, cut_sample in zip(samples, cut, strict=True):
        input_ids: list[int] = []
        labels: list[int] = []
        for piece, texts in zip(sample, cut_sample, strict=True):
            begin = len(input_ids)
            for text in texts:
                input_ids += turns[text]
            labels += input_ids[begin:] if piece.learned else [IGNORED] * (len(input_ids) - begin)
        out.append(Sample(input_ids, labels))
    return out


def _turns(text: str, end_of_turn: str) -> list[str]:
    """A text cut behind every end of turn."""
    *whole, rest = text.split(end_of_turn)
    turns = [f"{turn}{end_of_turn}" for turn in whole]
    return [*turns, rest] if rest else turns


def prompt_ids(
    tokenizer: AxTokenizer,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] | None = None,
) -> list[int]:
    """The token ids that a serving engine shows the model for a request.

    Args:
        tokenizer: The checkpoint's.
        messages: OpenAI messages.
        tools: OpenAI tools.

    Returns:
        The ids of the prompt, up to where the assistant begins to speak.

    Raises:
        DataError: When the request is one that an engine would refuse or show with a loss.
    """
    problems: list[Problem] = []
    raw = [(f"messages[{index}]", message) for index, message in enumerate(messages)]
    conversation = normalise_request(raw, list(tools) if tools else None, problems)
    faults = [Fault("request", 0, *p) for p in problems if p.severity == "error"]
    if faults:
        raise DataError("The request cannot be rendered.", faults)
    text = tokenizer.render(
        as_served(conversation.messages), conversation.tools, add_generation_prompt=True
    )
    return tokenizer.encode(text)


class TemplateDiffersError(CheckpointError):
    """The template writes an assistant's turn differently from what would be labelled."""


def _compare(tokenizer: AxTokenizer, place: str, whole: str, prompt: str, answer: str) -> None:
    """Hold our text of a turn against the template's."""
    if whole == prompt + answer:
        return
    # With an earlier turn cut in the prompt the two begin differently, but end the same.
    opening = _generation_prompt(tokenizer)
    if prompt.endswith(opening) and whole.endswith(opening + answer):
        return
    tail = whole[-len(answer) :]
    same = next((n for n, (a, b) in enumerate(zip(tail, answer, strict=False)) if a != b), 0)
    raise TemplateDiffersError(
        f"{place}: the chat template of {tokenizer.name} writes this turn differently from the "
        f"native format, from character {same} of {len(answer)} on.",
        "Use the checkpoint's original template; an edited one cannot be trained on faithfully.",
    )


def _generation_prompt(tokenizer: AxTokenizer) -> str:
    """What the template appends so that the assistant begins to speak."""
    probe: list[Message] = [{"role": "user", "content": ""}]
    closed = tokenizer.render(probe, None, add_generation_prompt=False)
    opened = tokenizer.render(probe, None, add_generation_prompt=True)
    if not opened.startswith(closed) or opened == closed:
        raise AxtuneError(
            f"The chat template of {tokenizer.name} has no generation prompt.",
            "Use the checkpoint's original chat template.",
        )
    return opened[len(closed) :]
