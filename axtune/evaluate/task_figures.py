"""Figures of lm-evaluation-harness's tasks, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from typing import Any

import numpy as np
from scipy import stats

from axtune.evaluate.intervals import LEVEL, MEAN, measure, measure_shares
from axtune.evaluate.results import Estimate, Measured, Verdict


@dataclass(frozen=True, slots=True)
class TaskScore:
    """A figure of a task, with what another model's can be held against.

    Attributes:
        metric: ``task/metric``; with the name of the answers' filter behind ``@`` if it has one.
        n: Questions.
        value: As lm-evaluation-harness has it.
        stderr: Likewise; None where it has none.
        lower_is_better: Of an error rate or a perplexity.
        values: Of each question, where the figure is their mean; else None.
        questions: A hash of each question; as many as `values`.
    """

    metric: str
    n: int
    value: float
    stderr: float | None
    lower_is_better: bool
    values: tuple[float, ...] | None
    questions: tuple[str, ...]


def scores_of(found: Mapping[str, Any]) -> Iterator[TaskScore]:
    """The figures of lm-evaluation-harness's results, each with the values that it is the mean of.

    Args:
        found: As its ``evaluate`` gives them, with the samples.
    """
    for task, figures in found["results"].items():
        leaves = list(_leaves(found["group_subtasks"], task))
        for key, value in figures.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            stderr = figures.get(f"{metric}_stderr,{filtered}")
            lower = (found["higher_is_better"].get(task) or {}).get(metric) is False
            answers = [
                sample
                for leaf in leaves
                for sample in found["samples"][leaf]
                if sample["filter"] == filtered and metric in sample
            ]
            values = _mean_of(value, [sample[metric] for sample in answers])
            yield TaskScore(
                f"{task}/{metric}" + (f"@{filtered}" if filtered != "none" else ""),
                len(answers),
                float(value),
                float(stderr) if isinstance(stderr, (int, float)) else None,
                lower,
                values,
                tuple(sample["doc_hash"] for sample in answers) if values else (),
            )


def _leaves(groups: Mapping[str, Sequence[str]], name: str) -> Iterator[str]:
    if name not in groups:
        yield name
    for child in groups.get(name, ()):
        yield from _leaves(groups, child)


def _mean_of(value: float, values: Sequence[Any]) -> tuple[float, ...] | None:
    """The values of the questions, if the figure is their mean."""
    if not values or not all(isinstance(one, (int, float, np.number)) for one in values):
        return None
    numbers = tuple(float(one) for one in values)
    return numbers if np.isclose(np.mean(numbers), value, rtol=1e-6) else None


def measure_tasks(
    after: Sequence[TaskScore], before: Sequence[TaskScore] | None = None
) -> list[Measured]:
    """The figures of tasks with their intervals, and what became of them.

    A figure that is a mean over questions has the intervals and tests of
    `axtune.evaluate.intervals`, question by question. Another one (a corpus's BLEU, a mean over
    tasks) has 1.96 standard errors, and two of them are held against each other as if of different
    questions, which errs towards "cannot be told".

    Args:
        after: Of the model.
        before: Of what it is held against, on the same tasks; figures that it lacks have no
            difference.
    """
    known = {score.metric: score for score in before or ()}
    return [_measured(score, known.get(score.metric)) for score in after]


def _measured(after: TaskScore, before: TaskScore | None) -> Measured:
    if after.values is None or (before and before.questions != after.questions):
        return _by_stderr(after, before)
    then = before.values if before else None
    shares = {*after.values, *(then or ())} <= {0.0, 1.0}
    if shares and not after.lower_is_better:
        return measure_shares(after.metric, "all", after.values, then)
    figure = replace(MEAN, lower_is_better=after.lower_is_better)
    return measure(after.metric, "all", figure, after.values, then)


def _by_stderr(after: TaskScore, before: TaskScore | None) -> Measured:
    value = _normal(after.value, after.stderr)
    if before is None:
        return Measured(after.metric, "all", after.n, value)
    stderr = None
    if after.stderr is not None and before.stderr is not None:
        stderr = hypot(after.stderr, before.stderr)
    difference = _normal(after.value - before.value, stderr)
    verdict: Verdict = "cannot be told"
    if stderr is not None and not difference.low <= 0 <= difference.high:
        verdict = "better" if (difference.value > 0) is not after.lower_is_better else "worse"
    return Measured(
        after.metric, "all", after.n, value, _normal(before.value, before.stderr), difference,
        verdict,
    )  # fmt: skip


def _normal(value: float, stderr: float | None) -> Estimate:
    reach = float(stats.norm.ppf((1 + LEVEL) / 2)) * (stderr or 0.0)
    return Estimate(value, value - reach, value + reach)
