"""What was drafted so far, in a hidden file beside the one that is to be written.

Its first line says how drafts are made, each other line what came of a passage: written once and
whole, so that whatever stops a command, the same command goes on behind it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axtune.checkpoint.atomic import claim, hidden, reason_of, refuse_existing
from axtune.errors import AxtuneError

_PRIVATE = 0o600
# By what name the user gives what decides drafts.
_OPTIONS = {
    "model": "--model",
    "seed": "--seed",
    "questions": "--questions",
    "passage_length": "--passage-length",
}


@dataclass(slots=True)
class Outcome:
    """What came of a passage.

    Attributes:
        drafted: Pairs that the server drafted.
        kept: Those that stood: ``question``, ``answer``, ``checked`` (the server's second answer)
            and ``overlap``.
        refused: How many pairs were refused, by reason.
        failed: Why there is no pair at all; empty where there could be.
    """

    drafted: int = 0
    kept: list[dict[str, Any]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    failed: str = ""

    def to_json(self) -> dict[str, Any]:
        """For a line of the file."""
        return {
            "drafted": self.drafted,
            "kept": self.kept,
            "refused": dict(self.refused),
            "failed": self.failed,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Outcome:
        """Of a line of the file."""
        return cls(**{**value, "refused": Counter(value["refused"])})


class Journal:
    """The outcomes so far by the keys of their passages, and the place for more; see `opened`.

    Args:
        path: The hidden file.
        descriptor: Of it, open for appending and locked.
        outcomes: That it holds.
    """

    def __init__(self, path: Path, descriptor: int, outcomes: dict[str, Outcome]) -> None:
        self.path = path
        self.outcomes: Mapping[str, Outcome] = outcomes
        self._descriptor = descriptor
        self._outcomes = outcomes

    def add(self, key: str, outcome: Outcome) -> None:
        """Keep an outcome; after this a kill does not lose it.

        Raises:
            OSError: When it cannot be written.
        """
        _append(self._descriptor, {"passage": key, **outcome.to_json()})
        self._outcomes[key] = outcome


@contextmanager
def opened(out: Path, facts: Mapping[str, Any]) -> Iterator[Journal]:
    """The journal of a file that is to be written.

    Args:
        out: The file.
        facts: JSON of what decides a draft.

    Yields:
        The journal; the caller removes its file when `out` is written.

    Raises:
        AxtuneError: When `out` exists or cannot be written, another process is writing it, or what
            was drafted before was made in another way.
    """
    refuse_existing(out)
    path = hidden(out, "partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, _PRIVATE)
    except OSError as error:
        raise _unwritable(out, error) from None
    try:
        claim(descriptor, path, out)
        refuse_existing(out)  # the holder before us may just have finished
        try:
            outcomes = _read(descriptor, path, facts)
            yield Journal(path, descriptor, outcomes)
        except OSError as error:
            raise _unwritable(out, error) from None
    finally:
        os.close(descriptor)


def _unwritable(out: Path, error: OSError) -> AxtuneError:
    return AxtuneError(
        f"{out} cannot be written: {reason_of(error)}.",
        "Free some space or give a folder that you may write to; what was drafted is kept, and the "
        "same command goes on.",
    )


def _read(descriptor: int, path: Path, facts: Mapping[str, Any]) -> dict[str, Outcome]:
    """The outcomes that a file holds; what a kill cut off is removed, an empty file begun."""
    outcomes: dict[str, Outcome] = {}
    whole, header = 0, None
    with path.open("rb") as stream:
        for line in stream:
            try:
                value = _value(line)
                if header is None:
                    header = value
                else:
                    key = value.pop("passage")
                    outcomes[key] = Outcome.from_json(value)
            except (ValueError, LookupError, TypeError, AttributeError):
                break  # the line that a kill cut off, and all behind it
            whole += len(line)
    os.ftruncate(descriptor, whole)
    if header is None:
        _append(descriptor, dict(facts))
    elif header != facts:
        raise _made_otherwise(path, header, facts)
    return outcomes


def _value(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ValueError("it has no end")
    return dict(json.loads(line))


def _made_otherwise(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> AxtuneError:
    """The error of going on in another way, with each difference."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    said = "; ".join(
        f"{_OPTIONS.get(name, name.replace('_', ' '))} was {before.get(name)}, now {now.get(name)}"
        for name in names
    )
    return AxtuneError(
        f"{path} holds drafts that were made otherwise: {said}.",
        "Give the options of before and it goes on, give another --out, or remove that file.",
    )


def _append(descriptor: int, value: dict[str, Any]) -> None:
    line = (json.dumps(value, ensure_ascii=False) + "\n").encode()
    while line:
        line = line[os.write(descriptor, line) :]
