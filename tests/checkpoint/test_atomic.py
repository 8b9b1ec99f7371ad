"""Files and folders that are whole under their names or absent, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.killed import states_when_killed

from axtune.checkpoint.atomic import (
    refuse_existing,
    replaced,
    staged,
    write_text,
    written_whole,
)
from axtune.errors import AxtuneError, UnreachableError


def fill_half(place: AbstractContextManager[Path], error: Exception | None = None) -> None:
    """Put a file into a folder, and break."""
    with place as folder:
        (folder / "file").write_text("half")
        raise error or ValueError("broken")


def test_a_staged_folder_appears_when_it_is_filled(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with staged(target, 10) as folder:
        assert folder.parent == target.parent
        (folder / "file").write_text("whole")
        assert not target.exists()
    assert (target / "file").read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_an_error_leaves_no_staged_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"):
        fill_half(staged(tmp_path / "target", 0))
    assert list(tmp_path.iterdir()) == []


def test_a_staged_folder_holds_nothing_of_a_killed_run(tmp_path: Path) -> None:
    left = tmp_path / ".target.partial"
    (left / "folder").mkdir(parents=True)
    (left / "file").symlink_to("nowhere")
    with staged(tmp_path / "target", 0) as folder:
        assert folder == left
        assert list(folder.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    for name in ("dangling", "folder"):
        with pytest.raises(AxtuneError, match="exists already"):
            refuse_existing(tmp_path / name)
        with pytest.raises(AxtuneError, match="exists already"), staged(tmp_path / name, 0):
            pass
    late = tmp_path / "late"
    with pytest.raises(AxtuneError, match="exists already"), staged(late, 0):
        late.mkdir()  # by somebody else, while this one was busy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "folder", "late"]


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from axtune.checkpoint.atomic import staged\n"
        "with staged(Path(sys.argv[1]), 0): pass"
    )
    target = tmp_path / "target"
    with staged(target, 0):
        other = subprocess.run(
            [sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=False
        )
    assert f"Another process is writing {target}." in other.stderr
    assert target.is_dir()


def test_a_place_that_cannot_hold_the_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AxtuneError, match="cannot be created"), staged(tmp_path / "file/out", 0):
        pass
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 999))
    too_small = r"needs [\d,]+ bytes and its disk has 999 free"
    with pytest.raises(AxtuneError, match=too_small), staged(tmp_path / "target", 0):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_another_user_left_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".target.partial/inner").mkdir(parents=True)

    def not_ours(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as changed:
        changed.setattr(Path, "iterdir", not_ours)
        with pytest.raises(AxtuneError, match="cannot be removed"), staged(tmp_path / "target", 0):
            pass


def test_a_disk_that_fills_up_is_named(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(AxtuneError, match="filled up; nothing was left"):
        fill_half(staged(tmp_path / "target", 0), full)
    assert list(tmp_path.iterdir()) == []


def test_killed_before_any_write_a_staged_folder_is_absent_or_whole(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    with staged(whole, 0) as folder:
        for name in ("one", "two"):
            (folder / name).write_text(name)
    states = states_when_killed(
        "from axtune.checkpoint.atomic import staged",
        "with staged(out, 0) as folder: [(folder / n).write_text(n) for n in ('one', 'two')]",
        tmp_path / "out",
        whole,
        loaded=False,
    )
    # Only the very last flush comes after the folder has its name.
    assert len(states) > 5
    assert states == ["absent"] * (len(states) - 1) + ["whole"]


def test_a_folder_is_replaced_by_one_that_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for text in ("first", "second"):
        with replaced(target) as folder:
            (folder / text).write_text(text)
        assert [path.name for path in target.iterdir()] == [text]
    with pytest.raises(ValueError, match="broken"):
        fill_half(replaced(target))
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_replaced_folder_holds_nothing_of_a_killed_run(tmp_path: Path) -> None:
    for end in ("tmp", "old"):  # killed between the two renames: the target is absent
        (tmp_path / f".target.{end}").mkdir()
        (tmp_path / f".target.{end}" / "left").write_text("")
    with replaced(tmp_path / "target") as folder:
        assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_file_is_replaced_by_one_that_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_text(file, "먼저")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "half \ud800")
    assert file.read_text(encoding="utf-8") == "먼저"
    write_text(file, "다음")
    assert file.read_text(encoding="utf-8") == "다음"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_processes_write_one_file_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with written_whole(tmp_path / "file") as ours:
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with written_whole(tmp_path / "file") as theirs:
            assert ours != theirs
            theirs.write_text("theirs")
        ours.write_text("ours")
    assert (tmp_path / "file").read_text() == "ours"


def test_a_file_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "nowhere" / "file", "text")


@pytest.mark.parametrize("name", ["가" * 85, "x" * 255, "한 칸 '따옴표\""])
def test_the_longest_names_are_written_too(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "text")
    assert (tmp_path / name).read_text() == "text"
    (tmp_path / name).unlink()
    with replaced(tmp_path / name) as folder:
        (folder / "file").write_text("")
    (tmp_path / name / "file").unlink()
    (tmp_path / name).rmdir()
    with staged(tmp_path / name, 0):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_can_hold_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in ("file/out", "file/deep/out"):
        with pytest.raises(AxtuneError, match=r"cannot be created: .* is a file, not a folder"):
            refuse_existing(tmp_path / place)
    with pytest.raises(AxtuneError, match="cannot be created: File name too long"):
        refuse_existing(tmp_path / ("a" * 300))
    refuse_existing(tmp_path / "new" / "out")


def test_a_target_that_is_a_broken_link_is_told_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "here").symlink_to(".")
    with pytest.raises(AxtuneError, match="exists already: it is a link to nowhere, which"):
        refuse_existing(tmp_path / "gone")
    with pytest.raises(AxtuneError, match=r"cannot be created: .*gone is a link to nowhere, which"):
        refuse_existing(tmp_path / "gone/out")
    with pytest.raises(AxtuneError, match=r"here exists already"):
        refuse_existing(tmp_path / "here")


def test_what_was_done_before_something_did_not_answer_is_gone_on_with(tmp_path: Path) -> None:
    target = tmp_path / "target"
    gone = UnreachableError("The index does not answer.", "Try again.")
    with pytest.raises(UnreachableError):
        fill_half(staged(target, 0, "a kit"), gone)
    with staged(target, 0, "a kit") as folder:
        assert (folder / "file").read_text() == "half"
    assert [file.name for file in target.iterdir()] == ["file"]
