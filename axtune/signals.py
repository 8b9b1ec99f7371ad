"""Ctrl-C, SIGTERM and SIGHUP: each ends a command the same way, so that it clears up behind it."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1  # of prctl(2): the signal that a process is sent when its parent ends


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised where Ctrl-C would raise KeyboardInterrupt.

    Attributes:
        number: Which of them.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = signal.Signals(number)


def stopped_by(number: int) -> KeyboardInterrupt:
    """The exception of a signal.

    Args:
        number: SIGINT, SIGTERM or SIGHUP.
    """
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


def ending_signals() -> list[signal.Signals]:
    """What asks a process to end, beside Ctrl-C; SIGHUP does not under nohup, which ignores it."""
    asked = (signal.SIGTERM, signal.SIGHUP)
    return [number for number in asked if signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """End on SIGTERM and SIGHUP as on Ctrl-C, so that what is cleared up then is cleared up."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def end(number: int, frame: FrameType | None) -> None:
        leave_terminal()
        raise Terminated(number)

    before = {number: signal.signal(number, end) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_terminal() -> None:
    """Write nowhere once the terminal was closed; what a command says would be an error there."""
    for stream in (1, 2):
        try:
            termios.tcgetattr(stream)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def end_with_launcher() -> None:
    """Ask to be told when accelerate's launcher is killed, which passes no signal on.

    The signal is SIGHUP: after a Ctrl-C, which reaches both, it is no second one.
    """
    if words_of_accelerate():
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)


def words_of_accelerate() -> list[str]:
    """The command line of accelerate, where it started this process; else nothing."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode().split("\0")
    except (OSError, ValueError):
        return []
    started = any(Path(word).name.startswith("accelerate") for word in words[:3])
    return words if started else []


def signal_of(error: BaseException | None) -> signal.Signals:
    """The signal that an exception came of: SIGINT, unless it was another one."""
    others = (one.number for one in _came_of(error) if isinstance(one, Terminated))
    return next(others, signal.SIGINT)


def notes_of(error: BaseException | None) -> list[str]:
    """What was noted on the way, a sentence each, with the signal that an exception came of."""
    stops = (one for one in _came_of(error) if isinstance(one, KeyboardInterrupt))
    return [note for stop in stops for note in getattr(stop, "__notes__", [])]


def _came_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
