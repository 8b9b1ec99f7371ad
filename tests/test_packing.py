from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from tiny import LIBRARY_WARNINGS, checkpoint

from axtune.adapter import add_adapter
from axtune.errors import AxtuneError
from axtune.model import load_model
from axtune.packing import Packs, arrange, collate, for_flash_attention, install
from axtune.tokenizer import load_tokenizer

pytestmark = LIBRARY_WARNINGS

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


ROWS = [
    {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]},
    {"input_ids": [9, 3], "labels": [9, 3]},
    {"input_ids": [4], "labels": [-100]},
]


def test_a_pack_is_its_samples_one_after_the_other():
    batch = collate([Packs(Dataset.from_list(ROWS), [[1, 0], [2]])[0], ROWS[2]])
    assert batch["input_ids"].tolist() == [[9, 3, 5, 6, 7, 8, 4]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2, 3, 0]]
    assert batch["lengths"].tolist() == [2, 4, 1]
    assert batch["labels"].tolist() == [[9, 3, -100, -100, 7, 8, -100]]


def test_a_first_token_is_not_learned_from_the_sample_before_it():
    labels = collate([ROWS[0], ROWS[1]])["labels"]
    assert labels.tolist() == [[-100, -100, 7, 8, -100, 3]]


def test_flash_attention_is_told_where_samples_end():
    told = for_flash_attention(torch.tensor([2, 4, 1]))
    assert told["cu_seq_lens_q"].tolist() == told["cu_seq_lens_k"].tolist() == [0, 2, 6, 7]
    assert told["cu_seq_lens_q"].dtype == torch.int32
    assert told["max_length_q"] == told["max_length_k"] == 4


@pytest.fixture(scope="module", params=["4.0", "3.1"])
def model(request, tmp_path_factory):
    base = checkpoint(tmp_path_factory.mktemp("base") / "m", request.param)
    loaded = load_model(base, load_tokenizer(base), precision="fp32")
    install(loaded)
    return loaded


def sample(seed: int, length: int) -> dict[str, list[int]]:
    ids = torch.randint(50, 500, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return {"input_ids": ids, "labels": ids}


def logits(model, rows):
    batch = collate(rows)
    with torch.no_grad():
        return model(
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            documents=batch["lengths"].tolist(),
        ).logits[0]


def test_no_token_sees_another_sample(model):
    first, second, third = sample(0, 7), sample(1, 12), sample(2, 1)
    together = logits(model, [first, second, third])
    other = logits(model, [sample(3, 7), second, sample(4, 1)])
    assert torch.equal(together[7:19], other[7:19])
    assert not torch.allclose(together[:7], other[:7], atol=1e-3)
    alone = logits(model, [second])
    torch.testing.assert_close(together[7:19], alone, atol=1e-5, rtol=1e-5)
    # And within a sample a change is seen, from its place on: the test can fail.
    changed = {**second, "input_ids": [*second["input_ids"][:5], 499, *second["input_ids"][6:]]}
    moved = logits(model, [first, changed, third])
    torch.testing.assert_close(moved[7:12], together[7:12], atol=1e-5, rtol=1e-5)
    assert (moved[12:19] - together[12:19]).abs().amax(dim=1).min() > 1e-4
    assert torch.equal(moved[19:], together[19:])


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_a_mask_that_transformers_makes_separates_as_well(model, kernel):
    """The kernels that axtune has no attention of its own for (flex attention works likewise)."""
    rows = [sample(0, 7), sample(1, 12), sample(2, 1)]
    ours = logits(model, rows)
    batch = collate(rows)
    before = model.config._attn_implementation
    model.set_attn_implementation(kernel)
    with torch.no_grad():
        theirs = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits[0]
    model.set_attn_implementation(before)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_layers_that_do_not_attend_to_all_are_refused(tmp_path):
    base = checkpoint(tmp_path / "m")
    loaded = load_model(base, load_tokenizer(base), precision="fp32")
    loaded.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(AxtuneError, match=r"(?s)sliding_attention.*data\.packing=false"):
        install(add_adapter(loaded, {}, seed=0).model.get_base_model())
