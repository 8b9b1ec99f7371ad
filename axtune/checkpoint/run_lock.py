"""One run at a time in a run folder: a lock that the system frees however its holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from axtune.config.paths import require_no_file_in_the_way
from axtune.errors import AxtuneError

_held: set[int] = set()


def _let_go_in_child() -> None:
    """A worker that outlives a killed run for a moment must not go on holding its lock."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder, which is created if need be, and goes again if nothing comes into it.

    The folder itself is what is locked, so there is no file to be left behind.

    Args:
        folder: What ``output_dir`` names.

    Raises:
        AxtuneError: When it cannot be a folder or be written, or another run is writing into it.
    """
    try:
        made = _create(folder)
    except OSError as error:
        raise AxtuneError(
            f"output_dir {folder} cannot be created: {error.strerror}.", "Set another output_dir."
        ) from None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    _held.add(descriptor)
    try:
        _lock(folder, descriptor)
        yield
    finally:
        _held.discard(descriptor)
        for place in made:
            with suppress(OSError):  # it holds a run by now
                place.rmdir()
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether a process works in a folder at this moment: one that holds it as `locked` does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _create(folder: Path) -> list[Path]:
    """Make a folder and its parents; those that were not there are returned, the deepest first."""
    require_no_file_in_the_way(folder)
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise AxtuneError(
            f"output_dir {folder} cannot be written: you may not write into {nearest}.",
            "Set another output_dir.",
        )
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _lock(folder: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another run may have been refused just now and taken its empty folder away.
        held = os.path.samestat(os.fstat(descriptor), folder.stat())
    except (BlockingIOError, FileNotFoundError):
        held = False
    except OSError:
        return  # a file system without locks
    if not held:
        raise AxtuneError(
            f"Another run is writing into {folder}.",
            "Wait for it to end or stop it, or set another output_dir.",
        )
