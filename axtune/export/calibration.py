"""The rows by which an export in few bits is rounded: those of a run, as training rendered them.

What a layer may lose is what its inputs do not use; so the inputs have to be those of serving: the
user's own domain and language, with the native template around them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from axtune.checkpoint.provenance import base_digests
from axtune.checkpoint.record import file_sha256
from axtune.checkpoint.run_dir import Run
from axtune.checkpoint.saved_adapter import WEIGHTS
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.loader import data_options
from axtune.data.dataset import trained_rows
from axtune.data.pipeline import RowChecker
from axtune.data.samples import as_served
from axtune.data.sources import files_of
from axtune.data.statistics import RowResult
from axtune.errors import AxtuneError, DataError, Fault
from axtune.units import package_version, plural
from axtune.weights.folder import CheckpointPlan, public_name

# Counts something up before a user's eyes: what, and how many; gives what is called for each.
Counting = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


@contextmanager
def uncounted(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows nothing."""
    yield lambda: None


def unsaid(text: str) -> None:
    """Says nothing."""


ROWS = 64

_LONGEST = 2048  # what a row is cut to; more of one conversation says little that is new
# Of all rows together where a CPU computes and nobody said how many: with A.X 4.0 Light ten
# minutes of computing.
_CPU_TOKENS = 6144
# With fewer it is chance which inputs count.
_FEW_TOKENS = 2048
_SHOWN = 5  # rows that are refused, each with its line


@dataclass(frozen=True)
class RoundingOptions:
    """How an export in few bits is rounded.

    Attributes:
        fast: Without calibration.
        calibrate: Files to calibrate on, instead of a run's training rows.
        rows: How many of them; None as `draw`.
        seed: Draws which.
        counting: Shows how much is done.
        say: Given what a user should know before it is computed, a line each.
    """

    fast: bool = False
    calibrate: tuple[str, ...] = ()
    rows: int | None = None
    seed: int = 0
    counting: Counting = uncounted
    say: Callable[[str], None] = unsaid

    def calibration(self, planned: CheckpointPlan, tokenizer: AxTokenizer) -> Calibration | None:
        """What a checkpoint is calibrated on; None where it is not.

        Args:
            planned: In 16 bit.
            tokenizer: Its own.

        Raises:
            AxtuneError: As `draw`.
        """
        if self.fast:
            return None
        run = next(iter(planned.runs()), None)
        drawn = draw(tokenizer, run, self.calibrate, self.rows, self.seed, self.say)
        self.say(drawn.line())
        if drawn.tokens < _FEW_TOKENS:
            self.say(
                f"warning: {plural(drawn.tokens, 'token')} say little of what the model will be "
                "asked. Give more rows (--rows, --calibrate), and see what axtune verify measures."
            )
        return drawn


@dataclass(frozen=True)
class Calibration:
    """What goes through a model before its layers are rounded.

    Attributes:
        sequences: Token ids of each row.
        facts: What a record says of them: the names of the files, rows, tokens, how many rows were
            refused, seed, and the SHA-256 of the ids.
    """

    sequences: list[list[int]]
    facts: dict[str, Any]

    @property
    def tokens(self) -> int:
        """Of all rows together."""
        return sum(map(len, self.sequences))

    def line(self) -> str:
        """How many rows and tokens these are, and of what."""
        return f"calibrating on {self.size} of {', '.join(self.facts['files'])}"

    @property
    def size(self) -> str:
        """How many rows and tokens, as a clause."""
        return f"{plural(self.facts['rows'], 'row')} ({plural(self.tokens, 'token')})"


def draw(
    tokenizer: AxTokenizer,
    run: Run | None,
    files: Sequence[str],
    rows: int | None = None,
    seed: int = 0,
    say: Callable[[str], None] = unsaid,
) -> Calibration:
    """Draw calibration rows.

    Args:
        tokenizer: The checkpoint's.
        run: What it comes from; without `files` its training rows are drawn from, never those that
            it held out: by them the result is judged.
        files: Instead of them.
        rows: How many; None for `ROWS`, and on a CPU for no more than fit some thousand tokens.
        seed: Draws which.
        say: Given how many rows are refused, and the first of them.

    Raises:
        AxtuneError: When files cannot be read, or the run's own are gone; or there are neither.
        DataError: When no row is sound, with what is wrong.
    """
    if not files and run is None:
        raise AxtuneError(
            "A checkpoint has no rows of its own to calibrate on.",
            "Give some that are like what it will be asked (--calibrate FILE), export the run "
            "itself, or round without any (--fast), which loses more.",
        )
    found, faults = _read(tokenizer, run, files)
    refused = len({(fault.file, fault.line) for fault in faults})
    if not found:
        why = f": all {refused:,} are refused" if refused > 1 else ": the only one is refused"
        raise DataError(
            f"There is no row to calibrate on{why if refused else ''}.",
            faults[:_SHOWN],
            "`axtune data check FILE` says what becomes of each; give files with sound rows by "
            "--calibrate FILE, or round without any (--fast).",
        )
    if refused:
        are = "is" if refused == 1 else "are"
        say(f"{plural(refused, 'row')} {are} refused, and not calibrated on:")
        for fault in faults[:_SHOWN]:
            say(str(fault))
        if len(faults) > _SHOWN:
            say("`axtune data check FILE` lists all.")
    drawn = random.Random(seed).sample(found, min(rows or ROWS, len(found)))
    if rows is None and not torch.cuda.is_available():
        drawn = list(_fitting(drawn))
    names = [Path(file).name for file in files]
    if not files and run:
        names = [Path(source.path).name for source in run.recipe.data.sources]
    ids = json.dumps(drawn).encode()
    facts = {
        "files": names,
        "rows": len(drawn),
        "tokens": sum(map(len, drawn)),
        "refused": refused,
        "seed": seed,
        "sha256": hashlib.sha256(ids).hexdigest(),
    }
    return Calibration(drawn, facts)


def rounding_facts(planned: CheckpointPlan, calibration: Calibration | None) -> dict[str, Any]:
    """What a record says of an export in few bits: of what, by which rows and programs.

    Args:
        planned: In 16 bit.
        calibration: None where there was none.
    """
    return {
        "calibration": calibration.facts if calibration else None,
        "base": {
            "name": public_name(planned.base),
            "commit": planned.base.commit,
            "digests": base_digests(planned.base.folder),
        },
        "adapters": [file_sha256(adapter / WEIGHTS) for adapter in planned.adapters],
        "device": device(),
        "versions": {name: package_version(name) for name in ("axtune", "torch", "transformers")},
    }


def device() -> str:
    """What rows are computed on: the card, where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _read(
    tokenizer: AxTokenizer, run: Run | None, files: Sequence[str]
) -> tuple[list[list[int]], list[Fault]]:
    """Of each sound row what serving would see, and what is wrong with the others."""
    found: list[list[int]] = []
    faults: list[Fault] = []
    try:
        for row in _rows(tokenizer, run, files):
            found += _sequences(row)
            faults += (fault for fault in row.faults if fault.severity == "error")
    except AxtuneError as error:
        if files or run is None:
            raise
        raise AxtuneError(
            f"The rows of the run {run.path} cannot be read: {error.found}",
            f"{error.remedy} Or give others that are like what it will be asked (--calibrate "
            "FILE), or round without any (--fast), which loses more.".lstrip(),
        ) from error
    return found, faults


def _rows(tokenizer: AxTokenizer, run: Run | None, files: Sequence[str]) -> Iterator[RowResult]:
    if run and not files:
        return trained_rows(run.recipe, tokenizer)
    # Longer rows are cut, not refused.
    options = data_options(files, max_length=1 << 40)
    given = [file for source in options.train for file in files_of(source)]
    return RowChecker(tokenizer, options).stream(given)


def _sequences(row: RowResult) -> Iterator[list[int]]:
    """What serving would see: the whole conversation, or the answer that is wanted."""
    for sample in row.samples:
        yield as_served(sample).input_ids[:_LONGEST]


def _fitting(drawn: Sequence[list[int]]) -> Iterator[list[int]]:
    """As many as a CPU gets through in some minutes."""
    left = _CPU_TOKENS
    for ids in drawn:
        if left > 0:
            yield ids[:left]
        left -= len(ids)
