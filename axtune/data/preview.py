"""What the data is and where it went: rows as the model sees them, and the account.

Labelled tokens are marked by colour on a terminal and by ⟦…⟧ everywhere, wanted and unwanted
answers by + and -, so that a preview in a log file says the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.samples import IGNORED, AnySample
from axtune.data.statistics import DatasetStats, RowResult

_CONTROL = re.compile(r"<\|[^|>]*\|>|</?(?:think|tool_call|tool_output)>")


def show_row(console: Console, tokenizer: AxTokenizer, checked: RowResult) -> None:
    """Print a row's samples as the model sees them, or why it is refused.

    Args:
        console: Where to.
        tokenizer: The one that made the samples.
        checked: The row.
    """
    place = f"{checked.file}:{checked.line}"
    for fault in checked.faults:
        style = "yellow" if fault.severity == "warning" else "red"
        console.print(Text(str(fault), style=style), soft_wrap=True)
    for number, sample in enumerate(checked.samples, 1):
        which = f" sample {number} of {len(checked.samples)}" if len(checked.samples) > 1 else ""
        title = f"{place}{which} · {sample.figures}"
        console.rule(Text(title, style="bold"), align="left")
        console.print(sample_text(tokenizer, sample), soft_wrap=True)


def sample_text(tokenizer: AxTokenizer, sample: AnySample) -> Text:
    """A sample's text: of a preference the prompt, and each answer on a line of its own.

    Labelled stretches stand in ⟦…⟧, control tokens are dim. What is wanted is green, in a
    preference behind a +; what is not is red behind a -.

    Args:
        tokenizer: The one that made the sample.
        sample: Its ids and labels.
    """
    text = Text()
    for ids, labels, wanted in sample.stretches:
        style = "red" if wanted is False else "green"
        if wanted is not None:
            text.append("\n+ " if wanted else "\n- ", style=f"bold {style}")
        _append_tokens(text, tokenizer, ids, labels, style)
    return text


def _append_tokens(
    text: Text, tokenizer: AxTokenizer, ids: Sequence[int], labels: Sequence[int], style: str
) -> None:
    pairs = zip(ids, labels, strict=True)
    for labelled, stretch in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        # A terminal would obey an escape sequence that stands in the data.
        said = tokenizer.decode([token for token, _ in stretch]).replace("\x1b", "␛")
        if labelled:
            text.append("⟦", style=f"bold {style}")
            _append(text, said, style)
            text.append("⟧", style=f"bold {style}")
        else:
            _append(text, said, "")


def _append(text: Text, said: str, style: str) -> None:
    """Append with control tokens dim, and each turn on a line of its own."""
    end = 0
    for match in _CONTROL.finditer(said):
        text.append(said[end : match.start()], style=style)
        if match.group() == "<|im_start|>" and text.plain:
            text.append("\n")  # the model sees no newline here; it is for reading only
        text.append(match.group(), style=f"{style} dim".strip())
        end = match.end()
    text.append(said[end:], style=style)


def show_mixture(console: Console, parts: Sequence[Mapping[str, Any]]) -> None:
    """Print what each source has of an epoch, as a table.

    Args:
        console: Where to.
        parts: As an account has them (`axtune.data.mixture.Part`).
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("source", overflow="fold")
    for name in ("rows", "seen", "tokens", "share"):
        table.add_column(name, justify="right")
    table.add_column("recipe", style="dim")
    for part in parts:
        table.add_row(
            Text(part["source"]),
            f"{part['read']:,}",
            f"{part['rows']:,} × {part['seen']:.2f}",
            f"{part['tokens']:,}",
            f"{part['share']:.1%}",
            part["asked"],
        )
    console.print(table)


def show_account(console: Console, account: DatasetStats) -> None:
    """Print where every row went, as a table."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    share = account.labelled_tokens / account.tokens if account.tokens else 0.0
    spread = ", ".join(f"{name} {value:,}" for name, value in account.lengths.items())
    table.add_row("rows", f"{account.rows_read:,}", "read")
    table.add_row("  used", f"{account.rows_used:,}", "")
    table.add_row("  refused", f"{account.rows_refused:,}", "")
    for code, count in sorted(account.refused.items()):
        table.add_row(f"    {code}", f"{count:,}", "")
    if account.dropped:
        table.add_row("  dropped", f"{sum(account.dropped.values()):,}", "")
    for code, count in sorted(account.dropped.items()):
        table.add_row(f"    {code}", f"{count:,}", "")
    if account.rows_left_out:
        table.add_row("  left out", f"{account.rows_left_out:,}", "by weight, limit or share")
    table.add_row("samples", f"{account.samples:,}", "")
    table.add_row("tokens", f"{account.tokens:,}", f"a sample: {spread}" if spread else "")
    if account.prompt_tokens:
        shared = account.prompt_tokens / account.tokens
        pairs = ", each counted once for both answers" if "chosen" in account.answers else ""
        table.add_row("  prompts", f"{account.prompt_tokens:,}", f"{shared:.1%}{pairs}")
    table.add_row("  labelled", f"{account.labelled_tokens:,}", f"{share:.1%}")
    for kind, of_kind in account.answers.items():
        table.add_row(f"    {kind}", f"{of_kind['tokens']:,}", f"in {of_kind['answers']:,} answers")
    if found := account.personal_data:
        table.add_row("personal data", f"{sum(found.values()):,}", "found by the gate")
        for kind, count in sorted(found.items()):
            table.add_row(f"    {kind}", f"{count:,}", "")
    if overlaps := account.overlaps:
        total = sum(sum(counts.values()) for counts in overlaps.values())
        table.add_row("overlaps", f"{total:,}", "with other rows and held-out items")
        for name, counts in sorted(overlaps.items()):
            table.add_row(f"  {name}", "", "")
            for code, count in sorted(counts.items()):
                table.add_row(f"    {code}", f"{count:,}", "")
    if account.warnings:
        table.add_row("warnings", f"{sum(account.warnings.values()):,}", "rows stay in")
        for code, count in sorted(account.warnings.items()):
            table.add_row(f"    {code}", f"{count:,}", "")
    console.print(table)
