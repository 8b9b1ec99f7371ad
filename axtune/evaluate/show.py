"""The figures of an evaluation, for people."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from axtune.evaluate.answers import Kept, differing
from axtune.evaluate.figures import ALL
from axtune.evaluate.results import Estimate, Measured, Result, clusters_in_words
from axtune.units import plural

_STYLES = {"better": "green", "worse": "red", "cannot be told": "dim"}
# Figures that are no shares, and how they are written.
_PLAIN = {"chrf": "{:.1f}", "loss": "{:.4f}", "perplexity": "{:.3f}"}
# What a category shows of itself: the first that it has of each.
_OF_CATEGORY = (("accuracy", "decision"), ("chrf",), ("loss",))
_MOST_REASONS = 6
_DIGIT = re.compile("[1-9]")
_NARROW = 9  # columns: what is shorter says nothing of a name


def show(console: Console, result: Result) -> None:
    """Print the figures as a table, then why answers are not right."""
    rows = list(_shown(result.measured))
    for between in (2, 1):  # columns of the screen between those of the table
        table = partial(_table, rows, compared=result.against is not None, between=between)
        room = console.width - console.measure(table([""] * len(rows))).maximum
        names = _names(rows, room)
        if max(map(cell_len, names), default=0) <= room:
            break
    console.print(table(names))
    if any(one.verdict == "cannot be told" for one in result.measured):
        console.print("cannot be told: with this n, chance alone may differ as much", style="dim")
    if not all((one.difference or one.value).is_bounded for one in rows):
        console.print("[–]: so few questions, or all alike, tell no interval", style="dim")
    for line in clusters_in_words(rows):
        console.print(line, style="dim")
    for title, counts in (("not right", result.reasons), ("before", result.reasons_before)):
        if counts:
            most = list(counts.items())[:_MOST_REASONS]
            console.print(f"{title}: " + ", ".join(f"{code} {count:,}" for code, count in most))
    for name, count in result.cut.items():
        longest = result.settings.get("max_new_tokens")
        cut = f"{plural(count, 'answer')} cut at {longest} tokens (--max-new-tokens)"
        console.print(Text(f"{name}: {cut}", style="yellow"))
    if result.ties:
        console.print(ties_in_words(result.ties))


def show_beside(console: Console, results: Mapping[str, Result]) -> None:
    """Print the figures of several models that were asked the same, and of their base.

    Args:
        console: Where to.
        results: By the models' names, each held against the base.
    """
    *_, last = results.values()
    of_each = [{(one.category, one.metric): one for one in r.measured} for r in results.values()]
    rows = list(_shown(last.measured))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    for name in ("n", "base", *results):
        table.add_column(Text(name), justify="right", no_wrap=True)
    for one, name in zip(rows, _names(rows, console.width // 2), strict=True):
        found = [each.get((one.category, one.metric)) for each in of_each]
        values = [one.before, *(each.value if each else None for each in found)]
        cells = [_written(one, value.value) if value else "" for value in values]
        table.add_row(Text(name), f"{one.n:,}", *cells)
    console.print(table)


def _table(
    rows: Sequence[Measured], names: Sequence[str], *, compared: bool, between: int
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, between - 1))
    table.add_column("", overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    for name in ("before", "after", "difference [95%]", "") if compared else ("", "[95%]"):
        table.add_column(Text(name), justify="right" if name else "left", no_wrap=bool(name))
    for one, name in zip(rows, names, strict=True):
        plain = (_written(one, one.value.value), _interval(one, one.value))
        table.add_row(Text(name), f"{one.n:,}", *(_difference(one) if compared else plain))
    return table


def _names(rows: Sequence[Measured], room: int) -> list[str]:
    """What stands before figures: categories and tasks lose their middle where they have no room.

    Where two would be called the same then, those without room lose the beginning that all of them
    share (``kmmlu_direct_``) as well; what is still called the same goes over several lines, whole.

    Args:
        rows: Of the table.
        room: Columns of the screen.
    """
    kinds = ["" if one.category == ALL else f": {one.metric}" for one in rows]
    names = [one.category if kind else one.metric for one, kind in zip(rows, kinds, strict=True)]
    whole = [name + kind for name, kind in zip(names, kinds, strict=True)]
    wide = [name for name, kind in zip(names, kinds, strict=True) if cell_len(name + kind) > room]
    shared = os.path.commonprefix(wide)  # noqa: RUF071 - of names, not of paths
    shared = shared[: shared.rfind("_") + 1]

    def short(without: str) -> list[str]:
        cut = [
            f"…{name.removeprefix(without)}" if without and name in wide else name for name in names
        ]
        return [
            _shortened(name, room - cell_len(k)) + k for name, k in zip(cut, kinds, strict=True)
        ]

    found = short("")
    if len(set(found)) < len(set(whole)):
        found = short(shared)
    counts = Counter(found)
    return [name if counts[name] == 1 else full for name, full in zip(found, whole, strict=True)]


def _shortened(name: str, room: int) -> str:
    """A name without its middle, where it is wider than `room` columns of the screen."""
    if cell_len(name) <= room or room < _NARROW:
        return name
    half = (room - 1) // 2
    begin = set_cell_size(name, room - 1 - half).rstrip()
    end = set_cell_size(name[::-1], half).rstrip()[::-1]
    return f"{begin}…{end}"


def show_examples(console: Console, result: Result, answers: Sequence[Kept], count: int) -> None:
    """Print questions that two models answer differently: asked, right, before, after."""
    found = differing(answers, result.against or "", result.model, result.keys)
    for before, after in found[:count]:
        console.print(Text(f"\n{after.question}  {after.category}", style="bold"))
        for name, text in (
            ("asked", after.asked), ("right", after.right), ("before", before.said),
            ("after", after.said),
        ):  # fmt: skip
            console.print(Text.assemble((f"{name:8}", "dim"), text))
    if len(found) > count:
        console.print(f"\n{len(found) - count:,} more differ", style="dim")


def ties_in_words(ties: dict[str, float]) -> str:
    """What two backends of the same weights say of each other."""
    if not ties["differ"]:
        return f"all {ties['compared']:,.0f} answers are the same, token by token"
    return (
        f"{ties['differ']:,.0f} of {ties['compared']:,.0f} answers differ, {ties['at_a_tie']:,.0f} "
        f"of them from a tie within {ties['bound']:g} on; the widest lead where two part is "
        f"{ties['widest']:.3g}"
    )


def _shown(measured: list[Measured]) -> Iterator[Measured]:
    """All of what is of all questions; of a category what it is best known by."""
    categories = list(dict.fromkeys(one.category for one in measured))
    for category in categories:
        found = {one.metric: one for one in measured if one.category == category}
        if category == ALL or len(categories) == 1:
            yield from found.values()
            continue
        for metrics in _OF_CATEGORY:
            yield from [found[metric] for metric in metrics if metric in found][:1]


def _difference(one: Measured) -> tuple[str | Text, ...]:
    value = _written(one, one.value.value)
    if one.before is None or one.difference is None or one.verdict is None:
        return "", value, "", ""
    difference = _written(one, one.difference.value, signed=True)
    return (
        _written(one, one.before.value),
        value,
        Text(f"{difference} ") + _interval(one, one.difference, signed=True),
        Text(one.verdict, style=_STYLES[one.verdict]),
    )


def _interval(one: Measured, estimate: Estimate, *, signed: bool = False) -> Text:
    if not estimate.is_bounded:
        return Text("[–]")
    low, high = (_written(one, end, signed=signed) for end in (estimate.low, estimate.high))
    return Text(f"[{low.rstrip('%')}, {high.rstrip('%')}]")


def _written(one: Measured, value: float, *, signed: bool = False) -> str:
    """A share in per cent, any other figure in its own unit."""
    form = _PLAIN.get(one.metric, "{:.3f}" if "/" in one.metric else "{:.1%}")
    text = form.replace(":", ":+" if signed else ":").format(value)
    if not signed or _DIGIT.search(text):
        return text
    if value == 0:
        return form.format(0)
    percent = "%" if text.endswith("%") else ""  # rounded to 0, on which of its sides hangs all
    return f"{100 * value if percent else value:+.1g}{percent}"
