"""What is trained on: token ids and labels of a conversation, a pair, or a judged answer."""

from __future__ import annotations

from dataclasses import dataclass

IGNORED = -100  # the label of a token that is not learned, as in torch.nn.CrossEntropyLoss


@dataclass(slots=True)
class Sample:
    """One training sequence.

    Attributes:
        input_ids: Token ids.
        labels: As long as `input_ids`: the id where the token is learned, else -100. Not shifted:
            ``labels[i]`` is the token that stands at ``input_ids[i]``.
    """

    input_ids: list[int]
    labels: list[int]


@dataclass(slots=True)
class PairSample:
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


@dataclass(slots=True)
class UnpairedSample:
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


AnySample = Sample | PairSample | UnpairedSample


def length(sample: AnySample) -> int:
    """A sample's longest sequence, in tokens: what ``data.max_length`` limits."""
    if isinstance(sample, Sample):
        return len(sample.input_ids)
    if isinstance(sample, PairSample):
        return len(sample.prompt_ids) + max(len(sample.chosen_ids), len(sample.rejected_ids))
    return len(sample.prompt_ids) + len(sample.completion_ids)
