"""Where every row went: rows after every check, and their sums."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from axtune.data.render import LearnedTurn
from axtune.data.samples import AnySample
from axtune.errors import Fault

_BINS = 20


@dataclass(slots=True)
class RowResult:
    """A row after every check.

    Attributes:
        file: As in `axtune.data.rows.Row`.
        line: As in `axtune.data.rows.Row`.
        samples: What is trained on; empty when the row is refused.
        faults: Everything found; an error among them refuses the row.
        document: Whether it is a document, of which the samples are the pieces.
        key: Equal for rows that must not part when some are held out: near duplicates, and
            preferences with the same prompt.
        turns: The turns that the samples teach to their end, of a preference those of the chosen
            answer (or the only one); empty unless the checker was asked for them.
        personal_data: How much of each kind the gate found; empty where ``privacy`` is off.
        overlaps: Codes of what `axtune.data.overlap_gate` found it to repeat.
        dropped: The code that it is dropped for; empty when it stays in or is refused.
    """

    file: str
    line: int
    samples: list[AnySample] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    document: bool = False
    key: int = 0
    turns: list[LearnedTurn] = field(default_factory=list)
    personal_data: Counter[str] = field(default_factory=Counter)
    overlaps: list[str] = field(default_factory=list)
    dropped: str = ""

    def drop(self, code: str) -> None:
        """Keep the row out, without a fault of it."""
        self.dropped = code
        self.samples.clear()
        self.turns.clear()

    @property
    def refused(self) -> bool:
        """Whether an error keeps the row out."""
        return any(fault.severity == "error" for fault in self.faults)


@dataclass(frozen=True)
class DatasetStats:
    """Where every row went; ``rows_read`` is the sum of what was used, refused, dropped, left out.

    Attributes:
        rows_read: Rows of the files.
        rows_used: Rows with at least one sample.
        rows_refused: Rows with an error.
        rows_left_out: Rows of a source with a weight below 1 that the draw left out.
        samples: Sequences or preferences an epoch; a row of weight 2 counts twice.
        tokens: Their tokens; a pair's prompt counts once.
        labelled_tokens: Tokens that are learned.
        lengths: Sample length in tokens at percentiles ``p50``, ``p90``, ``p99``, ``max``; a
            pair's is that of its prompt and longer answer, as ``data.max_length`` means it.
        refused: Refused rows by the code of their first error.
        warnings: Warnings by code.
        digests: SHA-256 of each file, by its name without folders.
        prompt_tokens: Tokens of the prompts of preferences, counted as in `tokens`.
        answers: Preferences by ``chosen`` and ``rejected`` (pairs) or ``desirable`` and
            ``undesirable`` (unpaired): how many ``answers``, and their learned ``tokens``.
        personal_data: How much of each kind the gate found in the rows that were read: masked, or
            what they were refused for.
        histogram: How many samples are within each twentieth of the longest one's length.
        dropped: Rows that are kept out since they repeat another, by the code of what they repeat:
            ``duplicate``, ``near-duplicate``, ``leaked``.
        overlaps: Rows that repeat another or a held-out item, dropped or not, by file (with
            the folders in which these differ) and by code.
        mixture: Of training rows, what each source has of an epoch (`axtune.data.mixture.Part`).
    """

    rows_read: int
    rows_used: int
    rows_refused: int
    rows_left_out: int
    samples: int
    tokens: int
    labelled_tokens: int
    lengths: dict[str, int]
    refused: dict[str, int]
    warnings: dict[str, int]
    digests: dict[str, str]
    prompt_tokens: int = 0
    answers: dict[str, dict[str, int]] = field(default_factory=dict)
    histogram: list[int] = field(default_factory=list)
    personal_data: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    overlaps: dict[str, dict[str, int]] = field(default_factory=dict)
    mixture: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class Sizes:
    """How long samples are, an entry each, in tokens.

    Attributes:
        lengths: The longest sequence, as `axtune.data.samples` counts it.
        tokens: All tokens; a pair's prompt counts once.
        prompts: Those of a preference's prompt; 0 of a conversation.
        learned: Those that are learned.
    """

    lengths: NDArray[np.int64]
    tokens: NDArray[np.int64]
    prompts: NDArray[np.int64]
    learned: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, samples: NDArray[Any]) -> Sizes:
        """Those of some samples: indices, with repetitions, or a mask."""
        return Sizes(*(column[samples] for column in self.columns()))

    def cut(self, limit: int) -> Sizes:
        """The same samples, longer ones cut: each of their columns shrinks in proportion."""
        lengths = np.minimum(self.lengths, limit)
        rest = (column * lengths // self.lengths for column in self.columns()[1:])
        return Sizes(lengths, *rest)

    def columns(self) -> tuple[NDArray[np.int64], ...]:
        """The four columns, in the order of the attributes."""
        return self.lengths, self.tokens, self.prompts, self.learned


class StatsBuilder:
    """Counts rows as they pass; `account` sums up."""

    def __init__(self) -> None:
        self.rows_read = 0
        self.refused: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.digests: dict[str, str] = {}
        self.personal_data: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.overlaps: dict[str, Counter[str]] = {}
        # One entry a sample, in the order of reading.
        self.row = array("L")
        self.lengths = array("I")
        self.tokens = array("I")
        self.prompts = array("I")  # of preferences only
        self.wanted = array("I")  # learned tokens: of conversations and wanted answers
        self.unwanted = array("I")  # and of the other answers

    def add(self, checked: RowResult) -> None:
        """Count one row."""
        errors = [fault.code for fault in checked.faults if fault.severity == "error"]
        warnings = [f.code for f in checked.faults if f.severity == "warning"]
        if checked.dropped:
            warnings.remove(checked.dropped)
            self.dropped[checked.dropped] += 1
        self.warnings.update(warnings)
        if checked.overlaps:
            self.overlaps.setdefault(checked.file, Counter()).update(checked.overlaps)
        self.personal_data.update(checked.personal_data)
        if errors:
            self.refused[errors[0]] += 1
        for sample in checked.samples:
            wanted, unwanted = sample.labelled
            self.row.append(self.rows_read)
            self.lengths.append(sample.length)
            self.tokens.append(sample.tokens)
            self.prompts.append(sample.prompt_length)
            self.wanted.append(wanted)
            self.unwanted.append(unwanted)
        self.rows_read += 1

    def account(
        self, samples: NDArray[np.int64] | None = None, rows_read: int | None = None
    ) -> DatasetStats:
        """Sum up all rows, or the rows of some samples.

        Args:
            samples: Indices of the samples that are used, with repetitions; None for all.
            rows_read: How many rows this account answers for; None for all.
        """
        chosen = slice(None) if samples is None else samples
        lengths = np.sort(np.asarray(self.lengths)[chosen])
        rows_read = self.rows_read if rows_read is None else rows_read
        used, refused = len(np.unique(np.asarray(self.row)[chosen])), self.refused.total()
        prompts, wanted, unwanted = (
            np.asarray(column, np.int64)[chosen]
            for column in (self.prompts, self.wanted, self.unwanted)
        )
        return DatasetStats(
            rows_read=rows_read,
            rows_used=used,
            rows_refused=refused,
            rows_left_out=rows_read - used - refused - self.dropped.total(),
            samples=len(lengths),
            tokens=int(np.asarray(self.tokens, np.int64)[chosen].sum()),
            labelled_tokens=int(wanted.sum() + unwanted.sum()),
            lengths=_percentiles(lengths.tolist()),
            refused=dict(self.refused),
            warnings=dict(self.warnings),
            digests=dict(self.digests),
            prompt_tokens=int(prompts.sum()),
            answers=_answers(prompts, wanted, unwanted),
            histogram=_histogram(lengths),
            personal_data=dict(self.personal_data),
            dropped=dict(self.dropped),
            overlaps=_by_name(self.overlaps),
        )

    def sizes(self) -> Sizes:
        """How long all samples are, in the order of reading."""
        wanted, unwanted = (np.asarray(c, np.int64) for c in (self.wanted, self.unwanted))
        lengths, tokens, prompts = (
            np.asarray(c, np.int64) for c in (self.lengths, self.tokens, self.prompts)
        )
        return Sizes(lengths, tokens, prompts, wanted + unwanted)


def _by_name(by_file: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """Counts by the names of files, with the folders in which these differ and no others."""
    if not by_file:
        return {}
    above = os.path.commonpath([Path(file).parent for file in by_file])
    return {os.path.relpath(file, above): dict(counts) for file, counts in by_file.items()}


def _answers(
    prompts: NDArray[np.int64], wanted: NDArray[np.int64], unwanted: NDArray[np.int64]
) -> dict[str, dict[str, int]]:
    """Answers of preferences by what they are; every answer has a learned token."""
    pairs = (wanted > 0) & (unwanted > 0)
    kinds = {
        "chosen": wanted[pairs],
        "rejected": unwanted[pairs],
        "desirable": wanted[(prompts > 0) & (unwanted == 0)],
        "undesirable": unwanted[wanted == 0],
    }
    return {
        kind: {"answers": len(tokens), "tokens": int(tokens.sum())}
        for kind, tokens in kinds.items()
        if len(tokens)
    }


def _histogram(lengths: NDArray[Any]) -> list[int]:
    """How many of some lengths are within each twentieth of the longest, the shortest first."""
    if not len(lengths):
        return []
    counts, _ = np.histogram(lengths, bins=_BINS, range=(0, int(lengths.max())))
    return [int(count) for count in counts]


def _percentiles(lengths: Sequence[int]) -> dict[str, int]:
    """Nearest-rank percentiles of sorted lengths."""
    if not lengths:
        return {}
    last = len(lengths) - 1
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: lengths[round(share * last)] for name, share in ranks.items()}
