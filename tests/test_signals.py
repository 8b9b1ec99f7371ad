"""SIGTERM and SIGHUP end a command as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from axtune.signals import Terminated, notes_of, signal_of, sigterm_as_ctrl_c, stopped_by


@pytest.fixture(autouse=True)
def _not_under_nohup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_ends_as_ctrl_c_does_and_only_inside(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Terminated) as caught, sigterm_as_ctrl_c():
        signal.raise_signal(number)
    assert caught.value.number == number
    assert signal.getsignal(number) is before


def test_what_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with sigterm_as_ctrl_c():
        signal.raise_signal(signal.SIGHUP)


def test_a_thread_leaves_the_signals_alone() -> None:
    """A notebook may train in a worker thread, where Python lets nobody set handlers."""
    handlers = []

    def work() -> None:
        with sigterm_as_ctrl_c():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_what_was_noted_on_the_way_is_found_behind_the_exit_status() -> None:
    end = SystemExit(130)
    end.__cause__ = stopped_by(signal.SIGINT)
    end.__cause__.add_note("It was at layer 2 of 4.")
    assert notes_of(end) == ["It was at layer 2 of 4."]
    assert notes_of(SystemExit(130)) == []


def stopped(number: int) -> None:
    """Ends as a command-line library does that turns the exception into an exit status."""
    try:
        raise stopped_by(number)
    except KeyboardInterrupt as error:
        raise SystemExit(130) from error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_what_an_exit_came_of_is_found_behind_it(number: int) -> None:
    with pytest.raises(SystemExit) as caught:
        stopped(number)
    assert signal_of(caught.value) == number
    assert signal_of(None) == signal.SIGINT
