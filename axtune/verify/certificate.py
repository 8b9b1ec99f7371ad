"""What was checked on a checkpoint, and how it came out: a table for people, JSON for machines."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from axtune.checkpoint.atomic import write_text
from axtune.checkpoint.provenance import base_digests
from axtune.errors import AxtuneError
from axtune.units import package_version
from axtune.weights.folder import certify

Status = Literal["pass", "warn", "fail", "skip"]

FILE = "certificate.json"
FOUR_BIT = "4 bit"  # the part of checks that hold rounded weights against those in 16 bit

_MARKS: dict[Status, tuple[str, str]] = {
    "pass": ("✓", "green"),
    "warn": ("!", "yellow"),
    "fail": ("✗", "red"),
    "skip": ("–", "dim"),
}
_PACKAGES = ("axtune", "torch", "transformers", "tokenizers", "peft")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        part: What it belongs to: tokenizer, template, end of turn, weights, logits or vllm.
        name: What was looked at, in a few words.
        status: ``fail`` makes a checkpoint unfit; ``warn`` is for the user to judge; ``skip`` was
            not looked at, and `found` says why.
        found: What was found, a sentence without a full stop.
        remedy: What to do about it; empty where there is nothing to do.
        figures: Measured numbers by name.
    """

    part: str
    name: str
    status: Status
    found: str
    remedy: str = ""
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Certificate:
    """All checks of one checkpoint.

    Attributes:
        folder: Of the checkpoint.
        checks: In the order in which they were made.
    """

    folder: Path
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check.status != "fail" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values; names no path of this machine."""
        versions = {name: package_version(name) for name in _PACKAGES}
        return {
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "digests": base_digests(self.folder),
            "versions": {"python": platform.python_version(), **versions},
        }

    def write(self) -> Path:
        """Write ``certificate.json`` next to the weights, and what 4 bit costs into their card.

        Raises:
            AxtuneError: When the folder cannot be written to.
        """
        file = self.folder / FILE
        try:
            write_text(file, json.dumps(self.to_json(), ensure_ascii=False, indent=2) + "\n")
            measured = [check for check in self.checks if check.part == FOUR_BIT and check.figures]
            if measured:
                lines = "".join(f"- {one.name} ({one.status}): {one.found}\n" for one in measured)
                certify(self.folder, f"Against the 16-bit weights (`{FILE}`):\n\n{lines}")
        except OSError as error:
            raise AxtuneError(
                f"{file} cannot be written: {error.strerror}.",
                "Verify a copy of the folder that you may write to.",
            ) from None
        return file


def show(console: Console, checks: Sequence[Check]) -> None:
    """Print checks as a table, and under it what to do about those that did not pass."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    before = ""
    for check in checks:
        mark, style = _MARKS[check.status]
        part = check.part if check.part != before else ""
        table.add_row(Text(mark, style), part, check.name, Text(check.found, _of(check)))
        before = check.part
    console.print(table)
    for check in checks:
        if check.remedy and check.status in ("warn", "fail"):
            mark, style = _MARKS[check.status]
            console.print(Text(f"{mark} {check.part}, {check.name}: {check.remedy}", style))
    failed = sum(check.status == "fail" for check in checks)
    warned = sum(check.status == "warn" for check in checks)
    verdict = f"{failed} failed" if failed else "passed"
    if warned:
        verdict += f", {warned} to judge for yourself"
    console.print(Text(verdict, "bold red" if failed else "bold green"))


def _of(check: Check) -> str:
    return "" if check.status == "pass" else _MARKS[check.status][1]
