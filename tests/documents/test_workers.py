from __future__ import annotations

import os
import sys
import time
from typing import Any

import pytest

from axtune.documents import workers
from axtune.documents.document import Document, Refused
from axtune.documents.workers import Job, outcome_of, read_all
from axtune.errors import MissingPackageError


def job(name: str, data: bytes = "글".encode()) -> Job:
    return Job(f"{name}.txt", name, data)


class Hangs(bytes):
    """Bytes that take for ever to arrive in another process."""

    def __reduce__(self) -> Any:
        return time.sleep, (60,)


class Crashes(bytes):
    """Bytes that end the process that they arrive in."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


class Watched(bytes):
    """Bytes after which the process that they arrive in ends where it opens a socket."""

    def __reduce__(self) -> Any:
        return watched, (bytes(self),)


def watched(data: bytes) -> bytes:
    sys.addaudithook(lambda event, _: os._exit(1) if event.startswith("socket.") else None)
    return data


@pytest.mark.slow
def test_no_socket_is_opened() -> None:
    page = "<html><body><article><p>공지의 글이다.</p></article></body></html>".encode()
    ((_, outcome),) = read_all([Job("a.html", "가", Watched(page))], workers=1, seconds=60.0)
    assert isinstance(outcome, Document)


@pytest.mark.slow
def test_a_crash_and_a_hang_take_their_own_document_only() -> None:
    jobs = [
        job("가"),
        job("나", Crashes()),
        Job("다.png", refused=Refused("unknown-format", "It is none.")),
        job("라", Hangs()),
        *(job(str(number)) for number in range(8)),
    ]
    found = list(read_all(iter(jobs), workers=2, seconds=4.0))
    assert [done.source for done, _ in found] == [one.source for one in jobs]
    codes = [o.code if isinstance(o, Refused) else o.text for _, o in found]
    assert codes == ["글", "crashed", "unknown-format", "time-limit", *["글"] * 8]


def test_a_parser_that_fails_is_a_refusal_without_the_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: list[BaseException] = [MemoryError(), RecursionError(), KeyError("비밀"), SystemError()]
    codes = []
    for error in errors:

        def fail(*args: Any, error: BaseException = error) -> Document:
            raise error

        monkeypatch.setattr(workers, "read_document", fail)
        outcome = outcome_of(job("가"))
        assert isinstance(outcome, Refused)
        assert "비밀" not in outcome.message
        codes.append(outcome.code)
    assert codes == ["too-large", "broken", "broken", "broken"]


def test_an_absent_library_ends_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> Document:
        raise MissingPackageError("a package is not installed", "Install it.")

    monkeypatch.setattr(workers, "read_document", fail)
    assert isinstance(outcome_of(job("가")), MissingPackageError)
