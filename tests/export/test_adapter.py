"""Adapters for vLLM's --enable-lora: the run's own numbers, or a refusal with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from support.adapters import adapter_for, in_float32, logits, run_with, sharded_checkpoint
from support.tiny import LIBRARY_WARNINGS

from axtune.checkpoint.locate import Checkpoint
from axtune.errors import AxtuneError
from axtune.export.export import export

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


def test_an_adapter_goes_out_as_it_is(base: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_for(base, tmp_path / "adapter", use_rslora=True)
    run = run_with(adapter, base, tmp_path / "run")
    out = tmp_path / "mine"
    exported = export(run, out, to="adapter")
    name = "adapter_model.safetensors"
    assert (out / name).read_bytes() == (adapter / name).read_bytes()
    assert not (out / "tokenizer.json").exists()  # the served base's is the right one
    assert exported.command is not None
    assert f"--enable-lora --max-lora-rank 8 --lora-modules mine={out}" in exported.command
    assert "--max-model-len 512" in exported.command
    assert exported.command in (out / "SERVING.md").read_text()


def test_ranks_and_scales_of_an_adapter_become_uniform(base: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_for(
        base,
        tmp_path / "adapter",
        rank_pattern={"q_proj": 9},
        alpha_pattern={"down_proj": 5},
    )
    export(adapter, tmp_path / "out", to="adapter")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (9, 9)
    assert not config["rank_pattern"]
    assert not config["alpha_pattern"]
    expected, ours = (
        logits(PeftModel.from_pretrained(in_float32(base.folder), str(folder)))
        for folder in (adapter, tmp_path / "out")
    )
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "cannot load an adapter with DoRA"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save \(lm_head\)"),
        ({"trainable_token_indices": [3]}, "trained model.embed_tokens"),
        ({"target_modules": ["q_proj", "lm_head"]}, "trained lm_head.lora_A"),
        ({"target_modules": ["q_proj"], "lora_bias": True}, "trained .*lora_B.bias"),
    ],
)
def test_an_adapter_that_vllm_cannot_load_is_refused(
    options: dict[str, Any], message: str, base: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter", **options)
    with pytest.raises(AxtuneError, match=message) as caught:
        export(adapter, tmp_path / "out", to="adapter")
    assert "axtune export" in caught.value.remedy
    assert not (tmp_path / "out").exists()
