"""Merging: every tensor is PEFT's float32 result rounded once, and a folder is whole or absent."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.adapters import (
    PROJECTIONS,
    adapter_for,
    in_float32,
    logits,
    run_with,
    sharded_checkpoint,
    tensors_of,
)
from support.tiny import LIBRARY_WARNINGS, checkpoint, recipe
from transformers import AutoConfig, AutoModelForCausalLM

from axtune.checkpoint import locate
from axtune.checkpoint.locate import TOKENIZER_FILES, Checkpoint
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.errors import AxtuneError, CheckpointError
from axtune.model.load import load_model
from axtune.run import train
from axtune.weights.merge import merge

pytestmark = LIBRARY_WARNINGS

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "odd scale": {"lora_alpha": 10, "r": 6},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora rslora": {"use_dora": True, "use_rslora": True, "lora_alpha": 5},
    "few modules": {"target_modules": ["q_proj", "v_proj"]},
    "patterns": {
        "rank_pattern": {"q_proj": 3, "layers.1.mlp.down_proj": 6},
        "alpha_pattern": {"k_proj": 20, ".*mlp.down_proj": 7},
    },
    "lora bias": {"target_modules": ["q_proj", "k_proj"], "lora_bias": True},
    "trained biases": {"bias": "all"},
    "modules to save": {"modules_to_save": ["lm_head", "input_layernorm"]},
    "whole embeddings": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "token rows": {"trainable_token_indices": [3, 2000, 3071]},
    "token rows of both": {"trainable_token_indices": {"embed_tokens": [3, 9], "lm_head": [4]}},
    "embedding lora": {"target_modules": [*PROJECTIONS, "embed_tokens", "lm_head"]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


def tied_checkpoint(folder: Path) -> Checkpoint:
    """A checkpoint in float32 whose head is its embedding."""
    config = {**checkpoint(folder).config, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    model.float().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    return locate.find(str(folder))


def reference(base: Checkpoint, *adapters: Path) -> dict[str, torch.Tensor]:
    """PEFT's merge in float32, rounded once to bfloat16."""
    model: Any = in_float32(base.folder)
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_the_float32_result_rounded_once(
    kind: str, base: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter", **KINDS[kind])
    written = merge([adapter], str(base.folder), tmp_path / "out")
    ours = tensors_of(tmp_path / "out")
    assert_equal(ours, reference(base, adapter))
    originals = tensors_of(base.folder)
    differing = [name for name in ours if not torch.equal(ours[name], originals[name])]
    assert 0 < len(differing) <= written.changed < len(ours) == written.tensors
    for name in ("model.safetensors.index.json", "config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_text() == (base.folder / name).read_text()
    for name in TOKENIZER_FILES:
        assert (tmp_path / "out" / name).is_file() == (base.folder / name).is_file()
        if (base.folder / name).is_file():
            assert (tmp_path / "out" / name).read_bytes() == (base.folder / name).read_bytes()
    assert locate.find(str(tmp_path / "out")).generation_config["eos_token_id"] == 27
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "out"]


def test_adapters_are_added_in_order_with_their_weights(base: Checkpoint, tmp_path: Path) -> None:
    one = adapter_for(base, tmp_path / "one", seed=1)
    two = adapter_for(base, tmp_path / "two", seed=2, r=3, target_modules=["q_proj", "up_proj"])
    merge([one, two], str(base.folder), tmp_path / "sum")
    assert_equal(tensors_of(tmp_path / "sum"), reference(base, one, two))

    merge([one, two], str(base.folder), tmp_path / "weighted", weights=[0.5, -0.25])
    for folder, weight in ((one, 0.5), (two, -0.25)):  # alpha is a factor of the delta, as weight
        config = json.loads((folder / "adapter_config.json").read_text())
        config["lora_alpha"] *= weight
        (folder / "adapter_config.json").write_text(json.dumps(config))
    assert_equal(tensors_of(tmp_path / "weighted"), reference(base, one, two))


@pytest.mark.parametrize("kind", ["head", "embeddings", "both", "token rows", "lora"])
def test_tied_weights_part_where_the_adapter_parts_them(kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "head": {"modules_to_save": ["lm_head"]},
        "embeddings": {"modules_to_save": ["embed_tokens"]},
        "both": {"modules_to_save": ["embed_tokens", "lm_head"]},
        "token rows": {"trainable_token_indices": [3, 2000]},
        "lora": {"target_modules": ["q_proj", "embed_tokens"]},
    }[kind]
    tied = tied_checkpoint(tmp_path / "base")
    assert "lm_head.weight" not in tensors_of(tied.folder)
    adapter = adapter_for(tied, tmp_path / "adapter", **options)
    merge([adapter], str(tied.folder), tmp_path / "out")
    expected = logits(PeftModel.from_pretrained(in_float32(tied.folder), str(adapter)))
    torch.testing.assert_close(logits(in_float32(tmp_path / "out")), expected, atol=1e-5, rtol=1e-5)
    parted = json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"]
    assert parted is (kind == "token rows")


def test_new_tokens_bring_their_embeddings_and_tokenizer(base: Checkpoint, tmp_path: Path) -> None:
    model = in_float32(base.folder)
    model.resize_token_embeddings(3080)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"]))
    adapter = tmp_path / "adapter"
    model.save_pretrained(adapter, save_embedding_layers=True)
    merge([adapter], str(base.folder), tmp_path / "padded")  # rows, but no tokens for them
    assert locate.find(str(tmp_path / "padded")).config["vocab_size"] == 3080
    assert logits(in_float32(tmp_path / "padded")).shape[-1] == 3080

    tokenizer = json.loads((base.folder / "tokenizer.json").read_text())
    entry = {**tokenizer["added_tokens"][-1], "content": "<새말>", "id": 3072}
    tokenizer["added_tokens"].append(entry)
    (adapter / "tokenizer.json").write_text(json.dumps(tokenizer))
    shutil.copyfile(base.folder / "tokenizer_config.json", adapter / "tokenizer_config.json")
    merge([adapter], str(base.folder), tmp_path / "named")
    copied = (tmp_path / "named" / "tokenizer.json").read_bytes()
    assert copied == (adapter / "tokenizer.json").read_bytes()
    for name, whose in (("padded", "the base's"), ("named", "the adapter's")):
        assert f"are {whose}, byte for byte" in (tmp_path / name / "README.md").read_text()

    tokenizer["normalizer"] = {"type": "NFC"}
    (adapter / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(AxtuneError, match="splits text differently"):
        merge([adapter], str(base.folder), tmp_path / "damaged")


@pytest.mark.parametrize(("kind", "double"), [("nf4", True), ("nf4", False), ("fp4", True)])
def test_into_nf4_adds_to_the_weights_that_training_saw(
    kind: str, double: bool, base: Checkpoint, tmp_path: Path
) -> None:
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    options = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": double,
    }
    adapter = adapter_for(base, tmp_path / "adapter", target_modules=["q_proj", "down_proj"])
    run = run_with(adapter, base, tmp_path / "run", options)
    merge([run], None, tmp_path / "out", into="nf4")
    quantised = load_model(base, load_tokenizer(base), precision="bf16", quantization=options)
    plain: Any = in_float32(base.folder)
    names = []
    for name, module in quantised.named_modules():
        if isinstance(module, Linear4bit):
            weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
            plain.get_submodule(name).weight.data = weight.float()
            names.append(name)
    assert len(names) == 14
    merged = PeftModel.from_pretrained(plain, str(adapter)).merge_and_unload()
    ours = tensors_of(tmp_path / "out")
    assert_equal(ours, {name: t.bfloat16() for name, t in merged.state_dict().items()})

    written = merge([run], None, tmp_path / "original")
    assert_equal(tensors_of(tmp_path / "original"), reference(base, adapter))
    assert any("--into nf4" in note for note in written.notes)


def test_into_nf4_wants_a_run_that_was_trained_on_it(base: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    run = run_with(adapter, base, tmp_path / "run")
    for source, message in ((adapter, "an adapter alone does not say"), (run, "this one was not")):
        with pytest.raises(AxtuneError, match=message):
            merge([source], str(base.folder), tmp_path / "out", into="nf4")


def test_a_run_merges_only_into_the_files_it_was_trained_on(
    base: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    run = run_with(adapter, base, tmp_path / "run")
    merge([run / "adapter"], None, tmp_path / "whole")
    assert_equal(tensors_of(tmp_path / "whole"), reference(base, adapter))

    other = tmp_path / "other"
    shutil.copytree(base.folder, other)
    shard_file = sorted(other.glob("*.safetensors"))[1]
    with shard_file.open("r+b") as stream:
        stream.seek(-2, os.SEEK_END)
        stream.write(b"\x00\x00")
    for source in (run, run / "adapter"):
        with pytest.raises(AxtuneError, match=f"on another base: {shard_file.name} of .* differs"):
            merge([source], str(other), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "lora", [{}, {"init_lora_weights": "pissa", "use_rslora": True}, {"use_dora": True}]
)
def test_a_trained_run_becomes_the_checkpoint_it_was_trained_as(
    lora: dict[str, Any], tmp_path: Path
) -> None:
    run = train(recipe(tmp_path, lora=lora, training={"max_steps": 2, "learning_rate": 0.02}))
    base = locate.find("tiny-ax-4.0")
    merge([run.path], None, tmp_path / "out")
    ours = tensors_of(tmp_path / "out")
    assert_equal(ours, reference(base, run.adapter))
    changed = logits(in_float32(tmp_path / "out")) - logits(in_float32(base.folder))
    assert changed.abs().max() > 1e-2


def test_an_incomplete_base_is_refused(base: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    copy = tmp_path / "copy"
    shards = sorted(file.name for file in base.folder.glob("*.safetensors"))

    def refused(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            merge([adapter], str(copy), tmp_path / "out")
        shutil.rmtree(copy)

    shutil.copytree(base.folder, copy)
    (copy / shards[1]).unlink()
    refused(f"lacks {shards[1]}")
    shutil.copytree(base.folder, copy)
    os.truncate(copy / shards[2], (copy / shards[2]).stat().st_size - 1)
    refused("bytes, and its header declares")
    shutil.copytree(base.folder, copy)
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.layers.9.mlp.up_proj.weight"] = shards[0]
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    refused("disagree on 1 tensors, model.layers.9")


def test_an_existing_folder_and_a_small_disk_are_refused(
    base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    (tmp_path / "taken").mkdir()
    with pytest.raises(AxtuneError, match="exists already"):
        merge([adapter], str(base.folder), tmp_path / "taken")
    with pytest.raises(AxtuneError, match="cannot be created"):
        merge([adapter], str(base.folder), adapter / "adapter_config.json" / "out")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(AxtuneError, match=r"needs [\d,]+ bytes and its disk has 1,000,000 free"):
        merge([adapter], str(base.folder), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "taken"]


@pytest.mark.parametrize(
    ("key", "factor", "first"),
    [
        ("hidden_size", 2, "model.embed_tokens.weight has the shape"),
        ("vocab_size", 2, "model.embed_tokens.weight has the shape"),
        ("intermediate_size", 2, r"model.layers.0.mlp.gate_proj.weight has the shape"),
        ("num_key_value_heads", 2, r"model.layers.0.self_attn.k_proj.weight has the shape"),
        ("num_hidden_layers", 2, r"model.layers.\d.self_attn.q_proj.weight is missing"),
        ("num_hidden_layers", 0.5, r"model.layers.\d.\S+ is there; config.json says \d layer"),
    ],
)
def test_a_base_whose_config_is_of_another_model_is_refused_by_its_first_tensor(
    key: str, factor: float, first: str, base: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    folder = shutil.copytree(base.folder, tmp_path / "odd")
    config = {**base.config, key: int(base.config[key] * factor)}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"{first}(.|\n)*of different checkpoints"):
        merge([adapter], str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()
