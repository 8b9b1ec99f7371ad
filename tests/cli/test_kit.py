"""`axtune kit` says what it wrote, and how it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import kits

from axtune.cli import main


def test_it_says_the_digest_of_the_whole_and_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kits.index(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["kit", "--out", "my kit", "--python", kits.PYTHON, "--cuda", "none"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "SHA-256 of MANIFEST.sha256: " in said
    assert "bash 'my kit'/install.sh" in said
    assert (tmp_path / "my kit" / "install.sh").is_file()


def test_a_python_without_a_lock_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["kit", "--out", str(tmp_path / "kit"), "--python", "3.9"])
    assert end.value.code == 1
    assert "There is no lock for Python 3.9." in capsys.readouterr().err
