"""What a run begins with: tasks of rows, and edits that fit a card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny import write_rows

from axtune.checkpoint.locate import find
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.errors import AxtuneError
from axtune.plan.starting_point import look_at, start, this_card, without_plan

TEMPLATES = Path(__file__).parents[2] / "data_templates"
BASE = find("tiny-ax-4.0", weights=False)
TOKENIZER = load_tokenizer(BASE, learning=True)


def test_the_most_frequent_task_comes_first(tmp_path: Path) -> None:
    for name in ("chat.jsonl", "preference.jsonl"):
        (tmp_path / name).write_bytes((TEMPLATES / name).read_bytes())
    write_rows(tmp_path / "rows.jsonl", 40)
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    found = look_at(str(tmp_path), TOKENIZER)
    assert found.tasks == ["sft", "dpo"]
    assert [fault.code for fault in found.faults] == ["not-json"]
    assert found.account.rows_refused == 1
    (tmp_path / "none.jsonl").write_text("[]\n")
    assert look_at(str(tmp_path / "none.jsonl"), TOKENIZER).tasks == []


def test_a_card_that_holds_the_run_needs_no_edits(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 8)
    begun = start("sft", {"data.train": str(rows)}, BASE, TOKENIZER, "8GB")
    assert (begun.overrides, begun.four_bit) == ([], False)
    assert "of 8GB" in begun.said


def test_where_nothing_is_planned_a_small_card_takes_4_bits() -> None:
    assert without_plan("8GB", "no checkpoint.").four_bit
    assert not without_plan("24GB", "no checkpoint.").four_bit
    assert not without_plan(None, "no checkpoint.").four_bit
    with pytest.raises(AxtuneError, match="no known card"):
        without_plan("RTX 9999", "no checkpoint.")


def test_the_card_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert this_card() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1, 48 << 30))
    for name, known in (("NVIDIA GeForce RTX 3060", "RTX 3060 12GB"), ("A card of 2030", "48GB")):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        assert this_card() == known
