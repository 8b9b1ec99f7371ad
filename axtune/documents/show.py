"""How an import goes and what became of it, for people."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console

from axtune.documents.importing import Report
from axtune.progress_bar import ProgressBar
from axtune.units import plural

_MOST_NAMES = 20  # of one code; --json has all


class ImportProgress(ProgressBar):
    """How far an import is."""

    def __init__(self) -> None:
        super().__init__("reading")

    def __call__(self, done: int, total: int, report: Report) -> None:
        """Show how far it is: bytes, and documents with text and without."""
        said = f"{plural(report.documents, 'document')}, {len(report.refused):,} refused"
        self.show(done, total, said)


def show_report(report: Report, out: Path) -> None:
    """Print the counts, then what gave no text, by reason and name."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    pages = f", {plural(report.pages, 'page')}" if report.pages else ""
    formats = ", ".join(f"{kind} {count:,}" for kind, count in sorted(report.formats.items()))
    console.print(
        f"{out}: {plural(report.documents, 'document')} written{pages}, "
        f"{report.characters:,} characters{f' ({formats})' if formats else ''}"
    )
    if report.present:
        console.print(f"already there: {plural(report.present, 'document')}")
    for kind, count in Counter({k: 0 for _, k, _ in report.lost}).items():
        of = [(source, n) for source, k, n in report.lost if k == kind]
        count = sum(n for _, n in of)
        console.print(f"lost in documents that were read: {kind}: {count:,}")
        _names(console, [f"{source}: {n:,}" for source, n in of])
    by_code: dict[str, list[str]] = {}
    for loss in report.refused:
        by_code.setdefault(loss.code, []).append(f"{loss.source}: {loss.message}")
    for code, losses in sorted(by_code.items(), key=lambda pair: -len(pair[1])):
        console.print(f"refused: {code}: {len(losses):,}")
        _names(console, losses)


def _names(console: Console, names: list[str]) -> None:
    for name in names[:_MOST_NAMES]:
        console.print(f"  {name}")
    if len(names) > _MOST_NAMES:
        console.print(f"  … and {len(names) - _MOST_NAMES:,} more; --json names them all")
