"""The audited rows become what a trainer is fed with: mixture, held-out split, Arrow files.

The trainer maps the files into memory, so that memory does not grow with the data.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from axtune.checkpoint.leftovers import filling
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.recipe import Data, Recipe, Source
from axtune.data.epoch import draw, hold_out
from axtune.data.overlap_gate import overlap_gate
from axtune.data.pipeline import RowChecker
from axtune.data.samples import SAMPLE_TYPES, AnySample
from axtune.data.sources import digest, files_of, source_names, unread_files
from axtune.data.statistics import DatasetStats, RowResult, Sizes, StatsBuilder
from axtune.errors import CheckpointError, DataError, Fault

if TYPE_CHECKING:
    import datasets

_BATCH = 256  # rows written to Arrow together
_SHOWN = 3  # warnings of one code that a training run prints before it only counts them
_LISTED = 50  # errors that stop a run and are listed one by one


@dataclass(frozen=True)
class Prepared:
    """What a trainer is fed with.

    Attributes:
        train: The attributes of the samples that the task learns from (`Sample`, `PairSample` or
            `UnpairedSample`) as columns, ids and labels as lists of int32, and ``place``, where
            each comes from; mapped from disk.
        eval: The same for the held-out rows, or None.
        account: Where the training rows went.
        eval_account: Where the held-out rows went, or None.
        sizes: How long the training samples are, or None when nobody measured them.
        eval_sizes: The same for the held-out samples.
        files: The files of the training rows, as ``place`` counts them.
        eval_sources: The source of each file of the held-out rows, as their ``place`` counts them.
    """

    train: datasets.Dataset
    eval: datasets.Dataset | None
    account: DatasetStats
    eval_account: DatasetStats | None
    sizes: Sizes | None = None
    eval_sizes: Sizes | None = None
    files: tuple[str, ...] = ()
    eval_sources: tuple[str, ...] = ()

    def where(self, place: Sequence[int]) -> str:
        """``file:line`` of a training row.

        Args:
            place: Of a sample: the number of its file, and the line.
        """
        return f"{self.files[place[0]]}:{place[1]}"

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file, by its name; of the held-out rows' files as well."""
        held_out = self.eval_account.digests if self.eval_account else {}
        return {f"{name} (eval)": value for name, value in held_out.items()} | self.account.digests

    @staticmethod
    def load(folder: Path) -> Prepared:
        """Map what `prepare` wrote to a folder."""
        from datasets import Dataset

        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        parts: dict[str, tuple[datasets.Dataset, DatasetStats, Sizes]] = {}
        for name, part in plan.items():
            samples = Dataset.from_file(str(folder / part["file"])).select(
                np.load(folder / f"{name}.npy")
            )
            sizes = Sizes(*np.load(folder / f"{name}_sizes.npy"))
            parts[name] = (samples, DatasetStats(**part["account"]), sizes)
        train, account, sizes = parts["train"]  # prepare writes no plan without it
        held_out, eval_account, eval_sizes = parts.get("eval", (None, None, None))
        return Prepared(
            train,
            held_out,
            account,
            eval_account,
            sizes,
            eval_sizes,
            files=tuple(plan["train"]["files"]),
            eval_sources=tuple(plan.get("eval", {}).get("sources", ())),
        )


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
    checker = training_checker(recipe, tokenizer)
    kind = SAMPLE_TYPES[recipe.objective.learns_from]
    ledger, counts, keys, files = _write(
        data.sources, checker, kind, folder / "train.arrow", report
    )
    if data.privacy_kinds:  # as much a part of what is trained on as the files of rows
        kinds = Path(data.privacy_kinds).expanduser()
        ledger.digests[kinds.name] = digest(kinds)
    if checker.overlaps:
        for path in checker.overlaps.files:  # what they hold decides which rows stay
            ledger.digests[f"{path.name} (not in)"] = digest(path)
        checker.overlaps = None  # held-out rows are not held against each other
    drawn = draw(recipe, ledger, counts, keys)
    _save(folder, "train", drawn.train, ledger.sizes())
    account = drawn.account.to_json()
    plan["train"] = {"file": "train.arrow", "account": account, "files": list(files)}
    if drawn.eval_account:
        _save(folder, "eval", drawn.held_out, ledger.sizes())
        account = drawn.eval_account.to_json()
        plan["eval"] = {"file": "train.arrow", "account": account, "sources": [*files.values()]}
    elif isinstance(data.eval, list):
        # The same checker: a held-out row that stands in the training data is a duplicate.
        ledger, *_, files = _write(data.eval, checker, kind, folder / "eval.arrow", report)
        if not len(ledger.row):
            raise DataError(
                "There is nothing to evaluate on: no row of data.eval can be used.",
                [],
                "axtune data check says why.",
            )
        _save(folder, "eval", np.arange(len(ledger.row)), ledger.sizes())
        account = ledger.account().to_json()
        plan["eval"] = {"file": "eval.arrow", "account": account, "sources": [*files.values()]}
    with filling(folder):
        (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    return Prepared.load(folder)


def held_out_rows(recipe: Recipe, tokenizer: AxTokenizer) -> Iterator[RowResult]:
    """The rows that training a recipe holds out, with their turns; none where it holds out none.

    Args:
        recipe: Its data section says which; a fraction is drawn again, from the same seed.
        tokenizer: The checkpoint's.

    Raises:
        DataError: When a fraction of the rows cannot be held out.
        AxtuneError: When a path is not there.
    """
    data = recipe.data
    if isinstance(data.eval, list):
        checker = RowChecker(tokenizer, data, recipe.task, with_turns=True)
        yield from checker.stream([file for source in data.eval for file in files_of(source)])
    elif isinstance(data.eval, float):
        held = _held_out_of_training(recipe, tokenizer, data.eval)
        for row, checked in enumerate(_training_files(recipe, tokenizer, with_turns=True)):
            if row in held:
                yield checked


def trained_rows(recipe: Recipe, tokenizer: AxTokenizer) -> Iterator[RowResult]:
    """The rows of a recipe's training data but those that it holds out, each once.

    Args:
        recipe: Its data section says which.
        tokenizer: The checkpoint's.

    Raises:
        DataError: When a fraction of the rows cannot be held out.
        AxtuneError: When a path is not there.
    """
    share = recipe.data.eval
    held = _held_out_of_training(recipe, tokenizer, share) if isinstance(share, float) else set()
    for row, checked in enumerate(_training_files(recipe, tokenizer)):
        if row not in held:
            yield checked


def _held_out_of_training(recipe: Recipe, tokenizer: AxTokenizer, share: float) -> set[int]:
    """The places of the training rows that are held out, drawn again as when it was trained."""
    used, keys = array("Q"), array("Q")
    for row, checked in enumerate(_training_files(recipe, tokenizer)):
        if checked.samples:
            used.append(row)
            keys.append(checked.key)
    rng = np.random.default_rng(recipe.seed)
    rows = np.asarray(used, np.int64)
    return set(hold_out(rows, np.asarray(keys), share, rng).tolist())


def _training_files(
    recipe: Recipe, tokenizer: AxTokenizer, *, with_turns: bool = False
) -> Iterator[RowResult]:
    checker = training_checker(recipe, tokenizer, with_turns=with_turns)
    return checker.stream([file for source in recipe.data.sources for file in files_of(source)])


def training_checker(
    recipe: Recipe, tokenizer: AxTokenizer, *, with_turns: bool = False
) -> RowChecker:
    """What a recipe's training rows go through, held against each other and its held-out rows.

    Args:
        recipe: Its data section says what is sought.
        tokenizer: The checkpoint's.
        with_turns: As `RowChecker` takes it.

    Raises:
        AxtuneError: When a file of held-out items is not there or cannot be read.
    """
    asked = recipe.evaluate.data if recipe.evaluate else None
    overlaps = overlap_gate(recipe.data, asked or ())
    return RowChecker(tokenizer, recipe.data, recipe.task, with_turns=with_turns, overlaps=overlaps)


def _save(folder: Path, name: str, samples: NDArray[np.int64], sizes: Sizes) -> None:
    """Write which samples of an Arrow file are used, and how long those are."""
    with filling(folder):
        np.save(folder / f"{name}.npy", samples)
        np.save(folder / f"{name}_sizes.npy", np.stack(sizes.select(samples).columns()))


def tokens_of(rows: datasets.Dataset) -> NDArray[np.int64]:
    """Tokens of each row of `Prepared`: of a sample, or of a prompt and its answers together."""
    import pyarrow.compute as pc

    names = [name for name in rows.column_names if name.endswith("_ids")]
    batches = rows.select_columns(names).with_format("arrow").iter(batch_size=4096)
    counts = [
        sum(pc.list_value_length(table[name]).to_numpy().astype(np.int64) for name in names)
        for table in batches
    ]
    return np.concatenate(counts)


def _write(
    sources: Sequence[Source],
    checker: RowChecker,
    kind: type[AnySample],
    path: Path,
    report: Callable[[Fault], None],
) -> tuple[StatsBuilder, list[int], array[int], dict[str, str]]:
    """Write the samples of some sources to an Arrow file.

    Returns:
        The ledger; how many rows each source has; the key of each row; the source of each file, by
        the files' names in the order in which the samples' ``place`` counts them.
    """
    import pyarrow as pa

    columns = {"list[int]": pa.list_(pa.int32()), "bool": pa.bool_()}
    schema = pa.schema([(field.name, columns[str(field.type)]) for field in fields(kind)])
    placed = schema.append(pa.field("place", pa.list_(pa.int32())))
    ledger = StatsBuilder()
    counts: list[int] = []
    keys = array("Q")
    numbers: dict[str, int] = {}
    source_of: dict[str, str] = {}
    named: Counter[str] = Counter()
    errors: list[Fault] = []
    found = [(source, files_of(source)) for source in sources]  # a wrong path fails at once
    with (
        filling(path.parent),
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_stream(sink, placed) as writer,
    ):
        for (source, files), called in zip(found, source_names(sources), strict=True):
            for fault in unread_files(source):
                report(fault)
            before = ledger.rows_read
            for file in files:
                named[file.name] += 1
                same = named[file.name]
                name = f"{file.name} ({same})" if same > 1 else file.name
                ledger.digests[name] = digest(file)
            stream = checker.stream(files)
            while batch := list(islice(stream, _BATCH)):
                samples = [sample for checked in batch for sample in checked.samples]
                if samples:
                    arrays = [
                        pa.array([getattr(sample, field.name) for sample in samples], field.type)
                        for field in schema
                    ]
                    places = [
                        (numbers.setdefault(checked.file, len(numbers)), checked.line)
                        for checked in batch
                        for _ in checked.samples
                    ]
                    arrays.append(pa.array(places, placed.field("place").type))
                    writer.write_batch(pa.record_batch(arrays, schema=placed))
                for checked in batch:
                    source_of.setdefault(checked.file, called)
                    keys.append(checked.key)
                    ledger.add(checked)
                    _tell(checked, checker.data, ledger, errors, report)
            counts.append(ledger.rows_read - before)
    if errors and checker.data.on_error == "stop":
        total = ledger.refused.total()
        more = len(errors) - _LISTED
        tail = f" ({more} more are not listed.)" if more > 0 else ""
        advice = "Fix them, or train without them: data.on_error=skip."
        if total == ledger.rows_read:  # skipped, they would leave nothing
            of_another = set(ledger.refused) == {"wrong-task"}
            advice = "Set the task that the messages name." if of_another else "Fix them."
        raise DataError(
            f"{total} of {ledger.rows_read} rows cannot be trained on.",
            errors[:_LISTED],
            f"{advice}{tail}",
        )
    for code, count in (ledger.warnings + ledger.dropped).items():
        if count > _SHOWN:
            message = f"{count - _SHOWN} more; axtune data check lists them all."
            report(Fault("data", 0, code, message, "warning"))
    return ledger, counts, keys, {file: source_of[file] for file in numbers}


def _tell(
    checked: RowResult,
    data: Data,
    ledger: StatsBuilder,
    errors: list[Fault],
    report: Callable[[Fault], None],
) -> None:
    for fault in checked.faults:
        if fault.code == "template-differs":
            raise CheckpointError(
                str(fault),
                "Use the checkpoint's original chat template: axtune trains only on the tokens "
                "that are served.",
            )
        if fault.severity == "error":
            errors.append(fault)
            if data.on_error == "skip":
                report(fault)
        elif ledger.warnings[fault.code] + ledger.dropped[fault.code] <= _SHOWN:
            report(fault)
