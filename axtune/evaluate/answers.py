"""The answers of an evaluation, kept as they come: ``answers.jsonl``.

A line is an answer with its own SHA-256, written once and whole, so that an evaluation that was
stopped goes on, and a second look costs nothing. An answer is found again by its key: everything
that decides it (the model's bytes, the prompt, how it was made).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from axtune.checkpoint.atomic import reason_of
from axtune.data.native_calls import Answer
from axtune.errors import AxtuneError
from axtune.units import plural

ANSWERS = "answers.jsonl"

_DIGITS = 16  # of the SHA-256 of a line, and of a key where it is shortened


def key_of(**facts: Any) -> str:
    """What an answer is found again by.

    Args:
        facts: JSON of everything that decides it.
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def short(key: str) -> str:
    """A key as a result names it."""
    return key[:_DIGITS]


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it is kept.

    Attributes:
        key: Of `key_of`.
        model: That gave it, as the user named it.
        question: Its id.
        category: Of the question.
        asked: The last message of its prompt.
        right: A right answer.
        sample: Which of several answers to it, from 0.
        content: The text, as the client gets it.
        tool_calls: The calls, as the client gets them.
        ended: Whether it came to its end before the longest answer.
        ids: Its tokens, where they are known.
        margins: By how much each token's logit led; empty where nobody computed it.
    """

    key: str
    model: str
    question: str
    category: str
    asked: str
    right: str
    sample: int
    content: str
    tool_calls: list[dict[str, Any]]
    ended: bool
    ids: list[int] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)

    @property
    def said(self) -> str:
        """What was said, for people: the text, and each call in a line."""
        functions = [call["function"] for call in self.tool_calls]
        calls = [f"{function['name']}({function['arguments']})" for function in functions]
        return "\n".join(filter(None, [self.content, *calls]))

    @property
    def answer(self) -> Answer:
        """What was said."""
        return Answer(self.content, self.tool_calls)


class Answers(Mapping[str, Kept]):
    """The answers of a folder by their keys, and the place for new ones; see `open_answers`."""

    def __init__(self, file: Path, kept: dict[str, Kept], descriptor: int) -> None:
        self.file = file
        self._kept = kept
        self._descriptor = descriptor

    def __getitem__(self, key: str) -> Kept:
        return self._kept[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, answers: Iterable[Kept]) -> None:
        """Keep answers; they are on their way to the disk when this returns.

        Raises:
            AxtuneError: When they cannot be written.
        """
        new = [answer for answer in answers if answer.key not in self._kept]
        text = "".join(_line(answer) for answer in new).encode()
        with writing(self.file):
            while text:
                text = text[os.write(self._descriptor, text) :]
        self._kept.update((answer.key, answer) for answer in new)


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Say which file of an evaluation cannot be written, and that nothing is lost.

    Raises:
        AxtuneError: When it cannot: a full disk, a limit on files, rights.
    """
    try:
        yield
    except OSError as error:
        raise AxtuneError(
            f"{file} cannot be written: {reason_of(error)}.",
            "Make room for it, and run the same command again: it goes on from here.",
        ) from None


@contextmanager
def open_answers(folder: Path) -> Iterator[Answers]:
    """The answers in a folder, which one process at a time may add to.

    A last line that a killed process left unfinished is cut off.

    Raises:
        AxtuneError: When the folder cannot be written, another process evaluates into it, or a line
            of the file is damaged.
    """
    file = folder / ANSWERS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise AxtuneError(
            f"{file} cannot be written: {reason_of(error)}.", "Give another folder with --out."
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AxtuneError(
                f"Another process evaluates into {folder}.", "Wait for it to end, or give --out."
            ) from None
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(descriptor, whole)
        kept = _read_lines(file, content[:whole])
        yield Answers(file, {answer.key: answer for answer in kept}, descriptor)
    finally:
        os.close(descriptor)


def read_answers(folder: Path) -> list[Kept]:
    """The answers in a folder, in the order in which they came.

    Raises:
        AxtuneError: When there are none, or a line is damaged.
    """
    file = folder / ANSWERS
    try:
        content = file.read_bytes()
    except OSError as error:
        raise AxtuneError(
            f"{file} cannot be read: {reason_of(error)}.", "Evaluate first: axtune eval."
        ) from None
    return _read_lines(file, content[: content.rfind(b"\n") + 1])


def _line(answer: Kept) -> str:
    values = asdict(answer) | {"margins": [round(each, 4) for each in answer.margins]}
    return json.dumps({**values, "sha256": _digest(values)}, ensure_ascii=False) + "\n"


def differing(
    answers: Iterable[Kept], before: str, after: str, keys: Collection[str] = ()
) -> list[tuple[Kept, Kept]]:
    """The answers of two models to questions that they answer differently, by the questions' names.

    Args:
        answers: Of `read_answers`, in any order; the last one to a question counts.
        before: The name of one model.
        after: Of the other.
        keys: Of the answers that count, shortened; none of them: all answers count.
    """
    asked: dict[tuple[str, int], dict[str, Kept]] = {}
    counted = set(keys)
    for one in answers:
        if counted and short(one.key) not in counted:
            continue
        asked.setdefault((one.question, one.sample), {})[one.model] = one
    pairs = [
        (pair[before], pair[after])
        for _, pair in sorted(asked.items(), key=lambda item: _in_order(*item[0]))
        if {before, after} <= {*pair}
    ]
    return [(left, right) for left, right in pairs if left.said != right.said]


def _in_order(question: str, sample: int) -> tuple[list[str | int], int]:
    """As people count: line 9 before line 10."""
    parts = re.split(r"(\d+)", question)  # text and digits in turn
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], sample


def _read_lines(file: Path, lines: bytes) -> list[Kept]:
    read = [_read(line) for line in lines.splitlines()]
    damaged = [str(number) for number, one in enumerate(read, 1) if one is None]
    if damaged:
        first, *more = damaged
        others = f", and {plural(len(more), 'more line')}: {', '.join(more)}" if more else ""
        removed = ";".join(f"{number}d" for number in damaged)
        raise AxtuneError(
            f"{file}:{first} is damaged{others}.",
            "Remove what is damaged: those questions are asked again "
            f"(sed -i '{removed}' {shlex.quote(str(file))}).",
        )
    return [one for one in read if one]


def _read(line: bytes) -> Kept | None:
    """The answer of a line; None of a damaged one."""
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        values = json.loads(line)
        if values.pop("sha256") == _digest(values):
            return Kept(**values)
    return None


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
