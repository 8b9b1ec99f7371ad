"""What can go wrong for a user, said once: what was found, what was expected, the remedy.

Doors print an AxtuneError and exit with 1; nothing else in axtune may reach a user as a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Severity = Literal["error", "warning"]


class Problem(NamedTuple):
    """What is wrong with a row, without its file and line."""

    code: str
    message: str
    severity: Severity = "error"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault at one place of a file.

    Attributes:
        file: The path as the user gave it.
        line: 1-based line (JSONL, YAML, CSV) or row number (Parquet, Hub data sets); 0 when the
            fault is the whole file's.
        code: A short stable name, such as ``bad-role``.
        message: Found, expected, remedy, in one line. Never the content of a data row.
        severity: ``error`` refuses the row (or the recipe); ``warning`` only says so.
    """

    file: str
    line: int
    code: str
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        mark = "warning: " if self.severity == "warning" else ""
        return f"{place}: {mark}{self.code}: {self.message}"


class AxtuneError(Exception):
    """A mistake that the user can fix.

    Args:
        found: What is wrong, a sentence.
        remedy: What to do about it, a sentence; empty only where there is nothing to do.
    """

    def __init__(self, found: str, remedy: str = "") -> None:
        self.found = found
        self.remedy = remedy
        super().__init__(f"{found}\n{remedy}" if remedy else found)


class FaultsError(AxtuneError):
    """Several faults, reported together.

    Args:
        found: The heading over the faults.
        faults: All of them, in the order of the file.
        remedy: As in `AxtuneError`.
    """

    def __init__(self, found: str, faults: Sequence[Fault], remedy: str = "") -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join([found, *map(str, faults)]), remedy)
        self.found = found


class RecipeError(FaultsError):
    """A recipe that cannot be run: unknown keys, wrong values, broken YAML."""


class DataError(FaultsError):
    """Rows that cannot be trained on."""


class CheckpointError(AxtuneError):
    """A checkpoint that is absent, incomplete, or not what it claims."""


class UnreachableError(AxtuneError):
    """Something outside of axtune failed, such as an index; what was done before it is kept."""


class MissingPackageError(AxtuneError):
    """An optional package that this job needs is not installed."""


def require_linux() -> None:
    """Stop on a system that lacks what axtune reads, writes and quantises with.

    Files are read past the page cache (``O_DIRECT``) and folders locked (``fcntl``) as Linux does.

    Raises:
        AxtuneError: When this is not Linux.
    """
    system: str = sys.platform
    if system == "linux":
        return
    name = {"darwin": "macOS", "win32": "Windows"}.get(system, system)
    remedy = "Install it in WSL2" if system == "win32" else "Start it on a Linux machine"
    raise AxtuneError(f"axtune runs on Linux, and this is {name}.", f"{remedy}.")
