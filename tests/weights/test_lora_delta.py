"""What an adapter does to a base: its scales, and what cannot be merged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from support.adapters import (
    adapter_for,
    in_float32,
    sharded_checkpoint,
)
from support.tiny import LIBRARY_WARNINGS

from axtune.checkpoint.locate import Checkpoint
from axtune.errors import AxtuneError
from axtune.weights.lora_delta import SavedAdapter, open_adapter
from axtune.weights.merge import merge, plan

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


def without_a_layer(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    kept = {name: t for name, t in load_file(file).items() if "1.mlp.down_proj" not in name}
    save_file(kept, file)


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
        (break_shape, "does not fit .*: its LoRA of .* has shapes"),
        (break_numbers, "up_proj.* holds numbers that are not finite"),
        (overflow, "would hold numbers that are not finite in bfloat16"),
        (half, "has one half of"),
        (without_a_layer, "lacks 2 of the tensors .*, model.layers.1.mlp.down_proj.lora_A.weight"),
        (configure(target_modules=["q_proj"]), "down_proj.* and 23 more .* does not declare"),
        (configure(target_modules=["nosuch"]), "does not declare"),
        (configure(exclude_modules=["q_proj"]), "q_proj.* which .* does not declare"),
        (configure(bias="lora_only"), "lacks 6 of the tensors .*bias"),
        (configure(modules_to_save=["lm_head"]), "lacks 1 of the tensors .*lm_head.weight"),
        (configure(layers_to_transform=[0]), "layers.1.* which .* does not declare"),
        (configure(lora_bias=True), "lacks 14 of the tensors"),
        (configure(lora_alpha=-8), "lora_alpha: input should be greater than 0"),
        (stranger, "holds .*qkv_proj.* and 3 more tensors, which .* has no place for"),
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
        ([lora], [1.0, 2.0], "2 weights for 1 adapter; expected one for each"),
        ([lora], [float("nan")], "not a finite number"),
    ):
        with pytest.raises(AxtuneError, match=message):
            merge(adapters, str(base.folder), tmp_path / "out", weights=weights)


def opened(folder: Path, **config: Any) -> SavedAdapter:
    values = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    save_file(
        {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.zeros(4, 8)},
        folder / "adapter_model.safetensors",
    )
    return open_adapter(folder)


UP = "model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("config", "rank", "scale"),
    [
        ({}, 4, 2.0),
        ({"use_rslora": True}, 4, 4.0),
        ({"rank_pattern": {"up_proj": 16}}, 16, 0.5),
        ({"rank_pattern": {"down_proj": 16}}, 4, 2.0),
        ({"rank_pattern": {"up_proj": 16}, "use_rslora": True}, 16, 2.0),
        ({"alpha_pattern": {r".*\.0\.mlp\.up_proj": 32}}, 4, 8.0),
        ({"rank_pattern": {"up_proj": 2}, "alpha_pattern": {"up_proj": 3}}, 2, 1.5),
    ],
    ids=str,
)
def test_the_rank_and_scale_of_a_module(
    config: dict[str, Any], rank: int, scale: float, tmp_path: Path
) -> None:
    adapter = opened(tmp_path, **config)
    assert (adapter.rank(UP), adapter.scale(UP)) == (rank, scale)


def test_scales_are_those_of_peft(base: Checkpoint, tmp_path: Path) -> None:
    patterns = {
        "rank_pattern": {"q_proj": 3, r"layers\.1\.mlp\.up_proj": 6},
        "alpha_pattern": {"mlp.up_proj": 7, r"^model\.layers\.0\.self_attn\.k_proj": 5},
    }
    options = {"r": 4, "lora_alpha": 8, "use_rslora": True, **patterns}
    adapter = open_adapter(adapter_for(base, tmp_path / "adapter", **options))
    model = PeftModel.from_pretrained(in_float32(base.folder), str(adapter.folder))
    theirs = {
        name.removeprefix("base_model.model."): (module.r["default"], module.scaling["default"])
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert len(set(theirs.values())) > 3
    for module, (rank, scale) in theirs.items():
        assert adapter.rank(module) == rank
        assert adapter.scale(module) == pytest.approx(scale)


def test_names_are_those_of_the_base(tmp_path: Path) -> None:
    assert list(opened(tmp_path).tensors) == [f"{UP}.lora_A.weight"]


def test_layers_whose_b_is_0_are_not_changed(base: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    change_tensors(adapter, lambda name, tensor: tensor * ("q_proj" not in name))
    assert plan([adapter], str(base.folder)).changed == 12
    assert not open_adapter(adapter).adds_nothing
    change_tensors(adapter, lambda name, tensor: tensor * ("lora_B" not in name))
    assert open_adapter(adapter).adds_nothing
    planned = plan([adapter], str(base.folder))
    assert planned.changed == 0
    assert planned.notes == (f"{adapter} adds nothing to the base: its B is 0 in every layer.",)
