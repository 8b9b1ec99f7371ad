"""Packs as rows, and the one sequence that they become."""

from __future__ import annotations

import pytest
from datasets import Dataset

from axtune.training.collators import PackedRows, collate_packs

ROWS = [
    {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8], "place": [0, 1]},
    {"input_ids": [9, 3], "labels": [9, 3], "place": [0, 2]},
    {"input_ids": [4], "labels": [-100], "place": [1, 1]},
]


def test_a_pack_is_its_samples_one_after_the_other():
    packs = PackedRows(Dataset.from_list(ROWS), [[1, 0], [2]])
    batch = collate_packs([packs[0], packs[1]])
    assert batch["input_ids"].tolist() == [[9, 3, 5, 6, 7, 8, 4]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2, 3, 0]]
    assert batch["lengths"].tolist() == [2, 4, 1]
    assert batch["labels"].tolist() == [[9, 3, -100, -100, 7, 8, -100]]


def test_a_first_token_is_not_learned_from_the_sample_before_it():
    labels = collate_packs([PackedRows(Dataset.from_list(ROWS), [[0, 1]])[0]])["labels"]
    assert labels.tolist() == [[-100, -100, 7, 8, -100, 3]]


def test_a_row_that_does_not_say_where_its_samples_end_is_not_guessed_at():
    with pytest.raises(KeyError, match="lengths"):
        collate_packs([{"input_ids": [5, 6], "labels": [5, 6]}])
