"""Figures with their 95% intervals, and what the difference of two models says.

**Shares** (of right answers): Wilson's interval; for the difference of two models on the same
questions, Newcombe's, which joins two of Wilson's by their correlation (method 10 of Statistics in
Medicine 17, 1998, 2635-2650), and McNemar's exact test. It needs no discordant pair, and covers
well from few questions on (Fagerland, Lydersen and Laake, Statistics in Medicine 33, 2014,
2850-2875).

**Everything else** (chrF, losses, shares over several samples of each question): the bootstrap over
questions, bias-corrected and accelerated (BCa) up to a thousand of them, by percentiles beyond, the
same questions of both models drawn together; and the permutation test that swaps the two answers of
a question. Where there are few questions the bootstrap is too narrow (Hesterberg, The American
Statistician 69, 2015, 371-386): of fewer than ten, Student's interval with the standard error of
the jackknife (Tukey's; Miller, Biometrika 61, 1974, 1-15), which for a mean is the usual one.

Values without any spread say nothing of their spread. As with n right answers of n, a share of up
to 1 - 0.025^(1/n) of all questions may still be otherwise (Clopper and Pearson, Biometrika 26,
1934, 404-413; Hanley and Lippman-Hand, JAMA 249, 1983, 1743-1745), and these as far off as the
figure's range lets them; a figure without a range has no such bound, and its interval no width. A
difference is never further off than the intervals of the two figures let it be.

A difference is called better or worse when its interval leaves 0 out. Where that of the interval's
method does and the test does not agree, it reaches to 0: no difference is among those that the
answers cannot rule out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from axtune.evaluate.results import Estimate, Measured, Verdict
from axtune.evaluate.text import chrf

LEVEL = 0.95
SEED = 0
RESAMPLES = 4000
# A bootstrap knows only what it was given: of fewer questions its interval is far too narrow.
ENOUGH = 10
_NOTHING = 1e-12  # of an interval's width: rounding
# BCa takes as much work as the square of the questions, and beyond this many corrects nothing.
MANY = 1000

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of what the answers to many questions add up to.

    Attributes:
        of: From the mean of the questions' parts, (…, parts), to the figure, (…).
        each: From a question's parts, (questions, parts), to what is compared question by question.
        lower_is_better: Of a loss.
        least: That it can be.
        most: That it can be.
    """

    of: Callable[[Values], Values]
    each: Callable[[Values], Values]
    lower_is_better: bool = False
    least: float = -inf
    most: float = inf


def _first(parts: Values) -> Values:
    return parts[..., 0]


def _ratio(parts: Values) -> Values:
    ratio: Values = parts[..., 0] / parts[..., 1]
    return ratio


# The mean of one number a question.
MEAN = Figure(_first, _first)
_SHARE = replace(MEAN, least=0.0, most=1.0)
# Of (nats, tokens) a question: the mean over all tokens, and its exponential.
LOSS = Figure(_ratio, _first, lower_is_better=True, least=0.0)
PERPLEXITY = replace(LOSS, of=lambda parts: np.exp(_ratio(parts)), least=1.0)
# Of `axtune.evaluate.text.chrf_counts`.
CHRF = Figure(chrf, chrf, least=0.0, most=100.0)


def measure_shares(
    metric: str, category: str, after: Sequence[float], before: Sequence[float] | None = None
) -> Measured:
    """A share of right answers, and what became of it.

    Args:
        metric: Its name.
        category: Of the questions.
        after: Of each question whether it is right; with several samples of each, how many of them.
        before: The same of the other model, question by question.

    Raises:
        ValueError: When there is no question, or a value is no share.
    """
    now = _column(after)
    then = None if before is None else _column(before)
    both = now if then is None else np.concatenate([now, then])
    if not ((both >= 0) & (both <= 1)).all():
        raise ValueError("a share is from 0 to 1")
    if not np.isin(both, (0, 1)).all():
        return measure(metric, category, _SHARE, now, then)
    n, right = len(now), now[:, 0] == 1
    value = wilson(int(right.sum()), n)
    if then is None:
        return Measured(metric, category, n, value)
    _require_pairs(now, then)
    was = then[:, 0] == 1
    gained, lost = int((right & ~was).sum()), int((was & ~right).sum())
    difference = newcombe(int((right & was).sum()), gained, lost, int((~right & ~was).sum()))
    difference, verdict = _judged(difference, mcnemar(gained, lost), lower_is_better=False)
    return Measured(metric, category, n, value, wilson(int(was.sum()), n), difference, verdict)


def measure(
    metric: str,
    category: str,
    figure: Figure,
    after: ArrayLike,
    before: ArrayLike | None = None,
) -> Measured:
    """A figure of any other kind, and what became of it.

    Args:
        metric: Its name.
        category: Of the questions.
        figure: What it is.
        after: (questions, parts), as `figure` takes them; (questions,) of one part.
        before: The same of the other model, question by question.

    Raises:
        ValueError: When there is no question, or the two are not of the same ones.
    """
    now = _column(after)
    n, value = len(now), _interval(now, figure)
    if before is None:
        return Measured(metric, category, n, value)
    then = _column(before)
    _require_pairs(now, then)
    parts = now.shape[1]
    less = Figure(
        lambda both: figure.of(both[..., :parts]) - figure.of(both[..., parts:]),
        figure.each,
        least=figure.least - figure.most,
        most=figure.most - figure.least,
    )
    was, difference = _interval(then, figure), _interval(np.hstack([now, then]), less)
    difference = replace(
        difference,
        low=max(difference.low, value.low - was.high),
        high=min(difference.high, value.high - was.low),
    )
    p = swap_test(figure.each(now) - figure.each(then)) if n >= ENOUGH else 1.0
    difference, verdict = _judged(difference, p, lower_is_better=figure.lower_is_better)
    return Measured(metric, category, n, value, was, difference, verdict)


def _judged(difference: Estimate, p: float, *, lower_is_better: bool) -> tuple[Estimate, Verdict]:
    """A difference whose interval and verdict say the same."""
    if p >= 1 - LEVEL and difference.is_bounded:
        difference = replace(
            difference, low=min(difference.low, 0.0), high=max(difference.high, 0.0)
        )
    if p >= 1 - LEVEL or difference.low <= 0 <= difference.high:
        return difference, "cannot be told"
    return difference, "better" if (difference.value > 0) is not lower_is_better else "worse"


def _column(values: ArrayLike) -> Values:
    """(questions, parts), of at least one question."""
    array = np.asarray(values, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if not len(array):
        raise ValueError("there is no question to measure")
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite")
    return array


def _require_pairs(after: Values, before: Values) -> None:
    if after.shape != before.shape:
        raise ValueError(f"{len(after)} questions are held against {len(before)}")


# --- Shares ---------------------------------------------------------------------------------------


def wilson(right: int, n: int) -> Estimate:
    """A share and Wilson's score interval.

    Raises:
        ValueError: When there is no question.
    """
    found = stats.binomtest(right, n).proportion_ci(LEVEL, method="wilson")
    return Estimate(right / n, float(found.low), float(found.high))


def newcombe(both: int, gained: int, lost: int, neither: int) -> Estimate:
    """The difference of two shares of the same questions: Newcombe's interval, method 10.

    Args:
        both: Questions that both models answer right.
        gained: That the new one alone answers right.
        lost: That the old one alone answers right.
        neither: That none does.

    Raises:
        ValueError: When there is no question.
    """
    n = both + gained + lost + neither
    after, before = wilson(both + gained, n), wilson(both + lost, n)
    correlation = _phi(both, gained, lost, neither)

    def reach(one: float, other: float) -> float:
        return sqrt(max(0.0, one * one + other * other - 2 * correlation * one * other))

    value = (gained - lost) / n
    low = value - reach(after.value - after.low, before.high - before.value)
    high = value + reach(after.high - after.value, before.value - before.low)
    return Estimate(value, low, high)


def _phi(both: int, gained: int, lost: int, neither: int) -> float:
    """The correlation of two answers to a question, with Newcombe's correction for continuity."""
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if not margins:
        return 0.0
    excess = float(both * neither - gained * lost)
    if excess > 0:
        excess = max(0.0, excess - (both + gained + lost + neither) / 2)
    return excess / sqrt(margins)


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact test, two-sided: how likely so uneven a change is when nothing changed."""
    if not gained + lost:
        return 1.0
    return float(stats.binomtest(gained, gained + lost).pvalue)


# --- Everything else ------------------------------------------------------------------------------


def _interval(parts: Values, figure: Figure) -> Estimate:
    """A figure of (questions, parts) and its interval, within what the figure can be."""
    value = float(figure.of(parts.mean(axis=0)))
    few = len(parts) < ENOUGH
    low, high = (_student if few else _bootstrap)(parts, figure.of, value)
    if high - low <= _NOTHING * max(1.0, abs(value)):
        low = high = value
        if isfinite(figure.most - figure.least):
            share = 1 - ((1 - LEVEL) / 2) ** (1 / len(parts))
            low, high = (value + share * (end - value) for end in (figure.least, figure.most))
    # The figure itself is always within: a percentile of few different draws need not reach it.
    low, high = max(low, figure.least), min(high, figure.most)
    return Estimate(value, min(value, low), max(value, high))


def _student(parts: Values, of: Callable[[Values], Values], value: float) -> tuple[float, float]:
    """An interval of a few questions: Student's, with the standard error of the jackknife."""
    n = len(parts)
    if n == 1:
        return value, value
    without = of((parts.sum(axis=0) - parts) / (n - 1))  # each question left out in turn
    error = sqrt((n - 1) * float(np.var(without)))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    return value - reach, value + reach


def _bootstrap(parts: Values, of: Callable[[Values], Values], value: float) -> tuple[float, float]:
    """An interval by drawing questions."""
    if (parts == parts[0]).all():
        return value, value  # every draw is the same

    def drawn(rows: NDArray[np.int64], axis: int) -> Values:
        return of(parts[rows].mean(axis=-2))

    def interval(method: str) -> Any:
        return stats.bootstrap(
            (np.arange(len(parts)),),
            drawn,
            n_resamples=RESAMPLES,
            batch=max(1, 4_000_000 // parts.size),  # draws at a time, within tens of megabytes
            confidence_level=LEVEL,
            method=method,
            rng=np.random.default_rng(SEED),
        ).confidence_interval

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a bootstrap without spread, which is seen below
        found = interval("BCa" if len(parts) <= MANY else "percentile")
        if not np.isfinite([found.low, found.high]).all():
            found = interval("percentile")
    return float(found.low), float(found.high)


def swap_test(differences: ArrayLike) -> float:
    """How likely so large a mean difference is when the two models are alike, two-sided.

    The answers of a question are then as likely to be of one model as of the other: signs are
    swapped in all ways where these are few, else at random.

    Args:
        differences: (questions,).
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]  # swapping those changes nothing
    if len(values) < 2:  # of one, both signs are as large
        return 1.0
    found = stats.permutation_test(
        (values,),
        lambda signed, axis: signed.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, 4_000_000 // len(values)),
        rng=np.random.default_rng(SEED),
    )
    return float(found.pvalue)
