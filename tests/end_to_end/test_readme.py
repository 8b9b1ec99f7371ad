"""What README.md and README.ko.md list is what the commands and the schema say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.rows import ROOT

PAGES = ("README.md", "README.ko.md")


def cog_check(folder: Path) -> subprocess.CompletedProcess[str]:
    """Whether the pages of a folder hold the lists that would be written today."""
    return subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", "-I", str(ROOT / "scripts"), *PAGES],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_the_lists_are_up_to_date() -> None:
    done = cog_check(ROOT)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\ncog -r -I scripts {' '.join(PAGES)}"


@pytest.mark.parametrize("shown", ["--quant-type <nf4|fp4>", "| `data.max_length` | whole number"])
def test_a_list_that_is_out_of_date_is_found(shown: str, tmp_path: Path) -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert text.count(shown) == 1
        (tmp_path / page).write_text(text.replace(shown, "old"), encoding="utf-8")
    done = cog_check(tmp_path)
    assert done.returncode != 0
    assert "README.md" in done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/])(?:recipes|scripts|data_templates|tests)/[\w./]*\w", text)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
