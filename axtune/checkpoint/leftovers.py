"""What runs keep on the disk while they work: where it is, who may read it, and how it goes away.

Prepared rows are in a scratch folder of the temporary folder, locked for as long as its process
lives. The kernel frees the lock however the process ends, so a folder that can be locked belongs to
nobody any more, and the next run or ``axtune clean`` removes it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from axtune.checkpoint.atomic import FULL, hidden, reason_of
from axtune.checkpoint.run_dir import read_manifest, require_run, stages_of
from axtune.config.paths import is_run
from axtune.errors import AxtuneError

# Older versions named theirs axtune-… and held no lock: whether those still work cannot be told.
_SCRATCH = re.compile(r"axtune-scratch-[0-9a-f]{16}")
# As axtune.checkpoint.atomic names what is not whole yet, or has just been replaced.
_PART = re.compile(r"\..+\.(partial|tmp|old)|\.saving")


@dataclass(frozen=True)
class Removed:
    """Something that was removed.

    Attributes:
        path: Where it was.
        size: Its bytes.
    """

    path: Path
    size: int


@contextmanager
def private_files() -> Iterator[int]:
    """Let everything that is created here be readable by its owner only.

    For what holds or comes from rows: run folders, caches, scratch folders. Checkpoints that are
    merged or exported follow the user's umask, for a server of another account may read them.

    Yields:
        That umask.
    """
    with umask(0o077) as before:
        yield before


@contextmanager
def umask(mask: int) -> Iterator[int]:
    """Create files with another umask.

    Yields:
        The one before.
    """
    before = os.umask(mask)
    try:
        yield before
    finally:
        os.umask(before)


def scratch_path(token: str) -> Path:
    """Where the scratch folder of a token is.

    Raises:
        AxtuneError: When no temporary folder can be written.
    """
    try:
        return Path(tempfile.gettempdir()) / f"axtune-scratch-{token}"
    except FileNotFoundError:
        raise AxtuneError(
            "No temporary folder can be written.",
            "Free some space in /tmp, or set TMPDIR to a folder that you may write to.",
        ) from None


@contextmanager
def scratch(token: str | None = None) -> Iterator[Path]:
    """A folder in the temporary folder, of this user and for the life of this process.

    Args:
        token: 16 hexadecimal digits that name it; random ones, unless told.

    Yields:
        The empty folder.

    Raises:
        AxtuneError: When it cannot be created.
    """
    folder = scratch_path(token or secrets.token_hex(8))
    try:
        lock = _create_locked(folder)
    except OSError as error:
        raise AxtuneError(
            f"The temporary folder {folder.parent} cannot be written: {error.strerror}.",
            "Set TMPDIR to a folder that you may write to.",
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def filling(folder: Path, what: str = "the prepared rows") -> Iterator[None]:
    """Say of a scratch folder that fills up where it is: it is not the folder that a user named.

    Args:
        folder: Of `scratch`.
        what: Is written into it.

    Raises:
        AxtuneError: When its disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*FULL, None):  # numpy has no number for what it could not write
            raise
        raise AxtuneError(
            f"The temporary folder {folder.parent} has no room for {what}: {reason_of(error)}.",
            "Free some space there, or set TMPDIR to a folder on another disk.",
        ) from error


def _create_locked(folder: Path) -> int:
    while True:
        folder.mkdir(mode=0o700)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return lock
        except OSError:  # a file system without locks: nobody can take it for a dead one's either
            return lock
        os.close(lock)  # somebody who clears away took it before it was locked


def clear_scratch() -> list[Removed]:
    """Remove the scratch folders of this user's processes that have ended."""
    folders = [
        folder
        for folder in scratch_path("").parent.glob("axtune-scratch-*")
        if _SCRATCH.fullmatch(folder.name) and _is_own_folder(folder)
    ]
    return [gone for folder in sorted(folders) if (gone := _remove_unused(folder))]


def clean_run(run: Path, *, checkpoints: bool) -> list[Removed]:
    """Remove what was begun in and beside a run folder and never became whole.

    Args:
        run: The run folder, or one with the runs of stages, which are cleaned each.
        checkpoints: Remove its checkpoints, too; what it trained stays in ``adapter/``.

    Raises:
        AxtuneError: When it is no run folder, a run is writing into it, or its checkpoints are all
            that it has; of stages nothing is removed where that is so of one.
    """
    run = Path(os.path.abspath(run))  # noqa: PTH100 - "." has no name, and links stay links
    if is_run(run) or not stages_of(run):
        with _held(require_run(run)):
            _require_spare(run, checkpoints=checkpoints)
            return _clean(run, checkpoints=checkpoints)
    runs = sorted(path for path in run.iterdir() if is_run(path))  # those that were replaced, too
    with ExitStack() as held:
        for folder in (run, *runs):
            held.enter_context(_held(folder))
        for one in runs:
            _require_spare(one, checkpoints=checkpoints)
        removed = _clean(run, checkpoints=False)
        return removed + [gone for one in runs for gone in _clean(one, checkpoints=checkpoints)]


def spare_bytes(run: Path) -> int:
    """What `clean_run` would give back of the checkpoints in a run folder, or of stages."""
    runs = [run] if is_run(run) else stages_of(run)
    return sum(size_of(one / "checkpoints") for one in runs) if all(map(_is_done, runs)) else 0


def _is_done(run: Path) -> bool:
    """Whether a run needs its checkpoints no more: it has finished, and its adapter is there."""
    return read_manifest(run).get("status") == "finished" and (run / "adapter").is_dir()


def _require_spare(run: Path, *, checkpoints: bool) -> None:
    """Refuse a run that has nothing but the checkpoints that are to go."""
    if checkpoints and not _is_done(run):
        raise AxtuneError(
            f"The run in {run} has not finished: its checkpoints are all that it has.",
            "Finish it with resume=true; or remove the folder, if you want nothing of it.",
        )


@contextmanager
def _held(run: Path) -> Iterator[None]:
    """Hold a folder as a run holds it that is training."""
    lock = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _lock(lock):
            raise AxtuneError(f"Another run is writing into {run}.", "Wait for it to end.")
        yield
    finally:
        os.close(lock)


def _clean(run: Path, *, checkpoints: bool) -> list[Removed]:
    """Remove what never became whole in and beside a folder, and its checkpoints if told."""
    beside = [hidden(run, end) for end in ("partial", "tmp", "old")]
    parts = [*beside, *(path for path in run.iterdir() if _PART.fullmatch(path.name))]
    removed = [gone for path in sorted(parts) if (gone := _remove_unused(path))]
    place = run / "checkpoints"
    if checkpoints and (gone := _remove_unused(place)):
        removed.append(gone)
    elif checkpoints and place.exists():
        raise AxtuneError(
            f"{place} cannot be removed.", "See whose it is, and whether a program uses it."
        )
    return removed


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and path.lstat().st_uid == os.getuid()


def _remove_unused(path: Path) -> Removed | None:
    """Remove a file, or a folder that no process holds."""
    try:
        size = size_of(path)
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return Removed(path, size)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not _lock(lock):
                return None
            shutil.rmtree(path)
            return Removed(path, size)
        finally:
            os.close(lock)
    except OSError:  # it has gone, or is not ours to remove
        return None


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def size_of(path: Path) -> int:
    """Bytes of a file or of all files below a folder, of which some may go meanwhile."""
    total = 0
    for file in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            found = file.lstat()
            total += 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return total
