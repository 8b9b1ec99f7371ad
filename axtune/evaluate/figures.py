"""What many answers add up to, by category: shares, chrF, reasons; now and before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TypeVar

from axtune.data.native_calls import Answer
from axtune.evaluate.intervals import CHRF, measure, measure_shares
from axtune.evaluate.questions import Question
from axtune.evaluate.results import Measured
from axtune.evaluate.score import Verdict, score
from axtune.evaluate.text import chrf_counts, is_exact, judge_json, wanted_schema

ALL = "all"

_Value = TypeVar("_Value")

# Shares of answers to questions about calls: their names, and what of a verdict they are.
_SHARES: dict[str, Callable[[Verdict], bool]] = {
    "accuracy": lambda verdict: verdict.right,
    "decision": lambda verdict: verdict.decision,
    "tool": lambda verdict: verdict.tool,
    "arguments": lambda verdict: verdict.arguments,
    "valid_json": lambda verdict: verdict.decision and verdict.valid_json,
    "schema_valid": lambda verdict: verdict.decision and verdict.schema_valid,
}
PUBLISHED = "published"  # as the benchmark's own program counts
METRICS = (*_SHARES, PUBLISHED, "exact", "chrf", "json")


@dataclass(frozen=True, slots=True)
class Scored:
    """A question with its answers.

    Attributes:
        question: What was asked.
        answers: One or several samples.
        verdicts: Of each.
    """

    question: Question
    answers: list[Answer]
    verdicts: list[Verdict]


def scored(question: Question, answers: Sequence[Answer]) -> Scored:
    """Judge the answers to a question."""
    verdicts = [
        score(answer, question.wanted, question.tools, question.rules) for answer in answers
    ]
    return Scored(question, list(answers), verdicts)


def figures(after: Sequence[Scored], before: Sequence[Scored] | None = None) -> list[Measured]:
    """Every metric of every category, those of all questions first.

    Args:
        after: The model's.
        before: Of what it is held against: the same questions in the same order.

    Returns:
        A metric is missing where no question is about it.
    """
    categories = list(dict.fromkeys(one.question.category for one in after))
    found = list(_of_category(ALL, after, before)) if len(categories) > 1 else []
    for category in categories:
        places = [n for n, one in enumerate(after) if one.question.category == category]
        then = None if before is None else [before[place] for place in places]
        found += _of_category(category, [after[place] for place in places], then)
    return found


def reasons(scores: Sequence[Scored]) -> dict[str, int]:
    """Why answers are not right, the most frequent first; what is not judged is no fault."""
    counts = Counter(verdict.reason for one in scores for verdict in one.verdicts if verdict.reason)
    del counts["not-judged"]
    return {str(reason): count for reason, count in counts.most_common()}


def _of_category(
    category: str, after: Sequence[Scored], before: Sequence[Scored] | None
) -> Iterator[Measured]:
    for metric, holds in _SHARES.items():
        about = [n for n, one in enumerate(after) if _is_about(metric, one.question)]
        if about:
            share = partial(_share, holds)
            yield measure_shares(metric, category, *_values(share, about, after, before))
    published = [n for n, one in enumerate(after) if one.question.published]
    if published:
        yield measure_shares(PUBLISHED, category, *_values(_published, published, after, before))
    texts = [n for n, one in enumerate(after) if one.question.wanted.decision == "text"]
    if texts:
        yield measure_shares("exact", category, *_values(_exact, texts, after, before))
        yield measure("chrf", category, CHRF, *_values(_chrf, texts, after, before))
    structured = [n for n in texts if _schema(after[n].question) is not None]
    if structured:
        yield measure_shares("json", category, *_values(_json, structured, after, before))


def _is_about(metric: str, question: Question) -> bool:
    """Whether a metric of calls says something of a question."""
    if metric == "accuracy":
        return question.wanted.decision != "text"
    if metric in ("tool", "arguments"):
        return question.wanted.decision == "calls"
    if metric in ("valid_json", "schema_valid"):
        return question.wanted.decision in ("calls", "any-call")
    return bool(question.tools)


def _values(
    value: Callable[[Scored], _Value],
    places: Sequence[int],
    after: Sequence[Scored],
    before: Sequence[Scored] | None,
) -> tuple[list[_Value], list[_Value] | None, list[Hashable]]:
    """Of each question, of each model, with the cluster that the question is of."""
    now = [value(after[place]) for place in places]
    then = None if before is None else [value(before[place]) for place in places]
    return now, then, [after[place].question.cluster or place for place in places]


def _share(holds: Callable[[Verdict], bool], one: Scored) -> float:
    return fmean(map(holds, one.verdicts))


def _published(one: Scored) -> float:
    right = one.question.published
    assert right is not None
    return fmean(map(right, one.answers))


def _exact(one: Scored) -> float:
    reference = [one.question.reference]
    return fmean(
        not answer.tool_calls and is_exact(answer.content, reference) for answer in one.answers
    )


def _text(answer: Answer) -> str:
    """What is compared with a text: nothing of an answer that calls, whatever stands beside."""
    return "" if answer.tool_calls else answer.content


def _chrf(one: Scored) -> list[int]:
    counts = sum(chrf_counts(_text(answer), [one.question.reference]) for answer in one.answers)
    return list(counts)  # type: ignore[arg-type]


def _schema(question: Question) -> object:
    return wanted_schema(None, [question.reference])


def _json(one: Scored) -> float:
    schema = _schema(one.question)
    return fmean(judge_json(_text(answer), schema).conforms for answer in one.answers)
