"""A cache with room holds what transformers' own holds."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from axtune.evaluate import growing_cache as room
from axtune.evaluate.growing_cache import growing_cache, held


def states(rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 2, tokens, 4), torch.randn(rows, 2, tokens, 4)


def test_it_holds_what_is_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_STEP", 3)
    ours, theirs = growing_cache(), DynamicCache()
    for tokens in (5, 1, 1, 1, 1, 7, 1):
        for layer in (0, 1):
            new = states(4, tokens)
            for mine, other in zip(
                ours.update(*new, layer), theirs.update(*new, layer), strict=True
            ):
                assert torch.equal(mine, other)
    assert ours.get_seq_length() == theirs.get_seq_length() == 17
    shapes = [[tuple(side.shape) for side in layer] for layer in held(ours)]
    assert shapes == [[(4, 2, 17, 4)] * 2] * 2
    kept = torch.tensor([3, 1])
    for cache in (ours, theirs):
        cache.batch_select_indices(kept)
    for _ in range(5):
        new = states(2, 1)
        for mine, other in zip(ours.update(*new, 1), theirs.update(*new, 1), strict=True):
            assert torch.equal(mine, other)


def test_a_token_does_not_copy_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_STEP", 3)
    cache = growing_cache()
    at = []
    for tokens in (5, 1, 1, 1, 1):
        keys, _ = cache.update(*states(1, tokens), 0)
        at.append(keys.data_ptr())
    assert at[0] == at[1] == at[2] == at[3] != at[4]
