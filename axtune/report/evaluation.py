"""The figures of an evaluation as rows with intervals to draw, and its answers side by side."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from axtune.config.metrics import metric_name
from axtune.evaluate.answers import Kept, differing
from axtune.evaluate.results import Estimate, Measured, Result, Verdict
from axtune.report.chart import number

# Shares are drawn from 0 to 1; what has a scale of its own from its least to its greatest.
_SHARES = (
    "accuracy",
    "decision",
    "tool",
    "arguments",
    "valid_json",
    "schema_valid",
    "published",
    "exact",
    "json",
)
_SCALES = {**dict.fromkeys(_SHARES, (0.0, 1.0)), "chrf": (0.0, 100.0)}
_MOST_EXAMPLES = 40
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Whisker:
    """A figure with its interval, in percent of the row's scale.

    Attributes:
        low: Where the interval begins.
        at: Where the figure is.
        high: Where the interval ends.
        color: Its place in the palette.
        text: The figure and its interval for people.
        short: The figure alone.
    """

    low: float
    at: float
    high: float
    color: int
    text: str
    short: str


@dataclass(frozen=True, slots=True)
class Row:
    """A metric of a category.

    Attributes:
        metric: Its name for people.
        n: Questions.
        whiskers: Of each model that has the figure; the one it is held against comes first.
        difference: With its interval, for people; empty without.
        verdict: What the difference says; None without.
    """

    metric: str
    n: int
    whiskers: list[Whisker]
    difference: str
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of a category.

    Attributes:
        category: Its name for people.
        rows: One for each metric.
        shares: Whether all of them are shares, drawn from 0 to 1.
    """

    category: str
    rows: list[Row]
    shares: bool


def groups(result: Result) -> list[Group]:
    """The figures of an evaluation by category, in their order."""
    return _by_category([(one, [one.before, one.value]) for one in result.measured])


def compared(results: Sequence[Result | None]) -> list[Group]:
    """The figures of several evaluations; metrics that only some have are of those.

    Where all are held against the same model, its figures come last.
    """
    figures = [{(m.category, m.metric): m for m in r.measured} if r else {} for r in results]
    keys = dict.fromkeys(key for one in figures for key in one)
    rows = []
    for key in keys:
        found = [one.get(key) for one in figures]
        one = next(each for each in found if each)
        plain = Measured(one.metric, one.category, one.n, one.value)
        beside = [one.before] if common_base(results) else []
        rows.append((plain, [*(each.value if each else None for each in found), *beside]))
    return _by_category(rows)


def common_base(results: Sequence[Result | None]) -> str | None:
    """What several evaluations are all held against; None where it is not one model."""
    names = {result.against if result else None for result in results}
    return names.pop() if len(names) == 1 else None


def _by_category(rows: Sequence[tuple[Measured, list[Estimate | None]]]) -> list[Group]:
    found: dict[str, list[tuple[Measured, list[Estimate | None]]]] = {}
    for one, estimates in rows:
        found.setdefault(one.category, []).append((one, estimates))
    return [
        Group(
            category.replace("_", " "),
            [_row(*pair) for pair in group],
            all(one.metric in _SHARES for one, _ in group),
        )
        for category, group in found.items()
    ]


def _row(one: Measured, estimates: Sequence[Estimate | None]) -> Row:
    low, high = _scale(one.metric, [each for each in estimates if each])
    write = written_as(one.metric)
    whiskers = [
        Whisker(
            low=_place(each.low, low, high),
            at=_place(each.value, low, high),
            high=_place(each.high, low, high),
            color=color,
            text=write(each.value)
            + (f" ({write(each.low)} to {write(each.high)})" if each.is_bounded else ""),
            short=write(each.value),
        )
        for color, each in enumerate(estimates)
        if each
    ]
    return Row(
        metric=metric_name(one.metric),
        n=one.n,
        whiskers=whiskers,
        difference=_difference(one.difference, write) if one.difference else "",
        verdict=one.verdict,
    )


def _scale(metric: str, estimates: Sequence[Estimate]) -> tuple[float, float]:
    if metric in _SCALES:
        return _SCALES[metric]
    low, high = min(one.low for one in estimates), max(one.high for one in estimates)
    room = 0.1 * (high - low) or 1.0
    return low - room, high + room


def _place(value: float, low: float, high: float) -> float:
    return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 2)


def written_as(metric: str) -> Callable[[float], str]:
    """What writes a metric's values for people."""
    return _percent if metric in _SHARES else number


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _difference(one: Estimate, write: Callable[[float], str]) -> str:
    """A difference; those of shares are in percentage points."""

    def signed(value: float) -> str:
        text = write(abs(value)).rstrip("%")
        return ("−" if value < 0 else "+") + text

    unit = " points" if write is _percent else ""
    interval = f" ({signed(one.low)} to {signed(one.high)})" if one.is_bounded else ""
    return f"{signed(one.value)}{unit}{interval}"


# --- answers --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Example:
    """Two answers to one question.

    Attributes:
        question: Its id.
        category: Its category.
        asked: The last message of its prompt.
        right: A right answer.
        before: The pieces of the answer that is held against, each with whether it is different.
        after: Those of the model's.
    """

    question: str
    category: str
    asked: str
    right: str
    before: list[tuple[str, bool]]
    after: list[tuple[str, bool]]


def examples(result: Result, answers: Sequence[Kept]) -> tuple[list[Example], int]:
    """Questions to which the two models say different things.

    Args:
        result: Of the evaluation.
        answers: Its answers.

    Returns:
        The first ones, and how many there are.
    """
    found = [
        Example(
            after.question,
            after.category,
            after.asked,
            after.right,
            *marked(before.said, after.said),
        )
        for before, after in differing(answers, result.against or "", result.model, result.keys)
    ]
    return found[:_MOST_EXAMPLES], len(found)


def marked(before: str, after: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Two texts in pieces, each with whether the other one lacks it."""
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    sides: tuple[list[tuple[str, bool]], list[tuple[str, bool]]] = ([], [])
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        for side, words in zip(sides, (old[a:b], new[c:d]), strict=True):
            if words:
                side.append(("".join(words), kind != "equal"))
    return sides
