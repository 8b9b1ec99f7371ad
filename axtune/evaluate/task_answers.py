"""The answers to tasks of lm-evaluation-harness, kept as they come: ``task-answers.jsonl``.

The library has a model that keeps its answers itself (``CachingLM``), as pickles in a database;
here a line of JSON is an answer with its own SHA-256. It is found again by what the library hands a
model, and by everything else that decides it. What is drawn at a temperature is not kept: each of
several answers to one question is another.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from axtune.evaluate.answers import key_of, writing

TASK_ANSWERS = "task-answers.jsonl"
_KINDS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


class TaskAnswers:
    """The answers of a model to tasks, by their keys, and the place for new ones.

    Args:
        file: Where they are.
        kept: Those that are there.
        descriptor: Of the file, to write at its end.
        facts: JSON of what decides an answer beside the request: the model, how it is asked.
        damaged: Lines of the file that hold no answer any more.
    """

    def __init__(
        self,
        file: Path,
        kept: dict[str, Any],
        descriptor: int,
        facts: Mapping[str, Any],
        damaged: Sequence[int],
    ) -> None:
        self._file = file
        self._damaged = damaged
        self._kept = kept
        self._descriptor = descriptor
        self._facts = facts

    def damaged_in_words(self) -> str:
        """Which lines hold no answer any more, a sentence; empty where all do."""
        if not self._damaged:
            return ""
        lines = ", ".join(map(str, self._damaged))
        is_or_are = "is" if len(self._damaged) == 1 else "are"
        return f"{self._file}:{lines} {is_or_are} damaged and not used: what is missing is asked."

    def key(self, kind: str, request: Sequence[Any]) -> str | None:
        """What an answer is found again by; None of one that is drawn."""
        drawn = kind == "generate_until" and request[1].get("do_sample", False)
        return None if drawn else key_of(kind=kind, request=request, facts=self._facts)

    def get(self, key: str | None) -> Any:
        """The answer of a key, as the library has it; None where there is none."""
        found = self._kept.get(key) if key else None
        return tuple(found) if isinstance(found, list) else found

    def add(self, kind: str, request: Sequence[Any], answer: Any) -> None:
        """Keep an answer.

        Raises:
            AxtuneError: When it cannot be written.
        """
        key = self.key(kind, request)
        if key is None or key in self._kept:
            return
        self._kept[key] = answer
        values = {"key": key, "answer": answer}
        line = json.dumps({**values, "sha256": _digest(values)}, ensure_ascii=False) + "\n"
        left = line.encode(errors="surrogatepass")
        with writing(self._file):
            while left:
                left = left[os.write(self._descriptor, left) :]


@contextmanager
def open_task_answers(folder: Path, facts: Mapping[str, Any]) -> Iterator[TaskAnswers]:
    """The answers to tasks in a folder, which `axtune.evaluate.answers.open_answers` has locked.

    What a damaged line held is asked again; one that a killed process left unfinished is cut off.

    Raises:
        AxtuneError: When the file cannot be written.
    """
    file = folder / TASK_ANSWERS
    with writing(file):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(descriptor, whole)
        read = [_read(line) for line in content[:whole].splitlines()]
        damaged = [number for number, one in enumerate(read, 1) if one is None]
        yield TaskAnswers(file, dict(filter(None, read)), descriptor, facts, damaged)
    finally:
        os.close(descriptor)


class KeptModel:
    """A model as lm-evaluation-harness takes it, which is asked only what it has not answered.

    Args:
        model: Of the library.
        answers: Its answers.
        on_kept: Called for each answer that is there.
    """

    def __init__(self, model: Any, answers: TaskAnswers, on_kept: Callable[[], None]) -> None:
        self._model = model
        self._answers = answers
        self._on_kept = on_kept

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        if name not in _KINDS:
            return found

        def asked(requests: Sequence[Any], **options: Any) -> list[Any]:
            answers = [self._answers.get(self._answers.key(name, one.args)) for one in requests]
            missing = [n for n, answer in enumerate(answers) if answer is None]
            for _ in range(len(requests) - len(missing)):
                self._on_kept()
            new = found([requests[n] for n in missing], **options) if missing else []
            for n, answer in zip(missing, new, strict=True):
                answers[n] = answer
            return answers

        return asked


def _read(line: bytes) -> tuple[str, Any] | None:
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        values = json.loads(line)
        if values.pop("sha256") == _digest(values):
            return values["key"], values["answer"]
    return None


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
