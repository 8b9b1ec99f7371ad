"""The lock on a run folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from axtune.checkpoint.run_lock import is_held, locked
from axtune.errors import AxtuneError


def test_the_second_is_told_and_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with locked(folder):
        assert is_held(folder)
        with pytest.raises(AxtuneError, match="Another run is writing"), locked(folder):
            raise AssertionError
        assert folder.is_dir()
        (folder / "manifest.json").write_text("{}")
    assert not is_held(folder)
    with locked(folder):  # free again
        assert (folder / "manifest.json").is_file()


def test_a_folder_into_which_nothing_came_goes_with_the_parents_made_for_it(
    tmp_path: Path,
) -> None:
    for place in (tmp_path / "deep" / "er" / "run", tmp_path / "there"):
        (tmp_path / "there").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="refused"), locked(place):
            raise ValueError("refused")
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            os.write(told, b"x")
            signal.pause()
        os._exit(1)
    os.read(ready, 1)
    with pytest.raises(AxtuneError, match="Another run"), locked(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(tmp_path):
        pass


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("")
    with pytest.raises(AxtuneError, match="it is a file"), locked(file):
        pass
    with pytest.raises(AxtuneError, match=r"rows\.jsonl is a file"), locked(file / "run"):
        pass


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(AxtuneError, match="you may not write into"), locked(tmp_path / "a" / "b"):
        pass
    monkeypatch.undo()
    with pytest.raises(AxtuneError, match="File name too long"), locked(tmp_path / ("n" * 300)):
        pass


def test_a_worker_that_outlives_its_run_holds_no_lock(tmp_path: Path) -> None:
    ready, told = os.pipe()
    with locked(tmp_path):
        worker = os.fork()
        if worker == 0:
            os.write(told, b"x")
            signal.pause()
            os._exit(0)
        os.read(ready, 1)
    try:
        with locked(tmp_path):  # the run has ended, its worker has not
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
