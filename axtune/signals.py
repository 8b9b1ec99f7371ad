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
    while error is not None:
        if isinstance(error, Terminated):
            return True
        error = error.__cause__ or error.__context__
    return False
