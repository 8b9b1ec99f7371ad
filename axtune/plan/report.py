"""What a plan means for cards, for people as tables and for machines as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from axtune.plan.estimate import (
    STREAMING,
    UNCERTAINTY,
    Plan,
    answering,
    askings,
    questions,
    seconds,
    speed,
)
from axtune.plan.gpus import Card
from axtune.plan.memory import Memory
from axtune.plan.search import Edits, Search
from axtune.units import duration, plural

_ASKING = "asking, at most"  # of the table of cards
_PARTS = (
    ("weights", "weights"),
    ("adapter", "adapter, gradients"),
    ("optimizer", "optimizer"),
    ("saved", "saved states"),
    ("recompute", "one layer's work *"),
    ("head", "loss head *"),
    ("workspace", "workspace"),
)


@dataclass(frozen=True)
class Verdict:
    """Whether a run fits a card.

    Attributes:
        card: The card.
        edits: What makes it fit, without overrides where it does as it is; None where nothing does.
        speed: Tokens a second in training there, with these edits; None where that is not known.
        seconds: Of the whole run there; None where that is not known.
        answering: Of these the seconds in which questions are answered, at most.
    """

    card: Card
    edits: Edits | None
    speed: float | None
    seconds: float | None
    answering: float | None = None

    @property
    def fits(self) -> bool:
        """Whether the recipe fits as it is."""
        return self.edits is not None and not self.edits.words


def judge(search: Search, cards: Sequence[Card]) -> list[Verdict]:
    """A verdict for each card."""
    verdicts = []
    for card in cards:
        edits = search.fit(card.usable)
        found = (f(edits.plan, card) if edits else None for f in (speed, seconds, answering))
        verdicts.append(Verdict(card, edits, *found))
    return verdicts


def to_json(plan: Plan, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """A plan for machines. The keys are stable:

    ``model``, ``task``, ``parameters``, ``trained_parameters``; ``samples`` and ``tokens`` of an
    epoch, padding included; ``longest_tokens`` and ``mean_tokens`` of a forward pass; ``steps`` of
    the run (these and ``samples`` and ``tokens`` are null with ``--tokens``); ``refused_rows``;
    ``processes``, whether they are ``sharded``, and the bytes that each has ``exchanged`` in a
    step; ``memory``: bytes on the device of ``longest_step``, ``mean_step`` and ``evaluation`` (or
    null), each in ``weights``, ``adapter``, ``optimizer``, ``saved``, ``recompute``, ``head``,
    ``workspace`` and ``total``; ``host``: of ``merge`` and ``export``, the bytes of ``memory`` and
    those ``written``; ``cards``: a list of ``name``, ``gigabytes``, ``usable`` bytes, ``fits``,
    ``edits`` (overrides; null where nothing makes it fit), with them the ``peak`` in bytes, the
    samples ``left_out``, ``tokens_per_second`` and ``seconds`` (or null), of which at most
    ``evaluate_seconds`` (or null) are for the questions of ``evaluate``.
    """

    def column(memory: Memory | None) -> dict[str, int] | None:
        if memory is None:
            return None
        parts = {name: round(value) for name, value in asdict(memory).items()}
        return parts | {"total": round(memory.total)}

    host = {"memory": STREAMING, "written": plan.written}
    return {
        "model": plan.known.name,
        "task": plan.recipe.task,
        "parameters": plan.known.architecture.parameters,
        "trained_parameters": plan.job.trained.parameters,
        "samples": None if plan.known.assumed else plan.batches.samples,
        "tokens": None if plan.known.assumed else plan.batches.tokens,
        "longest_tokens": round(plan.batches.longest.tokens),
        "mean_tokens": round(plan.batches.mean.tokens),
        "steps": None if plan.known.assumed else plan.batches.steps,
        "refused_rows": plan.known.refused,
        "processes": plan.known.processes,
        "sharded": plan.known.sharded,
        "exchanged": round(plan.exchanged),
        "memory": {
            "longest_step": column(plan.longest),
            "mean_step": column(plan.mean),
            "evaluation": column(plan.evaluation),
        },
        "host": {"merge": host, "export": host},
        "cards": [
            {
                "name": verdict.card.name,
                "gigabytes": verdict.card.gigabytes,
                "usable": round(verdict.card.usable),
                "fits": verdict.fits,
                "edits": list(verdict.edits.words) if verdict.edits else None,
                "peak": round(verdict.edits.plan.peak) if verdict.edits else None,
                "left_out": verdict.edits.left_out if verdict.edits else None,
                "tokens_per_second": verdict.speed and round(verdict.speed, 1),
                "seconds": verdict.seconds and round(verdict.seconds, 3),
                "evaluate_seconds": verdict.answering and round(verdict.answering, 3),
            }
            for verdict in verdicts
        ],
    }


def show(console: Console, plan: Plan, verdicts: Sequence[Verdict]) -> None:
    """Print a plan: what a step takes, how many there are, and what it means for each card."""
    trained, batches = plan.job.trained, plan.batches
    share = 100 * trained.parameters / plan.known.architecture.parameters
    bits = "4-bit" if plan.job.quantized else f"{8 * plan.job.width}-bit"
    console.print(
        Text(
            f"{plan.recipe.task} of {plan.known.name}, {bits} base, "
            f"{trained.parameters:,} trained parameters ({share:.2f}%)"
        )
    )
    console.print(_peaks(plan))
    note = "* the larger counts; merge and export are of host memory; GB are 10^9 bytes"
    console.print(Text(note, style="dim"))
    a_pass = f"{batches.mean.tokens:,.0f} tokens on average, {batches.longest.tokens:,.0f} at most"
    console.print(Text(f"{_epoch(plan)}; a forward pass takes {a_pass}"))
    if plan.known.processes > 1:
        console.print(Text(_processes(plan)))
    if plan.known.refused:
        console.print(
            Text(f"{plural(plan.known.refused, 'row')} refused: axtune data check", style="yellow")
        )
    if plan.recipe.evaluate and not plan.known.assumed:
        console.print(Text(_questions(plan, timed=any(v.answering for v in verdicts))))
    console.print(_cards(verdicts))
    _show_edits(console, verdicts)
    note = "arithmetic, not measured on a card"
    if any(verdict.speed for verdict in verdicts):
        note += f"; speed and time from data sheets, ±{UNCERTAINTY:.0%}"
    console.print(Text(note, style="dim"))


def _processes(plan: Plan) -> str:
    """How several processes share the work, and what goes between them."""
    how = "a share of the weights (FSDP2)" if plan.known.sharded else "all of them (DDP)"
    return (
        f"{plan.known.processes} processes, each with {how}: memory is each one's, and each "
        f"receives {plan.exchanged / 1e9:,.2f} GB from the others a step"
    )


def _epoch(plan: Plan) -> str:
    batches = plan.batches
    if plan.known.assumed:
        return f"every sample of {int(plan.known.sizes.lengths[0]):,} tokens, as told"
    return (
        f"{plural(batches.steps, 'step')}; {plural(batches.samples, 'sample')} and "
        f"{batches.tokens:,} tokens an epoch, padding included"
    )


def _questions(plan: Plan, *, timed: bool) -> str:
    """How many questions there are and how often they are asked; what that takes, at the most.

    Args:
        plan: The run.
        timed: Whether the time that answers take is told for a card.
    """
    config = plan.recipe.evaluate
    assert config is not None
    times = f"asked {plural(askings(plan), 'time')}"
    count = questions(plan)
    if count is None:
        return (
            f"evaluate: all questions of its files, {times}; the time is without them, since how "
            "many there are is told when they are read; evaluate.limit tells it before"
        )
    about = "about" if config.data is None else "at most"
    text = (
        f"evaluate: {about} {plural(count, 'question')}, {times}, as many at once as the memory "
        "beside training lets in"
    )
    if timed:
        text += (
            f"; the time holds {_ASKING}: as if every answer had {config.max_new_tokens:,} tokens "
            "(evaluate.max_new_tokens)"
        )
    return text


def _peaks(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("GB at the peak of", no_wrap=True)
    columns = {"longest step": plan.longest, "mean step": plan.mean}
    if plan.evaluation is not None:
        columns["evaluation"] = plan.evaluation
    for name in (*columns, "merge", "export"):
        table.add_column(name, justify="right")
    for name, label in _PARTS:
        values = [getattr(memory, name) for memory in columns.values()]
        table.add_row(label, *map(_figure, values), "", "")
    totals = [_figure(memory.total) for memory in columns.values()]
    streaming = _figure(STREAMING)
    table.add_row("in all", *totals, streaming, streaming, style="bold")
    on_disk = f"{plan.written / 1e9:.1f}"
    table.add_row("written to the disk", *("" for _ in columns), on_disk, on_disk)
    return table


def _figure(count: float) -> str:
    return f"{count / 1e9:.2f}"


def _cards(verdicts: Sequence[Verdict]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("card")
    table.add_column("usable", justify="right")
    timed = any(verdict.speed for verdict in verdicts)
    if timed:
        table.add_column("tokens/s", justify="right")
        table.add_column("time", justify="right")
    asked = any(verdict.answering for verdict in verdicts)
    if asked:
        table.add_column(_ASKING, justify="right")
    table.add_column("fits")
    for verdict in verdicts:
        cells = [verdict.card.name, f"{verdict.card.usable / 1e9:.1f}"]
        if timed:
            cells.append(f"{verdict.speed:,.0f}" if verdict.speed else "")
            cells.append(duration(verdict.seconds) if verdict.seconds else "")
        if asked:
            cells.append(duration(verdict.answering) if verdict.answering else "")
        table.add_row(*cells, _fits(verdict))
    return table


def _fits(verdict: Verdict) -> Text:
    if verdict.edits is None:
        return Text("no, whatever the recipe says", style="red")
    if verdict.fits:
        return Text("yes", style="green")
    left_out = verdict.edits.left_out
    fewer = f", leaving out {plural(left_out, 'sample')}" if left_out else ""
    return Text(f"with the overrides below{fewer}", style="yellow")


def _show_edits(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print the overrides that make cards fit, each set once, in lines that can be pasted."""
    cards: dict[tuple[str, ...], list[str]] = {}
    for verdict in verdicts:
        if verdict.edits and verdict.edits.words:
            cards.setdefault(verdict.edits.words, []).append(verdict.card.name)
    for words, names in cards.items():
        console.print(Text(f"for {', '.join(names)}:", style="yellow"))
        console.print(Text(f"  {' '.join(words)}"), soft_wrap=True)
