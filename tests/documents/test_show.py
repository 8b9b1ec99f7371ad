from __future__ import annotations

from pathlib import Path

import pytest

from axtune.documents.importing import Loss, Report
from axtune.documents.show import ImportProgress, show_report


def test_the_report_names_what_was_lost_by_reason(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(documents=2, present=1, pages=3, characters=4000)
    report.formats.update({"pdf": 1, "hwp": 1})
    report.refused = [Loss(f"{i}.pdf", "scanned-pdf", "Pictures.") for i in range(22)]
    report.refused.append(Loss("a.hwp", "encrypted", "Protected."))
    report.lost = [("b.pdf", "scanned-pages", 2)]
    show_report(report, Path("corpus.jsonl"))
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "corpus.jsonl: 2 documents written, 3 pages, 4,000 characters (hwp 1, pdf 1)"
    assert out[1:4] == [
        "already there: 1 document",
        "lost in documents that were read: scanned-pages: 2",
        "  b.pdf: 2",
    ]
    assert out[4:6] == ["refused: scanned-pdf: 22", "  0.pdf: Pictures."]
    assert "  … and 2 more; --json names them all" in out
    assert out[-2:] == ["refused: encrypted: 1", "  a.hwp: Protected."]


def test_progress_is_silent_in_a_log_file_for_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    with ImportProgress() as progress:
        progress(1, 2, Report(documents=1))
        progress._last -= 60
        progress(2, 2, Report(documents=2))
    assert capsys.readouterr().err == "100%: 2 documents, 0 refused\n"
