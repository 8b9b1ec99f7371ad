"""What to begin with: the task that rows are made for, and the edits that fit a run to a card."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from axtune.config.loader import data_options, load
from axtune.config.new_recipe import shipped
from axtune.config.objective import OBJECTIVES, tasks
from axtune.config.recipe_file import as_override
from axtune.data.pipeline import check_rows
from axtune.data.samples import PairSample, UnpairedSample
from axtune.data.sources import files_of
from axtune.data.statistics import DatasetStats, StatsBuilder
from axtune.errors import AxtuneError, Fault
from axtune.plan.estimate import free_memory, from_data
from axtune.plan.gpus import GIB, find_card
from axtune.plan.memory import CPU, GPU
from axtune.plan.search import Edits, Search
from axtune.units import gigabytes

if TYPE_CHECKING:
    from axtune.checkpoint.locate import Checkpoint
    from axtune.checkpoint.tokenizer import AxTokenizer
    from axtune.data.statistics import RowResult

_BASE_IN_BF16 = 24  # GiB of a card that holds a 7B base of 14.5 GB and what training adds


@dataclass(frozen=True)
class RowsFound:
    """What the rows of a source are.

    Attributes:
        account: Of all rows.
        rows: How many are made for each task, the most frequent first.
        faults: Of the rows that are refused.
    """

    account: DatasetStats
    rows: dict[str, int]
    faults: list[Fault]

    @property
    def tasks(self) -> list[str]:
        """The tasks that a row is made for, the most frequent first."""
        return list(self.rows)

    @property
    def fitting(self) -> list[str]:
        """The tasks that take a row, those that rows are made for and others."""
        kinds = {OBJECTIVES[task].learns_from for task in self.rows}
        return tasks(lambda objective: bool(kinds.intersection(objective.accepts)))

    def not_for(self, task: str) -> int:
        """How many rows a task does not take."""
        takes = OBJECTIVES[task].accepts
        return sum(
            count for made, count in self.rows.items() if OBJECTIVES[made].learns_from not in takes
        )


@dataclass(frozen=True)
class Start:
    """How a run begins.

    Attributes:
        overrides: That fit it to the card, such as ``data.max_length=2048``.
        four_bit: Whether it is over a base in 4 bit.
        said: What the plan says of it.
    """

    overrides: list[str]
    four_bit: bool
    said: str


def files_at(data: str) -> list[Path]:
    """The files of a source, which come from the Hub if they must.

    Args:
        data: As at ``data.train``.

    Raises:
        AxtuneError: When nothing is there.
    """
    return [path for source in data_options([data]).train for path in files_of(source)]


def look_at(data: str, tokenizer: AxTokenizer) -> RowsFound:
    """Check rows, and find the tasks that they are made for.

    Args:
        data: As at ``data.train``.
        tokenizer: Of the model that is to learn them.

    Raises:
        AxtuneError: When nothing is there.
    """
    options = data_options([data], max_length=tokenizer.context)
    ledger, made = StatsBuilder(), dict.fromkeys(("cpt", "sft", "dpo", "kto"), 0)
    faults: list[Fault] = []
    for checked in check_rows(files_at(data), tokenizer, options):
        ledger.add(checked)
        if checked.refused:
            faults += checked.faults
        if task := _task_of(checked):
            made[task] += 1
    rows = {task: made[task] for task in sorted(made, key=lambda task: -made[task]) if made[task]}
    return RowsFound(ledger.account(), rows, faults)


def _task_of(checked: RowResult) -> str | None:
    for sample in checked.samples:
        if isinstance(sample, PairSample):
            return "dpo"
        if isinstance(sample, UnpairedSample):
            return "kto"
        return "cpt" if checked.document else "sft"
    return None


def start(
    task: str,
    known: Mapping[str, str],
    checkpoint: Checkpoint,
    tokenizer: AxTokenizer,
    card: str | None,
) -> Start:
    """What fits a task's run to a card: in 16 bit where that costs nothing, else in 4 bit.

    Args:
        task: Its name.
        known: Overrides of the shipped recipe, by key.
        checkpoint: Of the base.
        tokenizer: Of the base.
        card: That trains; None for this machine's CPU.

    Raises:
        AxtuneError: When there is no such task or card.
    """
    room = find_card(card).usable if card else free_memory()
    if room is None:
        return without_plan(card, "the free memory is not known.")
    given = [word for key, value in known.items() for word in shlex.split(as_override(key, value))]
    edits: Edits | None = None
    for four_bit in (False, True):
        recipe = load(shipped(task, four_bit=four_bit), given)
        search = Search(recipe, from_data(recipe, checkpoint, tokenizer), GPU if card else CPU)
        edits = search.fit(room)
        # A base in 4 bit costs less than leaving samples out, or the host's memory.
        if edits and not edits.left_out and not (_is_slow(edits.words) and not four_bit):
            break
    where = card or "this CPU"
    if edits is None:
        least = gigabytes(search.leanest[1].peak)
        return Start([], True, f"it does not fit {where}: it takes {least} at the least")
    lost = f", {edits.left_out:,} longer samples left out" if edits.left_out else ""
    said = f"{gigabytes(edits.plan.peak)} at the peak of {gigabytes(room)} of {where}{lost}"
    return Start(list(edits.words), four_bit, said)


def without_plan(card: str | None, why: str) -> Start:
    """How a run begins whose memory cannot be planned.

    Args:
        card: That trains; None for a CPU.
        why: A sentence.

    Raises:
        AxtuneError: When there is no such card.
    """
    four_bit = card is not None and find_card(card).gigabytes < _BASE_IN_BF16
    return Start([], four_bit, f"not planned: {why}")


def _is_slow(overrides: Sequence[str]) -> bool:
    return any(word.startswith(("offload", "quantization")) for word in overrides)


def this_card() -> str | None:
    """This machine's card, by a name that `find_card` knows, or its size; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    try:
        return find_card(torch.cuda.get_device_name()).name
    except AxtuneError:  # no card that is known by name
        return f"{torch.cuda.mem_get_info()[1] / GIB:.0f}GB"
