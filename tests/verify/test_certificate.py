"""The certificate as people and machines read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from support.adapters import sharded_checkpoint

from axtune.checkpoint.provenance import base_digests
from axtune.errors import AxtuneError
from axtune.verify.certificate import Certificate, Check, show

GOOD = Check("weights", "numbers", "pass", "all finite")
WARN = Check("tokenizer", "AutoTokenizer", "warn", "gives 16 tokens instead of 8", "Load it so.")
BAD = Check("weights", "dtype", "fail", "50 bfloat16, 1 float32", "Export it anew.", {"odd": 1.0})
SKIP = Check("logits", "base", "skip", "no base")


@pytest.mark.parametrize(
    ("checks", "passed"), [([GOOD], True), ([GOOD, WARN, SKIP], True), ([WARN, BAD], False)]
)
def test_only_a_failure_fails(checks: list[Check], passed: bool, tmp_path: Path) -> None:
    assert Certificate(tmp_path, tuple(checks)).passed is passed


def test_the_file_says_everything_and_no_path(tmp_path: Path) -> None:
    folder = sharded_checkpoint(tmp_path / "model").folder
    before = base_digests(folder)
    written = Certificate(folder, (GOOD, BAD)).write().read_text(encoding="utf-8")
    read = json.loads(written)
    assert read["passed"] is False
    assert read["checks"][1]["figures"] == {"odd": 1.0}
    assert read["digests"] == before == base_digests(folder)  # it does not change what it is of
    assert read["versions"]["axtune"]
    assert str(tmp_path) not in written


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "certificate.json").mkdir()
    with pytest.raises(AxtuneError, match=r"certificate\.json cannot be written"):
        Certificate(tmp_path, (GOOD,)).write()


def test_the_table_shows_all_and_what_to_do() -> None:
    console = Console(record=True, width=100, force_terminal=False)
    show(console, [GOOD, WARN, BAD, SKIP])
    text = console.export_text()
    for check in (GOOD, WARN, BAD, SKIP):
        assert check.found in text
        assert check.name in text
    assert "weights, dtype: Export it anew." in text
    assert "1 failed, 1 to judge for yourself" in text
    show(console, [GOOD])
    assert console.export_text().strip().endswith("passed")
