"""A recipe's data are checked as its run reads them, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.rows import chat, write_jsonl
from support.tiny import recipe

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.recipe_check import check_recipe
from axtune.data.statistics import RowResult
from axtune.errors import AxtuneError


def test_held_out_rows_are_checked_too(tiny: AxTokenizer, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "a.jsonl", [chat(f"질문 {n}", f"답 {n}") for n in range(4)])
    held = write_jsonl(tmp_path / "b.jsonl", [chat("질문 1", "답 1"), {"messages": []}])
    job = recipe(tmp_path, data={"train": str(train), "eval": str(held)})
    seen: list[RowResult] = []
    before = sorted(tmp_path.iterdir())
    account, eval_account = check_recipe(job, tiny, seen.append)
    assert sorted(tmp_path.iterdir()) == before
    assert eval_account is not None
    assert (account.rows_used, eval_account.rows_used, eval_account.rows_refused) == (4, 1, 1)
    assert [row.file for row in seen] == [str(train)] * 4 + [str(held)] * 2
    assert [fault.code for fault in seen[4].faults] == ["duplicate"]  # it is trained on


def test_where_no_row_can_be_used_there_is_no_epoch(tiny: AxTokenizer, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "a.jsonl", [{"messages": []}])
    job = recipe(tmp_path, data={"train": str(train)})
    account, _ = check_recipe(job, tiny, lambda _: None)
    assert (account.rows_refused, account.mixture) == (1, [])
    with pytest.raises(AxtuneError, match="gone"):
        check_recipe(recipe(tmp_path, data={"train": str(tmp_path / "gone")}), tiny, print)
