"""Every row of a recipe's data, and the account that its run would have: nothing is written."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.recipe import Recipe, Source
from axtune.data.dataset import training_checker
from axtune.data.epoch import draw
from axtune.data.pipeline import RowChecker
from axtune.data.sources import files_of
from axtune.data.statistics import DatasetStats, RowResult, StatsBuilder

Tell = Callable[[RowResult], None]


def check_recipe(
    recipe: Recipe, tokenizer: AxTokenizer, tell: Tell
) -> tuple[DatasetStats, DatasetStats | None]:
    """Check a recipe's training rows and held-out rows as its run does.

    Args:
        recipe: Its data section says what to read.
        tokenizer: The checkpoint's.
        tell: Called with each row.

    Returns:
        Where the training rows went, with what each source has of an epoch, and where the held-out
        rows did. Where no row can be used there is no epoch.

    Raises:
        DataError: When the recipe leaves nothing to train on, or too few rows to hold some out.
        AxtuneError: When a path is not there.
    """
    data = recipe.data
    checker = training_checker(recipe, tokenizer)
    ledger, counts, keys = _read(data.sources, checker, tell)
    checker.overlaps = None  # held-out rows are not held against each other
    held = None
    if isinstance(data.eval, list):
        held = _read(data.eval, checker, tell)[0].account()
    if not len(ledger.row):
        return ledger.account(), held
    epoch = draw(recipe, ledger, counts, keys)
    return epoch.account, epoch.eval_account or held


def _read(
    sources: Sequence[Source], checker: RowChecker, tell: Tell
) -> tuple[StatsBuilder, list[int], array[int]]:
    """The rows of some sources: all of them, how many each source has, and their keys."""
    ledger, counts, keys = StatsBuilder(), [], array("Q")
    for files in [files_of(source) for source in sources]:  # a wrong path fails at once
        before = ledger.rows_read
        for checked in checker.stream(files):
            ledger.add(checked)
            keys.append(checked.key)
            tell(checked)
        counts.append(ledger.rows_read - before)
    return ledger, counts, keys
