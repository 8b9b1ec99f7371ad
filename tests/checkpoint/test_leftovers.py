"""What is left on the disk goes when its process is dead, and never before."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from axtune.checkpoint.leftovers import clean_run, clear_scratch, filling, private_files, scratch
from axtune.errors import AxtuneError


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of this test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def make_run(folder: Path, status: str = "finished") -> Path:
    (folder / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (folder / "checkpoints" / "checkpoint-1" / "weights").write_text("123")
    (folder / "adapter").mkdir()
    (folder / "recipe.yaml").write_text("")
    (folder / "manifest.json").write_text(json.dumps({"status": status}))
    return folder


def test_a_killed_process_leaves_a_folder_that_is_cleared(temporary: Path) -> None:
    code = (
        "import tempfile, time, sys\nfrom axtune.checkpoint.leftovers import scratch\n"
        f"tempfile.tempdir = {str(temporary)!r}\n"
        "with scratch() as folder:\n"
        "    (folder / 'rows').write_text('secret')\n"
        "    print(folder, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        folder = Path(other.stdout.readline().strip())
        assert clear_scratch() == []  # it lives
        assert (folder / "rows").read_text() == "secret"
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert folder.is_dir()
        assert [(gone.path, gone.size) for gone in clear_scratch()] == [(folder, 6)]
    assert list(temporary.iterdir()) == []


def test_a_living_folder_stays_and_is_private(temporary: Path) -> None:
    with scratch() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert clear_scratch() == []
        assert folder.is_dir()
    assert list(temporary.iterdir()) == []


def test_what_is_not_ours_stays(temporary: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("kept")
    (temporary / "axtune-scratch-notes").mkdir()
    (temporary / "axtune-scratch-0123456789abcdef").symlink_to(elsewhere)
    (temporary / "axtune-scratch-0123456789abcdee").write_text("a file")
    (temporary / "axtune-0123456789abcdef").mkdir()  # of a version that held no lock
    assert clear_scratch() == []
    assert (elsewhere / "file").read_text() == "kept"
    assert len(list(temporary.iterdir())) == 4


def test_a_temporary_folder_that_cannot_be_written_is_said(temporary: Path) -> None:
    temporary.rmdir()
    with pytest.raises(AxtuneError, match="TMPDIR"), scratch():
        pass


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), OSError("9 requested, 0 written")]
)
def test_a_temporary_folder_that_fills_up_is_named(temporary: Path, error: OSError) -> None:
    said = rf"(?s)temporary folder {temporary} has no room.*TMPDIR"
    with pytest.raises(AxtuneError, match=said), scratch() as folder, filling(folder):
        raise error


def test_other_errors_of_a_scratch_folder_stay_what_they_are(temporary: Path) -> None:
    with pytest.raises(FileNotFoundError), scratch() as folder, filling(folder):
        (folder / "rows").read_text()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_private_files_are_the_owners_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with private_files():
            (tmp_path / "folder").mkdir()
            (tmp_path / "folder" / "file").write_text("")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "folder" / "file").stat().st_mode) == 0o600


def test_what_a_run_never_finished_goes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "실험 1")
    left = [run / ".adapter.tmp", run / ".merged.partial", tmp_path / f".{run.name}.partial"]
    for folder in left:
        folder.mkdir()
        (folder / "half").write_text("half")
    (run / ".manifest.json.1234.tmp").write_text("{")
    (run / ".gitignore").write_text("*")
    (tmp_path / ".other.partial").mkdir()
    removed = clean_run(run, checkpoints=False)
    assert {gone.path for gone in removed} == {*left, run / ".manifest.json.1234.tmp"}
    assert (run / ".gitignore").is_file()
    assert (run / "checkpoints" / "checkpoint-1").is_dir()
    assert (tmp_path / ".other.partial").is_dir()
    assert clean_run(run, checkpoints=False) == []


def test_checkpoints_go_only_when_asked_and_finished(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert [gone.size for gone in clean_run(run, checkpoints=True)] == [3]
    assert not (run / "checkpoints").exists()
    assert (run / "adapter").is_dir()
    running = make_run(tmp_path / "running", "running")
    with pytest.raises(AxtuneError, match="has not finished"):
        clean_run(running, checkpoints=True)
    assert (running / "checkpoints" / "checkpoint-1").is_dir()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """As another command has a folder that it writes."""
    holder = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(holder)


@pytest.mark.parametrize("status", ["finished", "running"])
def test_a_run_that_is_held_is_left_alone(tmp_path: Path, status: str) -> None:
    run = make_run(tmp_path / "run", status)
    (run / ".adapter.tmp").mkdir()
    with held(run), pytest.raises(AxtuneError, match="Another run is writing"):
        clean_run(run, checkpoints=True)
    assert (run / ".adapter.tmp").is_dir()


def test_a_part_that_another_command_is_writing_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    part = run / ".merged.partial"
    part.mkdir()
    with held(part):
        assert clean_run(run, checkpoints=False) == []
        assert part.is_dir()


def test_checkpoints_that_cannot_be_removed_are_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    cannot = pytest.raises(AxtuneError, match="checkpoints cannot be removed")
    with held(run / "checkpoints"), cannot:
        clean_run(run, checkpoints=True)


def test_only_a_run_is_cleaned(tmp_path: Path) -> None:
    with pytest.raises(AxtuneError, match="not a run folder"):
        clean_run(tmp_path, checkpoints=True)
    with pytest.raises(AxtuneError, match="does not exist"):
        clean_run(tmp_path / "none", checkpoints=True)
    (tmp_path / "file").touch()
    with pytest.raises(AxtuneError, match="file is not a run folder"):
        clean_run(tmp_path / "file", checkpoints=True)


def make_stages(folder: Path, *statuses: str) -> Path:
    names = ("cpt", "sft")[: len(statuses)]
    for name, status in zip(names, statuses, strict=True):
        make_run(folder / name, status)
    (folder / "stages.json").write_text(
        json.dumps({"begun": dict.fromkeys(names, "k"), "done": {}})
    )
    return folder


def test_stages_are_cleaned_each(tmp_path: Path) -> None:
    folder = make_stages(tmp_path / "실험", "finished", "running")
    make_run(folder / "cpt-1")  # what the stage was before its recipe changed
    (folder / "evaluation").mkdir()  # whatever else a user puts there
    left = [
        folder / ".stages.json.77.tmp",
        folder / "cpt" / ".adapter.tmp",
        folder / "sft" / ".vllm.partial",
        folder / "cpt-1" / ".merged.old",
    ]
    for path in left:
        path.write_text("half")
    removed = clean_run(folder, checkpoints=False)
    assert {gone.path for gone in removed} == set(left)
    assert (folder / "stages.json").is_file()
    for name in ("cpt", "sft", "cpt-1"):
        assert (folder / name / "checkpoints" / "checkpoint-1").is_dir()
    assert clean_run(folder, checkpoints=False) == []
    with pytest.raises(AxtuneError, match="sft has not finished"):
        clean_run(folder, checkpoints=True)
    assert (folder / "cpt" / "checkpoints").is_dir()  # nothing at all was removed


def test_checkpoints_of_finished_stages_go_and_results_stay(tmp_path: Path) -> None:
    folder = make_stages(tmp_path / "domain", "finished", "finished")
    removed = clean_run(folder, checkpoints=True)
    assert [gone.path for gone in removed] == [folder / n / "checkpoints" for n in ("cpt", "sft")]
    assert (folder / "sft" / "adapter").is_dir()


@pytest.mark.parametrize("part", ["", "sft"])
def test_stages_that_are_held_are_left_alone(tmp_path: Path, part: str) -> None:
    folder = make_stages(tmp_path / "domain", "finished", "finished")
    (folder / "cpt" / ".adapter.tmp").mkdir()
    with held(folder / part), pytest.raises(AxtuneError, match="Another run is writing"):
        clean_run(folder, checkpoints=True)
    assert (folder / "cpt" / ".adapter.tmp").is_dir()
    assert (folder / "cpt" / "checkpoints").is_dir()


@pytest.mark.parametrize("text", ["{", "[]", '{"begun": ["cpt"]}', '{"begun": {}, "done": {}}'])
def test_a_file_of_the_same_name_makes_no_folder_of_stages(tmp_path: Path, text: str) -> None:
    make_run(tmp_path / "cpt")
    (tmp_path / "stages.json").write_text(text)
    (tmp_path / ".mine.tmp").write_text("kept")
    with pytest.raises(AxtuneError, match="not a run folder"):
        clean_run(tmp_path, checkpoints=False)
    assert (tmp_path / ".mine.tmp").is_file()
