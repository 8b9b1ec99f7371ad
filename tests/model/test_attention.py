from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from support.tiny import LIBRARY_WARNINGS, checkpoint

from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.errors import AxtuneError
from axtune.model.adapter import add_adapter
from axtune.model.attention import for_flash_attention, install
from axtune.model.load import load_model
from axtune.training.collators import PackedRows, collate_packs

pytestmark = LIBRARY_WARNINGS


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
    return {"input_ids": ids, "labels": ids, "place": [0, seed]}


def packed(rows):
    return collate_packs([PackedRows(Dataset.from_list(rows), [range(len(rows))])[0]])


def logits(model, rows):
    batch = packed(rows)
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
    batch = packed(rows)
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
