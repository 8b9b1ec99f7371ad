"""The one pass over the data: every row read, checked, rendered, encoded and accounted for.

`axtune data check`, `axtune data render`, `axtune data preview` and training share it, so that what
a check says is what a run does.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from axtune.checks import check as check_conversation
from axtune.checks import text_problems
from axtune.conversation import Conversation, read_row
from axtune.errors import AxtuneError, CheckpointError, DataError, Fault, Problem
from axtune.readers import Row, read_rows
from axtune.recipe import Data, data_options
from axtune.render import IGNORED, Piece, Sample, TemplateDiffersError, encode, pieces
from axtune.sources import files_of
from axtune.tokenizer import AxTokenizer, load_tokenizer

_BATCH = 256  # rows encoded together: enough to keep every core busy, little to hold
_NO_WORD = re.compile(r"[\W_]+")


@dataclass(slots=True)
class Checked:
    """A row after every check.

    Attributes:
        file: As in `Row`.
        line: As in `Row`.
        samples: What is trained on; empty when the row is refused.
        faults: Everything found; an error among them refuses the row.
        key: Equal for rows that are near duplicates of each other.
    """

    file: str
    line: int
    samples: list[Sample] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    key: int = 0

    @property
    def refused(self) -> bool:
        """Whether an error keeps the row out."""
        return any(fault.severity == "error" for fault in self.faults)


@dataclass(frozen=True)
class Account:
    """Where every row went: ``rows_read == rows_used + rows_refused + rows_left_out``.

    Attributes:
        rows_read: Rows of the files.
        rows_used: Rows with at least one sample.
        rows_refused: Rows with an error.
        rows_left_out: Rows of a source with a weight below 1 that the draw left out.
        samples: Sequences an epoch; a row of weight 2 counts twice.
        tokens: Their tokens.
        labelled_tokens: Tokens that are learned.
        lengths: Sample length in tokens at percentiles ``p50``, ``p90``, ``p99``, ``max``.
        refused: Refused rows by the code of their first error.
        warnings: Warnings by code.
        digests: SHA-256 of each file, by its name without folders.
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

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


class Ledger:
    """Counts rows as they pass; `account` sums up."""

    def __init__(self) -> None:
        self.rows_read = 0
        self.refused: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.digests: dict[str, str] = {}
        # One entry a sample, in the order of reading.
        self.lengths = array("L")
        self.labelled = array("L")
        self.row = array("L")

    def add(self, checked: Checked) -> None:
        """Count one row."""
        errors = [fault.code for fault in checked.faults if fault.severity == "error"]
        self.warnings.update(f.code for f in checked.faults if f.severity == "warning")
        if errors:
            self.refused[errors[0]] += 1
        for sample in checked.samples:
            self.lengths.append(len(sample.input_ids))
            self.labelled.append(len(sample.labels) - sample.labels.count(IGNORED))
            self.row.append(self.rows_read)
        self.rows_read += 1

    def account(
        self, samples: NDArray[np.int64] | None = None, rows_read: int | None = None
    ) -> Account:
        """Sum up all rows, or the rows of some samples.

        Args:
            samples: Indices of the samples that are used, with repetitions; None for all.
            rows_read: How many rows this account answers for; None for all.
        """
        chosen = slice(None) if samples is None else samples
        lengths = np.sort(np.asarray(self.lengths)[chosen])
        rows_read = self.rows_read if rows_read is None else rows_read
        used, refused = len(np.unique(np.asarray(self.row)[chosen])), self.refused.total()
        return Account(
            rows_read=rows_read,
            rows_used=used,
            rows_refused=refused,
            rows_left_out=rows_read - used - refused,
            samples=len(lengths),
            tokens=int(lengths.sum()),
            labelled_tokens=int(np.asarray(self.labelled)[chosen].sum()),
            lengths=_percentiles(lengths.tolist()),
            refused=dict(self.refused),
            warnings=dict(self.warnings),
            digests=dict(self.digests),
        )


def check_rows(files: Iterable[Path], tokenizer: AxTokenizer, data: Data) -> Iterator[Checked]:
    """Read, check, render and encode every row of some files, in order, as a stream.

    Args:
        files: As `axtune.sources.files_of` finds them.
        tokenizer: The checkpoint's.
        data: The options of a recipe's data section; its paths are not looked at.

    Yields:
        One `Checked` for each row.
    """
    return RowChecker(tokenizer, data).stream(files)


def check(
    files: str | Sequence[str], model: str | AxTokenizer, **options: Any
) -> tuple[Account, list[Fault]]:
    """Check files as ``axtune data check`` does, from Python.

    Args:
        files: One path or several: files, folders, globs, or ``hf:owner/name``.
        model: Whose tokenizer and template; a name, or a tokenizer already loaded.
        options: Keys of a recipe's data section, such as ``max_length=8192``.

    Returns:
        Where every row went, and every fault.

    Raises:
        AxtuneError: When a path, the model, or an option is wrong.
    """
    tokenizer = load_tokenizer(model) if isinstance(model, str) else model
    paths = [files] if isinstance(files, str) else list(files)
    data = data_options(paths, **{"max_length": tokenizer.context, **options})
    ledger, faults = Ledger(), []
    found = [path for source in data.train for path in files_of(source)]
    for checked in check_rows(found, tokenizer, data):
        ledger.add(checked)
        faults += checked.faults
    return ledger.account(), faults


def render_row(row: dict[str, Any], tokenizer: AxTokenizer, **options: Any) -> list[Sample]:
    """Token ids and labels of one row, from Python.

    Args:
        row: In any shape that a data file may have.
        tokenizer: From `axtune.load_tokenizer`.
        options: Keys of a recipe's data section.

    Returns:
        The row's samples.

    Raises:
        DataError: When the row is refused, with every fault.
    """
    data = data_options(["row"], **{"max_length": tokenizer.context, **options})
    (checked,) = RowChecker(tokenizer, data).check([Row("row", 0, row)])
    if checked.refused:
        raise DataError("The row cannot be trained on.", checked.faults)
    return checked.samples


def write_rendered(rows: Iterable[Checked], out: Path) -> int:
    """Write each row's samples as JSONL: ``{"line": n, "samples": […]}`` or ``{…, "error": …}``.

    The file appears whole or not at all.

    Args:
        rows: From `check_rows`.
        out: The file to write.

    Returns:
        How many rows were refused.

    Raises:
        AxtuneError: When the file cannot be written.
    """
    refused = 0
    part = out.with_name(out.name + ".part")
    try:
        if out.exists() and not out.is_file():
            raise AxtuneError(f"{out} cannot be written: it is no plain file.")
        with part.open("w", encoding="utf-8") as stream:
            for checked in rows:
                line: dict[str, Any] = {"line": checked.line}
                if checked.refused:
                    refused += 1
                    errors = [f for f in checked.faults if f.severity == "error"]
                    line["error"] = "; ".join(f"{f.code}: {f.message}" for f in errors)
                else:
                    line["samples"] = [asdict(sample) for sample in checked.samples]
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        part.replace(out)
    except OSError as error:
        raise AxtuneError(f"{out} cannot be written: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return refused


class RowChecker:
    """The checks of one pass over the data; it remembers what it has seen, for duplicates."""

    def __init__(self, tokenizer: AxTokenizer, data: Data) -> None:
        self.tokenizer = tokenizer
        self.data = data
        self.control = None
        if data.control_tokens == "refuse":
            tokens = sorted(tokenizer.control_tokens)
            self.control = re.compile("|".join(map(re.escape, tokens)))
        self.seen: set[int] = set()
        self.seen_nearly: set[int] = set()

    def stream(self, files: Iterable[Path]) -> Iterator[Checked]:
        """Check files row by row, holding one batch at a time."""
        limit = int(self.data.max_line_mb * 1e6)
        rows = chain.from_iterable(read_rows(file, max_line_bytes=limit) for file in files)
        while batch := list(islice(rows, _BATCH)):
            yield from self.check(batch)

    def check(self, rows: Sequence[Row]) -> list[Checked]:
        """Check a batch of rows; the tokenizer sees it as a whole."""
        checked = []
        texts: list[list[Piece]] = []
        owners: list[Checked] = []
        for row in rows:
            result = Checked(row.file, row.line)
            checked.append(result)
            if row.fault:
                result.faults.append(row.fault)
                continue
            samples = self._texts(row, result)
            if not result.refused:
                texts += samples
                owners += [result] * len(samples)
        for result, sample in zip(owners, encode(self.tokenizer, texts), strict=True):
            result.samples.append(sample)
        for result in checked:
            self._fit(result)
        return checked

    def _texts(self, row: Row, result: Checked) -> list[list[Piece]]:
        """The text of a row's samples; faults go to the result."""

        def fault(problem: Problem) -> None:
            result.faults.append(Fault(row.file, row.line, *problem))

        try:
            return self._text_of(row, result, fault)
        except UnicodeEncodeError:  # an escape in JSON text that is itself a string of the row
            message = "an escape such as \\ud83d is half of a surrogate pair."
            fault(Problem("lone-surrogate", message))
        except RecursionError:
            fault(Problem("too-deep", "values are nested too deeply."))
        return []

    def _text_of(
        self, row: Row, result: Checked, fault: Callable[[Problem], None]
    ) -> list[list[Piece]]:
        conversation, problems = read_row(row.value, row_format=self.data.format, nfc=self.data.nfc)
        if conversation is not None:
            whole = all(problem.severity == "warning" for problem in problems)
            problems += text_problems(conversation, self.control, nfd=not self.data.nfc)
            if whole:
                problems += check_conversation(conversation)
        for problem in problems:
            fault(problem)
        if conversation is None or result.refused:
            return []
        try:
            samples = pieces(self.tokenizer, conversation)
        except TemplateDiffersError as error:
            fault(Problem("template-differs", error.found))
            return []
        except CheckpointError as error:
            fault(Problem("template-refuses", error.found))
            return []
        for problem in self._duplicate(conversation, samples, result):
            fault(problem)
        return samples

    def _duplicate(
        self, conversation: Conversation, samples: list[list[Piece]], result: Checked
    ) -> Iterator[Problem]:
        exact = _hash("".join(piece.text for sample in samples for piece in sample))
        result.key = _hash(_near_text(conversation))
        if exact in self.seen:
            yield Problem("duplicate", "the same conversation stands further up.", "warning")
        elif result.key in self.seen_nearly:
            message = (
                "but for case, spaces and punctuation, the same conversation stands further up."
            )
            yield Problem("near-duplicate", message, "warning")
        self.seen.add(exact)
        self.seen_nearly.add(result.key)

    def _fit(self, result: Checked) -> None:
        """Hold the samples against max_length."""
        limit = self.data.max_length
        longest = max((len(sample.input_ids) for sample in result.samples), default=0)
        if longest <= limit:
            return
        place = (result.file, result.line)
        if not self.data.truncate:
            message = (
                f"{longest} tokens, and max_length is {limit}; raise data.max_length, shorten the "
                "row, or set data.truncate: true."
            )
            result.faults.append(Fault(*place, "too-long", message))
            result.samples.clear()
            return
        for sample in result.samples:
            del sample.input_ids[limit:], sample.labels[limit:]
        # An answer that has been cut is learned up to the cut; a prompt alone teaches nothing.
        result.samples = [s for s in result.samples if s.labels.count(IGNORED) < len(s.labels)]
        if result.samples:
            message = f"{longest} tokens, cut at max_length {limit}."
            result.faults.append(Fault(*place, "truncated", message, "warning"))
        else:
            message = f"nothing to learn is left of {longest} tokens after the cut at {limit}."
            result.faults.append(Fault(*place, "nothing-to-learn", message))


def _near_text(conversation: Conversation) -> str:
    """What near duplicates share: every letter and digit, without case, spaces, punctuation."""
    said: list[str] = [tool["function"]["name"] for tool in conversation.tools or ()]
    for message in conversation.messages:
        said.append(message["role"])
        text = unicodedata.normalize("NFKC", message["content"]).casefold()
        said.append(_NO_WORD.sub("", text))
        for call in message.get("tool_calls", ()):
            said.append(json.dumps(call["function"], sort_keys=True))
    return "\0".join(said)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _percentiles(lengths: Sequence[int]) -> dict[str, int]:
    """Nearest-rank percentiles of sorted lengths."""
    if not lengths:
        return {}
    last = len(lengths) - 1
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: lengths[round(share * last)] for name, share in ranks.items()}
