"""A model read layer by layer computes what transformers and PEFT compute with all of it loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from support.adapters import PROJECTIONS, adapter_for, in_float32, sharded_checkpoint
from support.tiny import LIBRARY_WARNINGS

from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.errors import AxtuneError, CheckpointError
from axtune.model.load import load_model
from axtune.verify.layerwise import Layerwise
from axtune.weights.nf4 import four_bit

pytestmark = LIBRARY_WARNINGS

PROMPTS = [[25, 8, 2000, 27], [25, 8, 61, 2475, 384, 539, 27, 25, 10], [7]]
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "pissa kept": {"use_rslora": True, "rank_pattern": {"q_proj": 3}},
    "modules to save": {"modules_to_save": ["lm_head", "input_layernorm", "embed_tokens"]},
    "token rows": {"trainable_token_indices": [3, 25, 2000]},
    "embedding lora": {"target_modules": [*PROJECTIONS, "embed_tokens", "lm_head"]},
}


@pytest.fixture(scope="module", params=["4.0", "3.1"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model", request.param)


def whole(model: torch.nn.Module) -> torch.Tensor:
    """The logits of all prompts, one after the other, from a model that is in memory."""
    with torch.no_grad():
        return torch.cat([model(torch.tensor([prompt])).logits[0] for prompt in PROMPTS])


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_loaded_model(base: Checkpoint, kind: str, tmp_path: Path) -> None:
    adapter = adapter_for(base, tmp_path / "adapter", **KINDS[kind])
    loaded = PeftModel.from_pretrained(in_float32(base.folder), str(adapter)).eval()
    streamed = Layerwise(base, adapter)
    torch.testing.assert_close(streamed.read(PROMPTS).logits, whole(loaded), rtol=0, atol=2e-4)
    alone = streamed.without_adapter(PROMPTS)
    torch.testing.assert_close(alone, whole(in_float32(base.folder)), rtol=0, atol=2e-4)
    assert (alone - streamed.read(PROMPTS).logits).abs().max() > 1e-2


def test_greedy_text_is_that_of_generate(base: Checkpoint) -> None:
    model = in_float32(base.folder)
    found = Layerwise(base).read(PROMPTS, new_tokens=10)
    for prompt, greedy, margins in zip(PROMPTS, found.greedy, found.margins, strict=True):
        with torch.no_grad():
            out = model.generate(
                torch.tensor([prompt]), max_new_tokens=10, do_sample=False, eos_token_id=None
            )
        assert greedy == out[0, len(prompt) :].tolist()
        assert len(margins) == 10
        assert min(margins) >= 0


def test_no_weights_stay_in_memory(base: Checkpoint) -> None:
    streamed = Layerwise(base)
    streamed.read(PROMPTS)
    held = {p.untyped_storage().data_ptr() for p in streamed.model.parameters()}
    assert len(held) == 1  # all stand on the same single number


def test_four_bit_weights_are_those_that_training_loads(base: Checkpoint) -> None:
    settings: dict[str, Any] = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "float32",
    }
    loaded = whole(load_model(base, load_tokenizer(base), precision="fp32", quantization=settings))
    streamed = Layerwise(base, four_bit=four_bit(settings, "fp32")).read(PROMPTS).logits
    # bitsandbytes multiplies on a CPU in less than float32.
    torch.testing.assert_close(streamed, loaded, rtol=0, atol=5e-3)
    plain = Layerwise(base).read(PROMPTS).logits
    assert (streamed - loaded).norm() < (plain - loaded).norm() / 20


def test_an_adapter_that_does_not_fit(base: Checkpoint, tmp_path: Path) -> None:
    other = sharded_checkpoint(tmp_path / "other", "4.0")
    adapter = adapter_for(other, tmp_path / "adapter")
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 8'))
    with pytest.raises(AxtuneError, match="does not fit the base: size mismatch of"):
        Layerwise(base, adapter)


def test_a_missing_tensor_is_named(base: Checkpoint) -> None:
    streamed = Layerwise(base)
    del streamed._stored["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(CheckpointError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        streamed.read(PROMPTS)
