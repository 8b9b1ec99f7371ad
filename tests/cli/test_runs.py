"""`axtune runs`, `clean` and `report`: what they found, removed or wrote is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import axtune_in_process
from support.reported import run_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of this test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_clean_says_what_it_removed(temporary: Path) -> None:
    assert axtune_in_process("clean").out == "Nothing was left behind.\n"
    left = temporary / "axtune-scratch-0123456789abcdef"
    left.mkdir()
    (left / "rows").write_text("1234", encoding="utf-8")
    assert axtune_in_process("clean").out == f"{left}: removed, 4 bytes\n"
    assert not left.exists()


def test_checkpoints_are_those_of_a_run() -> None:
    done = axtune_in_process("clean", "--checkpoints")
    assert (done.status, done.out) == (1, "")
    assert "axtune clean RUN --checkpoints" in done.err


def test_report_says_where_the_page_is(tmp_path: Path) -> None:
    run, out = run_folder(tmp_path / "run"), tmp_path / "page.html"
    assert axtune_in_process("report", str(run)).out == f"{run / 'report.html'}\n"
    assert axtune_in_process("report", str(run), "--out", str(out)).out == f"{out}\n"
    assert "<!doctype html>" in out.read_text(encoding="utf-8")
    assert axtune_in_process("report", str(tmp_path / "none")).status == 1


def test_runs_are_listed_for_people_and_for_machines(tmp_path: Path) -> None:
    run_folder(tmp_path, name="first")
    assert "first" in axtune_in_process("runs", str(tmp_path)).out
    (listed,) = json.loads(axtune_in_process("runs", str(tmp_path), "--json").out)
    assert (listed["path"], listed["status"]) == ("first", "finished")
    none = axtune_in_process("runs", str(tmp_path / "none"))
    assert (none.status, none.out) == (1, "")
    assert "There is no folder" in none.err


def test_clean_says_what_it_would_give_back(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    for folder in ("adapter", "checkpoints"):
        (run / folder).mkdir()
    (run / "checkpoints/weights").write_bytes(b"0" * 2_000_000)
    hint = "Its checkpoints take 2 MB; --checkpoints removes them."
    assert hint in axtune_in_process("clean", str(run)).out
    assert hint not in axtune_in_process("clean", str(run), "--checkpoints").out
    assert not (run / "checkpoints").exists()
