from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from axtune.drafting import draft, passages, replies, show, sieve
from axtune.drafting.draft import Report
from axtune.drafting.show import DraftProgress, show_report


def test_the_account_says_where_all_went(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(3, 30, 4, Counter({"too-short": 2}), drafted=9, kept=6)
    report.failed = {"too-long": [f"{n}.pdf [0:9]" for n in range(22)]}
    report.refused = Counter({"answers-differ": 2, "masked": 1})
    report.masked = Counter({"telephone": 5})
    show_report(report, Path("out.jsonl"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "3 documents, 30 passages asked of, 4 of them before",
        "  not asked of: too-short: 2",
        "  masked: telephone: 5",
    ]
    assert lines[3].startswith("  without pairs: too-long: 22 (")
    assert lines[4] == "    0.pdf [0:9]"
    assert "    … and 2 more; --json names them all" in lines
    assert "9 pairs drafted" in lines
    assert lines[-1].startswith("out.jsonl: 6 pairs kept. They are drafts")
    show_report(Report(), Path("out.jsonl"))
    assert "nothing was written" in capsys.readouterr().out


def test_every_reason_is_explained() -> None:
    code = "".join(
        Path(str(module.__file__)).read_text("utf-8") for module in (draft, replies, sieve)
    )
    for reason in (*show._FAILED, *show._REFUSED):
        assert f'"{reason}"' in code
    failed = set(re.findall(r'failed ?= ?"([a-z-]+)"', code))
    assert failed == set(show._FAILED)
    assert '"too-short"' in Path(str(passages.__file__)).read_text("utf-8")


def test_progress_says_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with DraftProgress() as progress:
        progress._last -= 60
        progress(1, 4, Report(drafted=2, kept=1))
    assert capsys.readouterr().err == "25%: 1 of 4 passages, 1 pairs kept of 2\n"
