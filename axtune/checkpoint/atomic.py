"""Folders and files that are whole under their names, or not there at all.

They are written under a hidden name next to their place and renamed; folders are flushed to the
disk first. After kill -9, a full disk or a power cut there is either the finished folder or only
the hidden one, which the next run with the same target clears away.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from axtune.config.paths import file_in_the_way, no_folder
from axtune.errors import AxtuneError, UnreachableError

# Beside the files whose sizes are known: small JSON files, and what the file system keeps for them.
_MARGIN_BYTES = 1 << 20
# In a folder that can be gone on with: what it is of.
RESUMES = ".resumes"
_NAME_BYTES = 255  # the longest name on Linux
# Of what cannot be written: the disk is full, the user's share of it is, or the file may not become
# so large (`ulimit -f`, or the file system's own limit).
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def hidden(target: Path, end: str) -> Path:
    """The name beside `target` under which something is written; a digest for the longest names."""
    name = f".{target.name}.{end}"
    if len(os.fsencode(name)) > _NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}.{end}"
    return target.with_name(name)


def refuse_existing(target: Path) -> None:
    """Refuse a target that is there already, before any work is done for it.

    Raises:
        AxtuneError: When something of that name exists, or a file is where its folder would be.
    """
    try:
        exists, file = target.exists() or target.is_symlink(), file_in_the_way(target)
    except OSError as error:  # too long a name, a folder that may not be looked into
        raise _cannot_be_created(target, reason_of(error)) from None
    if exists:
        what = "" if target.exists() else f": it is {no_folder(target)}"
        raise AxtuneError(
            f"{target} exists already{what}.", "Give another name, or remove it first."
        )
    if file:
        raise _cannot_be_created(target, f"{file} is {no_folder(file)}")


def _cannot_be_created(target: Path, reason: str) -> AxtuneError:
    return AxtuneError(
        f"{target} cannot be created: {reason}.", "Give a folder that you may write to."
    )


@contextmanager
def staged(target: Path, needed: int, resumes: str | None = None) -> Iterator[Path]:
    """Give an empty folder to fill; on leaving it becomes `target`, on an error it vanishes.

    Args:
        target: The folder to produce; its parents are created.
        needed: Bytes that will be written into it, small files aside.
        resumes: What is being made, in a word: when it is interrupted the folder stays, and is
            given again, as it was left, to whoever makes the same. None begins anew.

    Yields:
        The folder, on the file system of `target`.

    Raises:
        AxtuneError: When `target` exists or cannot be created, another process is producing it, the
            disk has too little room, or fills up on the way, or a file may not become so large.
    """
    refuse_existing(target)
    folder = hidden(target, "partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _cannot_be_created(target, reason_of(error)) from None
    try:
        claim(lock, folder, target)
        try:
            mark = folder / RESUMES
            if not (resumes and mark.is_file() and mark.read_text("utf-8") == resumes):
                try:
                    _clear(folder)  # what a killed run left
                except OSError as error:
                    raise _cannot_be_created(
                        target, f"what another run left in {folder} cannot be removed"
                    ) from error
            _require_space(folder, needed - _size(folder), target)
            if resumes:
                mark.write_text(resumes, "utf-8")
            yield folder
            mark.unlink(missing_ok=True)
            refuse_existing(target)
            flush(folder)
            folder.rename(target)
            fsync(target.parent)
        except BaseException as error:
            number = errno_of(error)
            full = number in FULL
            # What is wrong with the input stays wrong; what was interrupted goes on.
            broken_off = full or isinstance(error, UnreachableError)
            kept = resumes and (broken_off or not isinstance(error, Exception))
            if not kept:
                shutil.rmtree(folder, ignore_errors=True)
            elif isinstance(error, KeyboardInterrupt):
                error.add_note(f"What was done is kept in {folder}; the same command goes on.")
            if full:
                left = f"what was done is kept in {folder}" if kept else "nothing was left behind"
                again = "give the same command again" if kept else "give a folder on another disk"
                found, remedy = f"The disk of {target} filled up", "Free some space"
                if number == errno.EFBIG:
                    found = f"A file of {target} would be larger than files may be here"
                    remedy = "Raise the limit (ulimit -f says it)"
                raise AxtuneError(
                    f"{found}; {left}.", f"{remedy}, {'and' if kept else 'or'} {again}."
                ) from error
            raise
    finally:
        os.close(lock)


def claim(descriptor: int, path: Path, target: Path) -> None:
    """Hold what is written under a hidden name; the kernel frees it however this process ends.

    Args:
        descriptor: Of the hidden file or folder.
        path: Its name.
        target: What becomes of it.

    Raises:
        AxtuneError: When another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder before us may just have renamed it into place, or removed it.
        held = os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        held = False
    if not held:
        raise AxtuneError(f"Another process is writing {target}.", "Wait for it to end.")


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _require_space(folder: Path, needed: int, target: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _MARGIN_BYTES:
        raise AxtuneError(
            f"{target} needs {needed + _MARGIN_BYTES:,} bytes and its disk has {free:,} free.",
            "Free some space, or give a folder on another disk.",
        )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def flush(folder: Path) -> None:
    """Wait until a folder and all that it holds is on the disk."""
    for entry in [*folder.rglob("*"), folder]:
        fsync(entry)


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on leaving it takes the place of `target`.

    On an error `target` stays as it was. Between two renames a kill can leave it absent, never
    half.

    Args:
        target: A folder, there or not; its parent is there.

    Yields:
        The empty folder, beside `target`.
    """
    folder, retired = (hidden(target, end) for end in ("tmp", "old"))
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    folder.mkdir()
    try:
        yield folder
        flush(folder)
        shutil.rmtree(retired, ignore_errors=True)
        if target.exists():
            target.rename(retired)
        folder.rename(target)
        fsync(target.parent)
        shutil.rmtree(retired, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Give a path to write; on leaving that file takes the place of `file`, on an error it goes.

    Args:
        file: There or not; its folder is there.

    Yields:
        A path beside `file`, of this process alone: others may write the same file.
    """
    staged = hidden(file, f"{os.getpid()}.tmp")
    try:
        yield staged
        staged.replace(file)
    finally:
        with suppress(OSError):  # what cannot be written cannot be removed
            staged.unlink(missing_ok=True)


def errno_of(error: BaseException | None) -> int | None:
    """The system's number of an error; safetensors only writes it into its message."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def reason_of(error: BaseException) -> str:
    """What the system says of an error, or else the library: a clause."""
    number = errno_of(error)
    return os.strerror(number) if number else str(error).split("\n", 1)[0].rstrip(".")


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with written_whole(file) as staged:
        staged.write_text(text, encoding="utf-8")
