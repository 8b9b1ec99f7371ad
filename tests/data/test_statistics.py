"""Sums over checked rows, counted again from the samples themselves."""

from __future__ import annotations

import numpy as np
import pytest
from support.rows import TEMPLATES, chat, check_rows, read_jsonl

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.samples import PairSample, Sample, UnpairedSample
from axtune.data.statistics import DatasetStats, RowResult, StatsBuilder

ROWS = [
    chat("q", "a"),
    {"prompt": "q", "chosen": "네, 됩니다.", "rejected": "아니요"},
    {"prompt": "질문", "completion": "네", "label": True},
    {"prompt": "질문", "completion": "글쎄요", "label": False},
    {"prompt": "q", "chosen": "a", "rejected": "a"},
    chat("q", "<think>x</think>a", "r", "b"),
]


def ledger_of(checked: list[RowResult]) -> StatsBuilder:
    ledger = StatsBuilder()
    for row in checked:
        ledger.add(row)
    return ledger


def test_an_account_of_all_kinds_of_rows(tiny: AxTokenizer) -> None:
    checked = check_rows(tiny, ROWS)
    account = ledger_of(checked).account()
    samples = [sample for row in checked for sample in row.samples]
    kinds = [type(sample) for sample in samples]
    assert kinds == [Sample, PairSample, UnpairedSample, UnpairedSample, Sample, Sample]
    first, pair, wanted, unwanted, *rest = samples
    assert (account.rows_read, account.rows_used, account.rows_refused) == (6, 5, 1)
    assert account.samples == 6
    whole = sum(len(sample.input_ids) for sample in (first, *rest))
    prompts = sum(len(sample.prompt_ids) for sample in (pair, wanted, unwanted))
    answers = [pair.chosen_ids, pair.rejected_ids, wanted.completion_ids, unwanted.completion_ids]
    assert account.prompt_tokens == prompts
    assert account.tokens == whole + prompts + sum(map(len, answers))
    assert account.labelled_tokens == sum(map(len, answers)) + sum(
        len(sample.labels) - sample.labels.count(-100) for sample in (first, *rest)
    )
    names = ("chosen", "rejected", "desirable", "undesirable")
    assert account.answers == {
        name: {"answers": 1, "tokens": len(ids)} for name, ids in zip(names, answers, strict=True)
    }
    assert account.lengths["max"] == max(sample.length for sample in samples)
    assert sum(account.histogram) == account.samples
    assert DatasetStats(**account.to_json()) == account


@pytest.mark.parametrize("file", ["preference.jsonl", "unpaired.jsonl", "chat.jsonl"])
def test_repeated_and_left_out_samples(tiny: AxTokenizer, file: str) -> None:
    checked = check_rows(tiny, read_jsonl(TEMPLATES / file))
    part = ledger_of([checked[0], checked[0], checked[3]]).account()
    account = ledger_of(checked).account(np.array([0, 0, 3]), 5)
    assert (account.samples, account.rows_used, account.rows_left_out) == (3, 2, 3)
    for name in ("tokens", "labelled_tokens", "prompt_tokens", "answers", "lengths", "histogram"):
        assert getattr(account, name) == getattr(part, name)


def test_the_prompt_of_a_pair_counts_once(tiny: AxTokenizer) -> None:
    rows = read_jsonl(TEMPLATES / "preference.jsonl")
    pairs = ledger_of(check_rows(tiny, rows, task="dpo")).account()
    apart = ledger_of(check_rows(tiny, rows, task="kto")).account()
    assert (pairs.samples, apart.samples) == (len(rows), 2 * len(rows))
    assert apart.prompt_tokens == 2 * pairs.prompt_tokens
    assert apart.labelled_tokens == pairs.labelled_tokens
    assert apart.answers["desirable"] == pairs.answers["chosen"]
    assert apart.answers["undesirable"] == pairs.answers["rejected"]
    assert apart.lengths["max"] == pairs.lengths["max"]


def test_an_empty_account() -> None:
    account = StatsBuilder().account()
    assert (account.tokens, account.answers, account.lengths) == (0, {}, {})


def test_lengths_are_counted_in_twentieths_of_the_longest() -> None:
    ledger = StatsBuilder()
    for length in (1, 5, 6, 100):
        sample = Sample([7] * length, [7] * length)
        ledger.add(RowResult("rows.jsonl", 1, [sample]))
    counts = ledger.account().histogram
    assert (len(counts), counts[0], counts[1], counts[-1]) == (20, 1, 2, 1)
    assert StatsBuilder().account().histogram == []
