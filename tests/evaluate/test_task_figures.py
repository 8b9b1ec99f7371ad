"""Figures of tasks and what became of them, without the library."""

from __future__ import annotations

import math

import pytest

from axtune.evaluate.intervals import newcombe, wilson
from axtune.evaluate.task_figures import TaskScore, measure_tasks


def score(metric, values, *, value=None, stderr=0.05, lower=False, questions=None):
    values = None if values is None else tuple(map(float, values))
    value = sum(values) / len(values) if value is None else value
    asked = tuple(questions or map(str, range(len(values or ()))))
    return TaskScore(metric, 40, value, stderr, lower, values, asked)


def test_shares_are_paired_question_by_question():
    before, after = [0] * 12 + [1] * 28, [1] * 40
    (found,) = measure_tasks([score("kmmlu/acc", after)], [score("kmmlu/acc", before)])
    assert found.difference == newcombe(28, 12, 0, 0)
    assert (found.value, found.before) == (wilson(40, 40), wilson(28, 40))
    assert (found.metric, found.category, found.verdict) == ("kmmlu/acc", "all", "better")


def test_other_questions_and_other_figures_have_their_standard_errors():
    after = score("kobest/f1", None, value=0.8)
    (found,) = measure_tasks([after], [score("kobest/f1", None, value=0.6)])
    assert found.verdict == "better"
    reach = 1.959964 * 0.05
    assert (found.value.low, found.value.high) == pytest.approx((0.8 - reach, 0.8 + reach))
    assert found.difference is not None
    assert found.difference.low == pytest.approx(0.2 - reach * math.sqrt(2))
    (found,) = measure_tasks([after], [score("kobest/f1", None, value=0.6, stderr=None)])
    assert found.verdict == "cannot be told"
    one = score("kmmlu/acc", [1] * 20 + [0] * 20)
    two = score("kmmlu/acc", [1] * 10 + [0] * 30, questions=map(str, range(1, 41)))
    assert measure_tasks([one], [two])[0].value.low == pytest.approx(0.5 - reach)


def test_an_error_rate_is_turned_right():
    one = score("글자/cer", [0.1, 0.2] * 20, lower=True)
    two = score("글자/cer", [0.5, 0.7] * 20, lower=True)
    assert measure_tasks([one], [two])[0].verdict == "better"
    assert measure_tasks([two], [one])[0].verdict == "worse"
    one = score("글자/오류", None, value=0.1, lower=True)
    two = score("글자/오류", None, value=0.9, lower=True)
    assert measure_tasks([one], [two])[0].verdict == "better"
