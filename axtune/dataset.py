"""The audited rows become what a trainer is fed with: mixture, held-out split, Arrow files.

The trainer maps the files into memory, so that memory does not grow with the data.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axtune.audit import Account, Checked, Ledger, RowChecker
from axtune.errors import CheckpointError, DataError, Fault
from axtune.recipe import Data, Recipe, Source
from axtune.sources import digest, files_of
from axtune.tokenizer import AxTokenizer

if TYPE_CHECKING:
    import datasets

_BATCH = 256  # rows written to Arrow together
_SHOWN = 3  # warnings of one code that a training run prints before it only counts them
_LISTED = 50  # errors that stop a run and are listed one by one


@dataclass(frozen=True)
class Prepared:
    """What a trainer is fed with.

    Attributes:
        train: Columns ``input_ids`` and ``labels``, lists of int32; mapped from disk.
        eval: The same for the held-out rows, or None.
        account: Where the training rows went.
        eval_account: Where the held-out rows went, or None.
    """

    train: datasets.Dataset
    eval: datasets.Dataset | None
    account: Account
    eval_account: Account | None

    @staticmethod
    def load(folder: Path) -> Prepared:
        """Map what `prepare` wrote to a folder."""
        from datasets import Dataset

        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        parts: dict[str, tuple[datasets.Dataset, Account] | None] = {"train": None, "eval": None}
        for name, part in plan.items():
            samples = Dataset.from_file(str(folder / part["file"])).select(part["samples"])
            parts[name] = (samples, Account(**part["account"]))
        train, held_out = parts["train"], parts["eval"]
        assert train is not None  # prepare writes no plan without it
        if held_out is None:
            return Prepared(train[0], None, train[1], None)
        return Prepared(train[0], held_out[0], train[1], held_out[1])


def prepare(
    recipe: Recipe, tokenizer: AxTokenizer, folder: Path, report: Callable[[Fault], None]
) -> Prepared:
    """Prepare a recipe's data.

    Args:
        recipe: Its data section says what to read.
        tokenizer: The checkpoint's.
        folder: Where the Arrow files go; they hold data, so never inside a run folder.
        report: Called with warnings (a few of each code) and, when rows are skipped, errors.

    Returns:
        Training and held-out samples with their accounts.

    Raises:
        DataError: When rows have errors and ``on_error`` is ``stop``, or nothing is left to train.
        CheckpointError: When the template differs from what would be labelled; never skipped.
        AxtuneError: When a path is not there.
    """
    data = recipe.data
    plan: dict[str, Any] = {}
    rng = random.Random(recipe.seed)
    checker = RowChecker(tokenizer, data)
    ledger, spans, keys = _write(data.train, checker, folder / "train.arrow", report)
    used = [row for row in range(ledger.rows_read) if row in keys]
    held_out: set[int] = set()
    if isinstance(data.eval, float):
        held_out = _hold_out(keys, data.eval, rng)
    by_row: dict[int, list[int]] = {}
    for sample, row in enumerate(ledger.row):
        by_row.setdefault(row, []).append(sample)
    train = [
        sample
        for row in used
        if row not in held_out
        for _ in range(_times(_weight(spans, row), rng))
        for sample in by_row[row]
    ]
    if not train:
        raise DataError("There is nothing to train on.", [], "No row of data.train is fit to use.")
    plan["train"] = {
        "file": "train.arrow",
        "samples": train,
        "account": ledger.account(train, ledger.rows_read - len(held_out)).to_json(),
    }
    if held_out:
        samples = [sample for row in sorted(held_out) for sample in by_row[row]]
        account = ledger.account(samples, len(held_out) + ledger.refused.total()).to_json()
        account |= {"rows_read": len(held_out), "rows_refused": 0, "refused": {}, "warnings": {}}
        plan["eval"] = {"file": "train.arrow", "samples": samples, "account": account}
    elif isinstance(data.eval, list):
        # The same checker: a held-out row that stands in the training data is a duplicate.
        ledger, _, _ = _write(data.eval, checker, folder / "eval.arrow", report)
        samples = list(range(len(ledger.row)))
        if not samples:
            raise DataError("There is nothing to evaluate on.", [], "No row of data.eval is fit.")
        account = ledger.account().to_json()
        plan["eval"] = {"file": "eval.arrow", "samples": samples, "account": account}
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    return Prepared.load(folder)


def _write(
    sources: Sequence[Source],
    checker: RowChecker,
    path: Path,
    report: Callable[[Fault], None],
) -> tuple[Ledger, list[tuple[int, float]], dict[int, int]]:
    """Write the samples of some sources to an Arrow file.

    Returns:
        The ledger; where each source's rows end, with its weight; the key of each row used.
    """
    import pyarrow as pa

    column = pa.list_(pa.int32())
    schema = pa.schema([("input_ids", column), ("labels", column)])
    ledger = Ledger()
    spans: list[tuple[int, float]] = []
    keys: dict[int, int] = {}
    errors: list[Fault] = []
    found = [(source, files_of(source)) for source in sources]  # a wrong path fails at once
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for source, files in found:
            for file in files:
                same = sum(name.split(" (")[0] == file.name for name in ledger.digests)
                name = f"{file.name} ({same + 1})" if same else file.name
                ledger.digests[name] = digest(file)
            stream = checker.stream(files)
            while batch := list(islice(stream, _BATCH)):
                samples = [sample for checked in batch for sample in checked.samples]
                if samples:
                    ids, labels = [s.input_ids for s in samples], [s.labels for s in samples]
                    arrays = [pa.array(ids, column), pa.array(labels, column)]
                    writer.write_batch(pa.record_batch(arrays, schema=schema))
                for checked in batch:
                    if checked.samples:
                        keys[ledger.rows_read] = checked.key
                    ledger.add(checked)
                    _tell(checked, checker.data, ledger, errors, report)
            spans.append((ledger.rows_read, source.weight))
    if errors and checker.data.on_error == "stop":
        total = ledger.refused.total()
        more = len(errors) - _LISTED
        tail = f" ({more} more are not listed.)" if more > 0 else ""
        raise DataError(
            f"{total} of {ledger.rows_read} rows cannot be trained on.",
            errors[:_LISTED],
            f"Mend them, or train without them: data.on_error=skip.{tail}",
        )
    for code, count in ledger.warnings.items():
        if count > _SHOWN:
            message = f"{count - _SHOWN} more; axtune data check lists them all."
            report(Fault("data", 0, code, message, "warning"))
    return ledger, spans, keys


def _tell(
    checked: Checked,
    data: Data,
    ledger: Ledger,
    errors: list[Fault],
    report: Callable[[Fault], None],
) -> None:
    for fault in checked.faults:
        if fault.code == "template-differs":
            raise CheckpointError(str(fault), "Nothing is trained on a template that differs.")
        if fault.severity == "error":
            errors.append(fault)
            if data.on_error == "skip":
                report(fault)
        elif ledger.warnings[fault.code] <= _SHOWN:
            report(fault)


def _hold_out(keys: dict[int, int], fraction: float, rng: random.Random) -> set[int]:
    """Draw rows for evaluation; near duplicates stay together, so that none leaks across."""
    groups: dict[int, list[int]] = {}
    for row, key in keys.items():
        groups.setdefault(key, []).append(row)
    if len(groups) < 2:
        raise DataError(
            "data.eval is a fraction, and there are too few different rows to hold some out.",
            [],
            "Give a file as data.eval, or set data.eval=null.",
        )
    wanted = max(1, round(len(keys) * fraction))
    order = sorted(groups)
    rng.shuffle(order)
    order.sort(key=lambda key: len(groups[key]) > wanted)  # a big group only if there is no other
    chosen: set[int] = set()
    for key in order[:-1]:
        if not chosen or len(chosen) + len(groups[key]) <= wanted:
            chosen.update(groups[key])
    return chosen


def _weight(spans: list[tuple[int, float]], row: int) -> float:
    return next(weight for end, weight in spans if row < end)


def _times(weight: float, rng: random.Random) -> int:
    """How often a row of this weight is seen an epoch; the fraction is drawn."""
    whole = int(weight)
    return whole + (rng.random() < weight - whole)
