"""What an adapter does to a base: its scales, and what cannot be merged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.adapters import (
    adapter_for,
    sharded_checkpoint,
)
from support.tiny import LIBRARY_WARNINGS

from axtune.checkpoint.catalog import Checkpoint
from axtune.errors import AxtuneError
from axtune.weights.merge import merge

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


def break_shape(adapter: Path) -> None:
    change_tensors(adapter, lambda name, tensor: tensor[:, :32] if "lora_A" in name else tensor)


def break_numbers(adapter: Path) -> None:
    change_tensors(adapter, lambda name, tensor: tensor / 0 if "1.mlp.up_proj" in name else tensor)


def overflow(adapter: Path) -> None:
    change_tensors(adapter, lambda name, tensor: tensor * 1e20)


def half(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if "q_proj.lora_B" not in name}
    save_file(kept, file)


def stranger(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    renamed = {name.replace("q_proj", "qkv_proj"): t for name, t in load_file(file).items()}
    save_file(renamed, file)


def change_tensors(adapter: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = {name: change(name, tensor) for name, tensor in load_file(file).items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def configure(**values: Any) -> Callable[[Path], None]:
    def change(adapter: Path) -> None:
        file = adapter / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_shape, "of another base: its LoRA of .* has shapes"),
        (break_numbers, "up_proj.* holds numbers that are not finite"),
        (overflow, "would hold numbers that are not finite in bfloat16"),
        (half, "has only one half of"),
        (stranger, "another base: it changes .*qkv_proj, which the base lacks, and"),
        (configure(r=5), "has shapes"),
        (configure(peft_type="IA3"), "is a IA3 adapter"),
        (configure(init_lora_weights="pissa_niter_4"), "initialised with pissa_niter_4"),
        (configure(use_dora=True), "use_dora and the tensors of"),
        (configure(layer_replication=[[0, 2]]), "uses layer_replication"),
        (lambda adapter: (adapter / "adapter_config.json").unlink(), "is not an adapter"),
        (lambda adapter: (adapter / "adapter_model.safetensors").unlink(), "lacks adapter_model"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused(
    damage: Callable[[Path], None], message: str, base: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    damage(adapter)
    with pytest.raises(AxtuneError, match=message):
        merge([adapter], str(base.folder), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_dora_and_replaced_tensors_have_no_sum(base: Checkpoint, tmp_path: Path) -> None:
    lora = adapter_for(base, tmp_path / "lora")
    dora = adapter_for(base, tmp_path / "dora", use_dora=True)
    saved = adapter_for(base, tmp_path / "saved", modules_to_save=["lm_head"])
    head = adapter_for(base, tmp_path / "head", target_modules=["lm_head"])
    embedded = adapter_for(
        base, tmp_path / "embedded", target_modules=["embed_tokens"], use_dora=True
    )
    for adapters, weights, message in (
        ([lora, dora], None, "is a DoRA"),
        ([dora], [0.5], "is a DoRA"),
        ([saved], [0.5], "has no weight 0.5"),
        ([saved, saved], None, "Two of the adapters change lm_head.weight"),
        ([saved, head], None, "Two of the adapters change lm_head.weight"),
        ([head, saved], None, "Two of the adapters change lm_head.weight"),
        ([embedded], None, "uses DoRA on embeddings"),
        ([lora], [1.0, 2.0], "1 adapters have 2 weights"),
        ([lora], [float("nan")], "not a finite number"),
    ):
        with pytest.raises(AxtuneError, match=message):
            merge(adapters, str(base.folder), tmp_path / "out", weights=weights)
