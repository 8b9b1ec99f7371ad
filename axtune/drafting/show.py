"""How drafting goes and what came of it, for people."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from axtune.drafting.draft import Report
from axtune.progress_bar import ProgressBar
from axtune.units import plural

_MOST_NAMES = 20  # of one reason; --json has all
_FAILED = {
    "too-long": "does not fit in the model's context: a smaller --passage-length, or a longer "
    "context of the server",
    "cut-off": "the reply was longer than a reply may be",
    "unreadable": "the reply holds no JSON",
    "nothing-to-ask": "the server drafted nothing",
    "server-refused": "the server's log says why",
}
_REFUSED = {
    "malformed": "a pair without a question and an answer",
    "surplus": "more pairs than were asked for",
    "empty": "no question or no answer",
    "personal-data": "found in the question or the answer",
    "masked": "about what is masked in the document",
    "control-token": "a control token inside text",
    "not-korean": "a question without Hangul",
    "repeats-question": "the answer is the question",
    "needs-context": "points at a text that its reader does not see",
    "not-in-passage": "a number that the passage does not have",
    "unanswerable": "by the second call, with the passage alone",
    "answers-differ": "the second call answers something else",
    "check-unreadable": "the second call's reply could not be read",
    "check-refused": "the server refused the second call",
    "near-duplicate": "asks the same as an earlier one",
}


class DraftProgress(ProgressBar):
    """How far drafting is."""

    def __init__(self) -> None:
        super().__init__("drafting")

    def __call__(self, done: int, total: int, report: Report) -> None:
        """Show how far it is: passages, and pairs kept of those drafted."""
        said = f"{done:,} of {plural(total, 'passage')}, {report.kept:,} pairs kept"
        self.show(done, total, f"{said} of {report.drafted:,}")


def show_report(report: Report, out: Path) -> None:
    """Print where every passage and every pair went."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    before = f", {report.present:,} of them before" if report.present else ""
    console.print(
        f"{plural(report.documents, 'document')}, "
        f"{plural(report.passages, 'passage')} asked of{before}"
    )
    for reason, count in report.left_out.most_common():
        console.print(f"  not asked of: {reason}: {count:,}")
    for kind, count in sorted(report.masked.items()):
        console.print(f"  masked: {kind}: {count:,}")
    for reason, places in sorted(report.failed.items(), key=lambda one: -len(one[1])):
        console.print(f"  without pairs: {reason}: {len(places):,} ({_FAILED[reason]})")
        for place in places[:_MOST_NAMES]:
            console.print(f"    {place}")
        if len(places) > _MOST_NAMES:
            console.print(f"    … and {len(places) - _MOST_NAMES:,} more; --json names them all")
    console.print(f"{plural(report.drafted, 'pair')} drafted")
    for reason, count in report.refused.most_common():
        console.print(f"  refused: {reason}: {count:,} ({_REFUSED[reason]})")
    if report.kept:
        console.print(
            f"{out}: {plural(report.kept, 'pair')} kept. They are drafts: read each against its "
            "meta.passage, and remove meta.draft from those that are right."
        )
    else:
        console.print("No pair was kept, and nothing was written.")
