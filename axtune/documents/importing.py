"""Folders and archives of documents as a corpus: walked in order, read in parallel, resumable.

Files are taken in the order of the paths given, those of a folder by name, folders among files; an
archive's stand where it lies. A document whose bytes the corpus holds already is not read again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from axtune.checkpoint.atomic import fsync, hidden, reason_of, written_whole
from axtune.documents.archives import (
    LARGEST_FILE,
    NO_FILE,
    Entry,
    entries_of,
    is_archive,
    is_leftover,
    meant_name,
)
from axtune.documents.document import Document, Refused
from axtune.documents.workers import Job, read_all
from axtune.errors import AxtuneError

_DEEPEST = 3  # archives in archives


@dataclass(frozen=True, slots=True)
class Loss:
    """A document that gave no text.

    Attributes:
        source: Its name.
        code: As in `axtune.documents.document.Reason`.
        message: Why, a sentence.
    """

    source: str
    code: str
    message: str


@dataclass(slots=True)
class Report:
    """What became of the documents of an import.

    Attributes:
        documents: How many were written by this import.
        present: How many the corpus held before.
        pages: Of those written, as far as they have pages.
        characters: Of those written.
        formats: Those written, by format.
        refused: Those that gave no text, in order.
        lost: Parts of those written that could not be read, by kind, with the sources.
    """

    documents: int = 0
    present: int = 0
    pages: int = 0
    characters: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    refused: list[Loss] = field(default_factory=list)
    lost: list[tuple[str, str, int]] = field(default_factory=list)

    def add(self, document: Document) -> None:
        """Count a document that is written."""
        self.documents += 1
        self.pages += document.pages or 0
        self.characters += len(document.text)
        self.formats[document.format] += 1
        self.lost += [(document.source, kind, count) for kind, count in document.lost.items()]

    def to_json(self) -> dict[str, Any]:
        """For programs: all counts, and each refusal by name."""
        return {
            "documents": self.documents,
            "present": self.present,
            "pages": self.pages,
            "characters": self.characters,
            "formats": dict(sorted(self.formats.items())),
            "refused_by_code": dict(Counter(loss.code for loss in self.refused).most_common()),
            "refused": [
                {"source": loss.source, "code": loss.code, "message": loss.message}
                for loss in self.refused
            ],
            "lost": [
                {"source": source, "kind": kind, "count": count}
                for source, kind, count in self.lost
            ],
        }


Progress = Callable[[int, int, Report], None]


def import_documents(
    paths: Sequence[Path],
    out: Path,
    workers: int,
    seconds: float = 300.0,
    progress: Progress | None = None,
) -> Report:
    """Write the text of documents as a corpus: JSONL of ``text`` and ``meta``.

    Interrupted, what was read stays in a hidden file beside `out`, and the same call goes on behind
    it. When `out` is there already, documents that it lacks are added.

    Args:
        paths: Files, archives and folders.
        out: The corpus.
        workers: How many processes read.
        seconds: How long one document may take.
        progress: Called with bytes done, bytes in all, and the report so far.

    Raises:
        AxtuneError: When a path cannot be found, `out` is no corpus or cannot be written, or
            another process is writing it.
        MissingPackageError: When the library of a format is not installed.
    """
    files = [file for path in paths for file in _files_of(path, out)]
    total = sum(file.size for file in files)
    report = Report()
    with _opened(out) as corpus:
        walk = _Walk(files, corpus.digests, report)
        for job, outcome in read_all(walk.jobs(), workers, seconds):
            if isinstance(outcome, Document):
                corpus.append(outcome)
                report.add(outcome)
            else:
                report.refused.append(Loss(job.source, outcome.code, outcome.message))
            if progress is not None:
                progress(walk.done, total, report)
        corpus.finish()
    return report


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    source: str
    size: int


def _files_of(path: Path, out: Path) -> Iterator[_File]:
    """The files of a path in order; leftovers of systems and the corpus itself left out."""
    try:
        if path.is_dir():
            name = path.resolve().name
            for folder, folders, names in os.walk(path):
                folders[:] = sorted(one for one in folders if not is_leftover(one))
                links = [one for one in folders if Path(folder, one).is_symlink()]  # not followed
                for one in sorted([*names, *links]):
                    file = Path(folder, one)
                    if is_leftover(one) or file.resolve() == out.resolve():
                        continue
                    yield _File(file, _source(f"{name}/{file.relative_to(path)}"), _size(file))
        elif path.is_file():
            yield _File(path, _source(path.name), _size(path))
        else:
            raise AxtuneError(f"{path} cannot be found.", "Give files, folders or archives.")
    except OSError as error:
        raise AxtuneError(
            f"{path} cannot be read: {reason_of(error)}.", "Check its rights."
        ) from None


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _source(name: str) -> str:
    """A name that JSON can hold, in composed Hangul."""
    return unicodedata.normalize("NFC", meant_name(os.fsencode(name)))


class _Walk:
    """Turns files into jobs, as far as they are asked for.

    Args:
        files: In order.
        present: Digests of what the corpus holds.
        report: Counts what is present.

    Attributes:
        done: Bytes of files that were turned into jobs.
    """

    def __init__(self, files: Sequence[_File], present: set[str], report: Report) -> None:
        self.done = 0
        self._files = files
        self._present = present
        self._report = report
        self._first: dict[str, str] = {}  # by digest: the source that this import reads

    def jobs(self) -> Iterator[Job]:
        """Documents to read, and refusals of what is none."""
        for file in self._files:
            try:
                if not file.path.is_file():
                    yield _refused(file.source, NO_FILE)
                elif is_archive(file.path.name):
                    with file.path.open("rb") as stream:
                        yield from self._archive(stream, file.source, 1)
                elif file.size > LARGEST_FILE:
                    yield _refused(
                        file.source, Refused("too-large", f"It has {file.size:,} bytes.")
                    )
                else:
                    yield from self._document(file.source, file.path.read_bytes())
            except OSError as error:
                yield _refused(file.source, Refused("broken", f"{reason_of(error)}."))
            self.done += file.size

    def _archive(self, stream: IO[bytes], source: str, depth: int) -> Iterator[Job]:
        if depth > _DEEPEST:
            yield _refused(
                source, Refused("too-large", f"It lies more than {_DEEPEST} archives deep.")
            )
            return
        try:
            for entry in entries_of(stream, source):
                yield from self._entry(entry, source, depth)
        except Refused as refused:
            yield _refused(source, refused)

    def _entry(self, entry: Entry, source: str, depth: int) -> Iterator[Job]:
        name = f"{source}/{_source(entry.name)}"
        if entry.refused is not None:
            yield _refused(name, entry.refused)
        elif is_archive(entry.name):
            yield from self._archive(io.BytesIO(entry.data), name, depth + 1)
        else:
            yield from self._document(name, entry.data)

    def _document(self, source: str, data: bytes) -> Iterator[Job]:
        digest = hashlib.sha256(data).hexdigest()
        if digest in self._first:
            yield _refused(
                source, Refused("duplicate", f"The same bytes as {self._first[digest]}.")
            )
        elif digest in self._present:
            self._report.present += 1
        else:
            self._first[digest] = source
            yield Job(source, digest, data)


def _refused(source: str, refused: Refused) -> Job:
    return Job(source, refused=refused)


class _Corpus:
    """A corpus that grows in a hidden file beside it, and takes its place whole.

    Args:
        out: The corpus, there or not.
        stream: The hidden file, open for reading and appending.

    Attributes:
        digests: Of the documents that either file holds.
    """

    def __init__(self, out: Path, stream: IO[bytes]) -> None:
        self._out = out
        self._stream = stream
        self._finished = _digests(out) if out.exists() else set()
        stream.seek(0)
        whole = 0
        begun: set[str] = set()
        for line in stream:
            digest = _digest(line)
            if digest is None:
                break  # the line that a kill cut off, and all behind it
            begun.add(digest)
            whole += len(line)
        stream.truncate(whole)
        stream.seek(0, os.SEEK_END)
        self.digests = self._finished | begun

    def append(self, document: Document) -> None:
        """Add a document; after this a kill does not lose it."""
        line = json.dumps(document.to_row(), ensure_ascii=False) + "\n"
        self._stream.write(line.encode("utf-8"))
        self._stream.flush()
        self.digests.add(document.sha256)

    def finish(self) -> None:
        """Let the corpus take its place, with what it held before in front."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        partial = Path(self._stream.name)
        if not self.digests:
            partial.unlink()
            return
        if not self._finished:
            partial.replace(self._out)
        elif self.digests != self._finished:
            self._stream.seek(0)
            with written_whole(self._out) as staged:
                with self._out.open("rb") as before, staged.open("wb") as after:
                    for line in before:
                        after.write(line)
                    for line in self._stream:  # a kill between the two below wrote it already
                        if _digest(line) not in self._finished:
                            after.write(line)
                fsync(staged)
            partial.unlink()
        else:
            partial.unlink()
        fsync(self._out.parent)


def _digest(line: bytes) -> str | None:
    """The digest that a line of a corpus holds; None where it is no such line."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else {}
        text, digest = row["text"], row["meta"]["sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) and isinstance(text, str) else None


def _digests(out: Path) -> set[str]:
    digests = set()
    with out.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            digest = _digest(line)
            if digest is None:
                raise AxtuneError(
                    f"{out} exists, and its line {number} is none of a corpus of documents.",
                    "Give --out another name, or remove it first.",
                )
            digests.add(digest)
    return digests


@contextmanager
def _opened(out: Path) -> Iterator[_Corpus]:
    partial = hidden(out, "partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with partial.open("a+b") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AxtuneError(
                    f"Another process is writing {out}.", "Wait for it to end."
                ) from None
            yield _Corpus(out, stream)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise AxtuneError(
            f"{out} cannot be written: {reason_of(error)}.",
            "Free some space, and give the same command again: it goes on."
            if full
            else "Give --out a file in a folder that you may write to.",
        ) from None
