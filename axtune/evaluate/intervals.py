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

**Clusters**: the turns of one conversation, or a sentence that is asked with several tools, are
right or wrong together, and n of them tell less than n questions (Miller, Adding Error Bars to
Evals, 2024, arXiv:2411.00640). Where a cluster has several questions, a share has Wilson's interval
of as many questions as the answers are worth: n by the design effect, which is the cluster-robust
variance by that of independent questions and never less than 1, corrected for few clusters by
Student's quantile (Korn and Graubard, Survey Methodology 24, 1998, 193-201; with Wilson's interval
Franco and others, Journal of Survey Statistics and Methodology 7, 2019, 334-364). Answers that are
all right, or all wrong, tell nothing of their correlation, and a cluster then counts as one (Kish,
Survey Sampling, 1965). Everything else, and the difference of two shares, draws, leaves out and
swaps clusters where it would questions, and counts these to see whether they are enough.

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
from collections.abc import Callable, Hashable, Sequence
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
    metric: str,
    category: str,
    after: Sequence[float],
    before: Sequence[float] | None = None,
    clusters: Sequence[Hashable] | None = None,
) -> Measured:
    """A share of right answers, and what became of it.

    Args:
        metric: Its name.
        category: Of the questions.
        after: Of each question whether it is right; with several samples of each, how many of them.
        before: The same of the other model, question by question.
        clusters: What each question belongs to; None: each is alone.

    Raises:
        ValueError: When there is no question, or a value is no share.
    """
    now = _column(after)
    then = None if before is None else _column(before)
    both = now if then is None else np.concatenate([now, then])
    if not ((both >= 0) & (both <= 1)).all():
        raise ValueError("a share is from 0 to 1")
    if not np.isin(both, (0, 1)).all():
        return measure(metric, category, _SHARE, now, then, clusters)
    if _numbers(clusters, len(now)) is not None:
        return _measured(metric, category, _SHARE, now, then, clusters, _wilson_of_clusters)
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
    clusters: Sequence[Hashable] | None = None,
) -> Measured:
    """A figure of any other kind, and what became of it.

    Args:
        metric: Its name.
        category: Of the questions.
        figure: What it is.
        after: (questions, parts), as `figure` takes them; (questions,) of one part.
        before: The same of the other model, question by question.
        clusters: What each question belongs to; None: each is alone.

    Raises:
        ValueError: When there is no question, or the two are not of the same ones.
    """
    now, then = _column(after), None if before is None else _column(before)
    return _measured(metric, category, figure, now, then, clusters, _interval)


def _measured(
    metric: str,
    category: str,
    figure: Figure,
    now: Values,
    then: Values | None,
    clusters: Sequence[Hashable] | None,
    interval: Callable[[Values, Figure], Estimate],
) -> Measured:
    n, numbers = len(now), _numbers(clusters, len(now))
    if then is not None:
        _require_pairs(now, then)
        gains = figure.each(now) - figure.each(then)
    if numbers is not None:
        now = _added(now, numbers)
        if then is not None:
            then, gains = _added(then, numbers), _added(gains[:, None], numbers)[:, 0]
        figure = replace(figure, of=_of_sums(figure.of))
    count, value = None if numbers is None else len(now), interval(now, figure)
    if then is None:
        return Measured(metric, category, n, value, clusters=count)
    parts = now.shape[1]
    less = Figure(
        lambda both: figure.of(both[..., :parts]) - figure.of(both[..., parts:]),
        figure.each,
        least=figure.least - figure.most,
        most=figure.most - figure.least,
    )
    was, difference = interval(then, figure), _interval(np.hstack([now, then]), less)
    difference = replace(
        difference,
        low=max(difference.low, value.low - was.high),
        high=min(difference.high, value.high - was.low),
    )
    p = swap_test(gains) if len(now) >= ENOUGH else 1.0
    difference, verdict = _judged(difference, p, lower_is_better=figure.lower_is_better)
    return Measured(metric, category, n, value, was, difference, verdict, count)


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


def _numbers(clusters: Sequence[Hashable] | None, n: int) -> NDArray[np.int64] | None:
    """The number of each question's cluster; None where each question is alone.

    Raises:
        ValueError: When there are not as many as questions.
    """
    known: dict[Hashable, int] = {}
    each = range(n) if clusters is None else clusters
    numbers = [known.setdefault(one, len(known)) for one in each]
    if len(numbers) != n:
        raise ValueError(f"{n} questions are of {len(numbers)} clusters")
    return np.array(numbers) if len(known) < n else None


def _of_sums(of: Callable[[Values], Values]) -> Callable[[Values], Values]:
    """A figure of what `_added` gives, or of its mean."""
    return lambda sums: of(sums[..., :-1] / sums[..., -1:])


def _added(parts: Values, numbers: NDArray[np.int64]) -> Values:
    """(clusters, parts + 1): the parts of each cluster's questions, and how many these are."""
    counted = np.column_stack([parts, np.ones(len(parts))])
    return np.stack([np.bincount(numbers, column) for column in counted.T], axis=1)


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


def _wilson_of_clusters(sums: Values, _: Figure) -> Estimate:
    """A share and Wilson's interval of as many questions as clusters of them are worth.

    Args:
        sums: (clusters, 2): how many questions of each are right, and how many there are.
    """
    right, sizes = sums.T
    n, count, z = sizes.sum(), len(sums), stats.norm.ppf((1 + LEVEL) / 2)
    share = float(right.sum() / n)  # to the bit, since --at-least compares it
    if share in (0, 1) or count == 1:
        worth = n**2 / (sizes**2).sum()
    else:
        variance = ((right - share * sizes) ** 2).sum() * count / (count - 1)
        few = (z / stats.t.ppf((1 + LEVEL) / 2, count - 1)) ** 2
        worth = max(1.0, few * n / max(1.0, variance / (n * share * (1 - share))))
    middle = (share + z**2 / (2 * worth)) / (1 + z**2 / worth)
    reach = z / (1 + z**2 / worth) * sqrt(share * (1 - share) / worth + (z / (2 * worth)) ** 2)
    low, high = max(0.0, float(middle - reach)), min(1.0, float(middle + reach))
    return Estimate(share, min(share, low), max(share, high))


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
