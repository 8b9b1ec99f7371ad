"""Showing people what the data is and where it went: rows as the model sees them, and the account.

Learned tokens are marked by colour on a terminal and by ⟦…⟧ everywhere, so that a preview in a log
file says the same.
"""

from __future__ import annotations

import re
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from axtune.audit import Account, Checked
from axtune.render import IGNORED, Sample
from axtune.tokenizer import AxTokenizer

_CONTROL = re.compile(r"<\|[^|>]*\|>|</?(?:think|tool_call|tool_output)>")


def show_row(console: Console, tokenizer: AxTokenizer, checked: Checked) -> None:
    """Print a row's samples as the model sees them, or why it is refused.

    Args:
        console: Where to.
        tokenizer: The one that made the samples.
        checked: The row.
    """
    place = f"{checked.file}:{checked.line}"
    for fault in checked.faults:
        style = "yellow" if fault.severity == "warning" else "red"
        console.print(Text(str(fault), style=style))
    for number, sample in enumerate(checked.samples, 1):
        learned = len(sample.labels) - sample.labels.count(IGNORED)
        which = f" sample {number} of {len(checked.samples)}" if len(checked.samples) > 1 else ""
        title = f"{place}{which} · {len(sample.input_ids)} tokens, {learned} learned"
        console.rule(Text(title, style="bold"), align="left")
        console.print(sample_text(tokenizer, sample), soft_wrap=True)


def sample_text(tokenizer: AxTokenizer, sample: Sample) -> Text:
    """A sample's text; learned stretches stand in ⟦…⟧ and in green, control tokens are dim.

    Args:
        tokenizer: The one that made the sample.
        sample: Its ids and labels.
    """
    text = Text()
    pairs = zip(sample.input_ids, sample.labels, strict=True)
    for learned, stretch in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        # A terminal would obey an escape sequence that stands in the data.
        said = tokenizer.decode([token for token, _ in stretch]).replace("\x1b", "␛")
        if learned:
            text.append("⟦", style="bold green")
            _append(text, said, "green")
            text.append("⟧", style="bold green")
        else:
            _append(text, said, "")
    return text


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


def show_account(console: Console, account: Account) -> None:
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
    if account.rows_left_out:
        table.add_row("  left out", f"{account.rows_left_out:,}", "by weight")
    table.add_row("samples", f"{account.samples:,}", "")
    table.add_row("tokens", f"{account.tokens:,}", f"a sample: {spread}" if spread else "")
    table.add_row("  learned", f"{account.labelled_tokens:,}", f"{share:.1%}")
    if account.warnings:
        table.add_row("warnings", f"{sum(account.warnings.values()):,}", "rows stay in")
        for code, count in sorted(account.warnings.items()):
            table.add_row(f"    {code}", f"{count:,}", "")
    console.print(table)
