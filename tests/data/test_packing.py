from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.data.packing import arrange

many_lengths = st.lists(st.integers(1, 300), min_size=1, max_size=200)


@given(many_lengths, st.integers(1, 8), st.integers(1, 8), st.integers(1, 3))
def test_every_sample_is_in_one_pack_and_no_pack_is_too_long(lengths, batch, accumulation, procs):
    numbers = np.array(lengths)
    packing = arrange(
        numbers, batch_size=batch, accumulation=accumulation, max_length=300, processes=procs
    )
    assert sorted(index for pack in packing.packs for index in pack) == list(range(len(lengths)))
    longest = max(int(numbers[pack].sum()) for pack in packing.packs)
    assert longest == packing.longest <= batch * 300
    assert packing.tokens == sum(lengths)
    assert 0 < packing.filled <= 1
    assert 0 <= packing.padding < 1


def test_a_step_learns_from_as_many_samples_as_the_recipe_says():
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 900, 2000)
    for batch, accumulation in ((1, 16), (4, 4), (8, 1)):
        packing = arrange(lengths, batch_size=batch, accumulation=accumulation, max_length=1024)
        steps = len(packing.packs) / packing.per_step
        assert len(lengths) / steps == pytest.approx(16 if batch < 8 else 8, rel=0.02)
        assert packing.unpacked == 2000 // batch
    alone = arrange(lengths, batch_size=1, accumulation=16, max_length=1024)
    assert alone.per_step == 8  # 16 samples of 475 tokens, 1,024 to a pass
    assert alone.padding == 0
    shared = arrange(lengths, batch_size=1, accumulation=16, max_length=1024, processes=2)
    assert shared == alone  # the same packs, dealt out to two


def test_slots_are_filled_over_the_whole_data_set():
    lengths = np.random.default_rng(1).lognormal(6, 0.8, 3000).clip(20, 4096).astype(int)
    packing = arrange(lengths, batch_size=4, accumulation=4, max_length=4096)
    assert packing.filled > 0.99
    assert packing.padding > 0.3


def test_one_long_sample_leaves_the_others_packs_as_they_were():
    lengths = np.full(200, 100)
    without = arrange(lengths, batch_size=2, accumulation=2, max_length=4096)
    lengths[7] = 4000
    packing = arrange(lengths, batch_size=2, accumulation=2, max_length=4096)
    assert [7] in packing.packs
    assert packing.longest == 4000
    assert len(packing.packs) == pytest.approx(len(without.packs), rel=0.2)
    assert packing.filled > 0.97


def test_the_order_is_the_seeds():
    lengths = np.full(64, 10)
    packs = [
        arrange(lengths, batch_size=4, accumulation=1, max_length=40, seed=seed).packs
        for seed in (0, 0, 1)
    ]
    assert packs[0] == packs[1] != packs[2]
