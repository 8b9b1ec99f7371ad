"""SIGTERM and Ctrl-C: both end a command the same way, so that it can clear up behind itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where Ctrl-C would raise KeyboardInterrupt."""


def stopped_by(number: int) -> KeyboardInterrupt:
    """The exception of a signal.

    Args:
        number: SIGINT or SIGTERM.
    """
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C, so that what is cleared up then is cleared up."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def was_terminated(error: BaseException | None) -> bool:
    """Whether SIGTERM is what an exception came of."""
    return any(isinstance(one, Terminated) for one in _came_of(error))


def notes_of(error: BaseException | None) -> list[str]:
    """What was noted on the way, a sentence each, with the signal that an exception came of."""
    stops = (one for one in _came_of(error) if isinstance(one, KeyboardInterrupt))
    return [note for stop in stops for note in getattr(stop, "__notes__", [])]


def _came_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
