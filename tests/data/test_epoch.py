"""What an epoch is made of: the same rows are held out and drawn from the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.rows import chat, write_jsonl
from support.tiny import recipe

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.epoch import draw
from axtune.data.pipeline import RowChecker
from axtune.data.statistics import StatsBuilder
from axtune.errors import DataError


def read(tiny: AxTokenizer, file: Path, job: object) -> tuple[StatsBuilder, list[int]]:
    ledger, keys = StatsBuilder(), []
    for checked in RowChecker(tiny, job.data).stream([file]):  # type: ignore[attr-defined]
        ledger.add(checked)
        keys.append(checked.key)
    return ledger, keys


def test_held_out_and_trained_rows_are_all_and_part(tiny: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [chat(f"질문 {n}", f"답 {n}") for n in range(20)])
    job = recipe(tmp_path, data={"train": {"path": str(file), "weight": 1.5}, "eval": 0.2})
    ledger, keys = read(tiny, file, job)
    epoch = draw(job, ledger, [20], keys)
    assert len(epoch.held_out) == 4
    assert {*epoch.train, *epoch.held_out} == set(range(20))
    assert not {*epoch.train} & {*epoch.held_out}
    assert epoch.eval_account is not None
    assert (epoch.account.rows_read, epoch.eval_account.rows_read) == (16, 4)
    (part,) = epoch.account.mixture
    assert (part["read"], part["rows"], part["asked"]) == (20, 16, "weight 1.5")
    again = draw(job, ledger, [20], keys)
    assert np.array_equal(again.train, epoch.train)
    assert np.array_equal(again.held_out, epoch.held_out)


def test_nothing_to_train_on_says_why(tiny: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"messages": []}])
    job = recipe(tmp_path, data={"train": str(file)})
    ledger, keys = read(tiny, file, job)
    with pytest.raises(DataError, match="of 1 rows"):
        draw(job, ledger, [1], keys)
    with pytest.raises(DataError, match="hold no rows"):
        draw(job, StatsBuilder(), [0], [])
