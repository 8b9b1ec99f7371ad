"""What is trained on: ids and labels of documents, conversations, pairs, judged answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from axtune.config.objective import RowKind

IGNORED = -100  # the label of a token that is not learned, as in torch.nn.CrossEntropyLoss


class Stretch(NamedTuple):
    """A part of a sample that is one thing: a conversation, a prompt, an answer.

    Attributes:
        ids: Token ids.
        labels: As long: the id where the token is learned, else -100.
        wanted: Whether the answer is wanted; None of what nobody judges.
    """

    ids: Sequence[int]
    labels: Sequence[int]
    wanted: bool | None = None

    @property
    def labelled(self) -> int:
        """How many tokens are learned."""
        return len(self.labels) - self.labels.count(IGNORED)


class Label(NamedTuple):
    """A learned turn: where its labels begin in a sequence, and where they end.

    Attributes:
        begin: The first labelled token; before it stands the prompt, as it is served.
        end: Behind the last labelled token.
    """

    begin: int
    end: int


def learned_turns(labels: Sequence[int]) -> list[Label]:
    """Where learned turns stand; between two of them there is always a prompt.

    Args:
        labels: As of `Sample`.
    """
    found, begin = [], None
    for place, label in enumerate((*labels, IGNORED)):
        if label != IGNORED and begin is None:
            begin = place
        elif label == IGNORED and begin is not None:
            found.append(Label(begin, place))
            begin = None
    return found


class _Counted:
    """What can be said of every sample by its stretches."""

    __slots__ = ()

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """Its parts, in order: those of a preference are the prompt and its answers."""
        raise NotImplementedError

    @property
    def prompt_length(self) -> int:
        """Tokens of a preference's prompt; 0 of a conversation, which has none of its own."""
        return len(self.stretches[0].ids)

    @property
    def length(self) -> int:
        """The longest sequence, in tokens: what ``data.max_length`` limits."""
        _, *answers = self.stretches
        return self.prompt_length + max(len(answer.ids) for answer in answers)

    @property
    def tokens(self) -> int:
        """All tokens; a pair's prompt counts once."""
        return sum(len(stretch.ids) for stretch in self.stretches)

    @property
    def labelled(self) -> tuple[int, int]:
        """Tokens that are learned: of conversations and wanted answers, and of unwanted ones."""
        counts = [0, 0]
        for stretch in self.stretches:
            counts[stretch.wanted is False] += stretch.labelled
        return counts[0], counts[1]


@dataclass(slots=True)
class Sample(_Counted):
    """One training sequence.

    Attributes:
        input_ids: Token ids.
        labels: As long as `input_ids`: the id where the token is learned, else -100. Not shifted:
            ``labels[i]`` is the token that stands at ``input_ids[i]``.
    """

    input_ids: list[int]
    labels: list[int]

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The whole conversation, or piece of a document."""
        return (Stretch(self.input_ids, self.labels),)

    @property
    def prompt_length(self) -> int:
        """None of its tokens are a prompt alone."""
        return 0

    @property
    def length(self) -> int:
        """Its tokens."""
        return len(self.input_ids)

    @property
    def figures(self) -> str:
        """Its size, in words."""
        return f"{self.length} tokens, {self.labelled[0]} labelled"


@dataclass(slots=True)
class PairSample(_Counted):
    """A prompt and two answers to it; ``prompt_ids + chosen_ids`` is what serving would show.

    Attributes:
        prompt_ids: The prompt as it is served, up to where the assistant begins to speak.
        chosen_ids: The answer that is preferred, with its end of turn.
        rejected_ids: The other one.
        chosen_labels: As long as `chosen_ids`: the id where the token is the assistant's, else
            -100 (what stands between several turns of an answer, such as a tool's result).
        rejected_labels: The same of `rejected_ids`.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_labels: list[int]
    rejected_labels: list[int]

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The prompt, the chosen answer, the rejected one."""
        return (
            _prompt(self.prompt_ids),
            Stretch(self.chosen_ids, self.chosen_labels, True),
            Stretch(self.rejected_ids, self.rejected_labels, False),
        )

    @property
    def figures(self) -> str:
        """Its size, in words."""
        chosen, rejected = self.labelled
        return f"prompt of {self.prompt_length} tokens, {chosen} and {rejected} labelled"


@dataclass(slots=True)
class UnpairedSample(_Counted):
    """A prompt and one answer to it, which is wanted or not.

    Attributes:
        prompt_ids: As in `PairSample`.
        completion_ids: The answer, with its end of turn.
        completion_labels: As `PairSample.chosen_labels`.
        label: Whether the answer is wanted.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    completion_labels: list[int]
    label: bool

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The prompt and the answer."""
        answer = Stretch(self.completion_ids, self.completion_labels, self.label)
        return _prompt(self.prompt_ids), answer

    @property
    def figures(self) -> str:
        """Its size and its label, in words."""
        label = "true" if self.label else "false"
        return (
            f"prompt of {self.prompt_length} tokens, {sum(self.labelled)} labelled, label {label}"
        )


AnySample = Sample | PairSample | UnpairedSample


def as_served(sample: AnySample) -> Sample:
    """A sample as one sequence: of two answers the one that is preferred."""
    if isinstance(sample, Sample):
        return sample
    prompt = sample.prompt_ids
    if isinstance(sample, PairSample):
        answer, labels = sample.chosen_ids, sample.chosen_labels
    else:
        answer, labels = sample.completion_ids, sample.completion_labels
    return Sample([*prompt, *answer], [*[IGNORED] * len(prompt), *labels])


# What becomes of the rows that an objective learns from.
SAMPLE_TYPES: dict[RowKind, type[AnySample]] = {
    "document": Sample,
    "conversation": Sample,
    "pair": PairSample,
    "judged": UnpairedSample,
}


def _prompt(ids: list[int]) -> Stretch:
    return Stretch(ids, [IGNORED] * len(ids))
