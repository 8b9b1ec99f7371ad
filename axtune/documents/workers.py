"""Processes that read documents: one that crashes or hangs takes its own document only."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from axtune.documents.document import Document, Refused
from axtune.documents.reading import read_document
from axtune.errors import MissingPackageError

# Of address space: what a document of half a gigabyte needs; a parser that wants more is stopped.
_MEMORY = 6 << 30
# Documents that may wait for a slow one before them, so that results come in order.
_WAITING = 64


@dataclass(frozen=True, slots=True)
class Job:
    """A document to read.

    Attributes:
        source: Its name.
        sha256: Of its bytes.
        data: Its bytes.
        refused: Why it is not read at all, or None.
    """

    source: str
    sha256: str = ""
    data: bytes = b""
    refused: Refused | None = None


Outcome = Document | Refused


def read_all(jobs: Iterable[Job], workers: int, seconds: float) -> Iterator[tuple[Job, Outcome]]:
    """Read documents in processes, and give results in the order of the jobs.

    Args:
        jobs: What to read; those refused go through. Taken only as far as is needed.
        workers: How many processes.
        seconds: How long one document may take.

    Raises:
        MissingPackageError: When the library of a format is not installed.
    """
    pool = _Pool(workers, seconds)
    order: deque[_Slot] = deque()
    upcoming = iter(jobs)
    more = True
    try:
        while more or order:
            while more and len(order) < _WAITING and pool.has_room():
                job = next(upcoming, None)
                if job is None:
                    more = False
                else:
                    order.append(_Slot(job, job.refused))
                    if job.refused is None:
                        pool.start(order[-1])
            while order and (outcome := order[0].outcome) is not None:
                yield order.popleft().job, outcome
            if order and not (more and pool.has_room() and len(order) < _WAITING):
                pool.wait()
    finally:
        pool.close()


@dataclass(eq=False, slots=True)
class _Slot:
    """A document's place in the order."""

    job: Job
    outcome: Outcome | None = None


@dataclass(eq=False, slots=True)
class _Worker:
    process: Any
    pipe: Connection
    slot: _Slot | None = None
    until: float = 0.0


class _Pool:
    """Processes with a document each.

    Args:
        size: How many.
        seconds: How long one document may take.
    """

    def __init__(self, size: int, seconds: float) -> None:
        # Not forked: a parser starts in a process that holds nothing of the command's.
        self._context = multiprocessing.get_context("spawn")
        self._size = size
        self._seconds = seconds
        self._workers: list[_Worker] = []

    def has_room(self) -> bool:
        """Whether a document can start at once."""
        return len(self._workers) < self._size or any(w.slot is None for w in self._workers)

    def start(self, slot: _Slot) -> None:
        """Give a document to a process that has none."""
        worker = next((w for w in self._workers if w.slot is None), None)
        if worker is None:
            worker = self._new()
        worker.slot = slot
        worker.until = time.monotonic() + self._seconds
        try:
            worker.pipe.send(slot.job)
        except (BrokenPipeError, ConnectionResetError):
            self._lose(worker, "crashed", "The process that should read it had ended.")

    def wait(self) -> None:
        """Wait until a document is read, or its time is over."""
        busy = {worker.pipe: worker for worker in self._workers if worker.slot is not None}
        first = min((worker.until for worker in busy.values()), default=0.0)
        ready = wait(list(busy), max(0.0, first - time.monotonic()))
        for worker in [busy[pipe] for pipe in busy if pipe in ready]:
            try:
                outcome = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                self._lose(worker, "crashed", "Its parser crashed, or ran out of memory.")
                continue
            if isinstance(outcome, MissingPackageError):
                raise outcome
            assert worker.slot is not None
            worker.slot.outcome = outcome
            worker.slot = None
        now = time.monotonic()
        for worker in busy.values():
            if worker.slot is not None and worker.until <= now:
                self._lose(worker, "time-limit", f"It took more than {self._seconds:g} s.")

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []

    def _new(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs, self._seconds), daemon=True)
        with _ctrl_c_ignored():
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _lose(self, worker: _Worker, code: Any, message: str) -> None:
        """Give up a document and its process; the next document gets a new one."""
        assert worker.slot is not None
        worker.slot.outcome = Refused(code, message)
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Start a process that Ctrl-C does not reach: the command ends it, without its traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def work(pipe: Connection, seconds: float) -> None:
    """Read documents that come through a pipe until it closes: what a process runs.

    Args:
        pipe: Jobs come, outcomes go.
        seconds: How long a document may take; the process ends by itself soon after that.
    """
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    socket.has_ipv6 = False  # urllib3, which trafilatura imports, would open a socket to see
    # What parsers print may quote the document.
    logging.disable(logging.CRITICAL)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, sys.__stdout__.fileno() if sys.__stdout__ else 1)
    os.dup2(silent, sys.__stderr__.fileno() if sys.__stderr__ else 2)
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        signal.alarm(int(seconds) + 10)  # if the command is gone
        outcome = outcome_of(job)
        signal.alarm(0)
        try:
            pipe.send(outcome)
        except (BrokenPipeError, ConnectionResetError):
            return


def outcome_of(job: Job) -> Outcome | MissingPackageError:
    """A document, or why there is none, whatever its parser does.

    Args:
        job: The document.
    """
    try:
        return read_document(job.data, job.source, job.sha256)
    except (Refused, MissingPackageError) as known:
        return known
    except MemoryError:
        return Refused("too-large", "Its parser needs more memory than it may have.")
    except RecursionError:
        return Refused("broken", "Its parts are nested too deeply.")
    except Exception as error:  # a parser's, on bytes that nobody has foreseen
        return Refused("broken", f"It cannot be read: {type(error).__name__} in its parser.")
