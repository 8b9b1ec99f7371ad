"""What a config says of a model's size, and an adapter's, against transformers and PEFT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.tiny import LIBRARY_WARNINGS
from transformers import AutoConfig, AutoModelForCausalLM

from axtune.checkpoint import locate
from axtune.errors import CheckpointError
from axtune.plan.architecture import read_architecture, trained_by


@LIBRARY_WARNINGS
@pytest.mark.parametrize("model", ["tiny-ax-4.0", "tiny-ax-3.1"])
@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"r": 8, "target_modules": ["q_proj", "v_proj"]},
        {"target_modules": r".*mlp\.(up|down)_proj", "rank_pattern": {"up_proj": 4}},
        {"target_modules": "all-linear", "exclude_modules": ["o_proj"], "use_dora": True},
        {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [0, 2]},
        {"modules_to_save": ["lm_head"], "rank_pattern": {r"layers\.1\.self_attn\.k_proj": 2}},
        {"target_modules": ["embed_tokens", "gate_proj"]},
        {"target_modules": ["mlp.up_proj"], "modules_to_save": ["embed_tokens"], "lora_bias": True},
    ],
    ids=str,
)
def test_parameters_are_those_that_peft_trains(model: str, lora: dict[str, Any]) -> None:
    found = locate.find(model)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(found.folder))
    values = {"target_modules": "all-linear", "r": 16, "lora_alpha": 32, **lora}
    with torch.device("meta"):
        adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **values))
    architecture = read_architecture(found.config, model)
    plain = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(found.folder).parameters())
    assert architecture.parameters == plain
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert trained_by(architecture, lora).parameters == trained


@pytest.mark.parametrize("model", ["tiny-ax-4.0", "tiny-ax-3.1"])
@pytest.mark.parametrize("change", [{}, {"tie_word_embeddings": True}, {"attention_bias": True}])
def test_tensors_are_those_of_the_model(model: str, change: dict[str, Any]) -> None:
    found = locate.find(model)
    config = AutoConfig.from_pretrained(found.folder, **change)
    with torch.device("meta"):
        state = AutoModelForCausalLM.from_config(config).state_dict()
    if config.tie_word_embeddings:
        state.pop("lm_head.weight")
    tensors = dict(read_architecture({**found.config, **change}, model).tensors())
    assert tensors == {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [({"model_type": "mixtral"}, "mixtral"), ({"hidden_size": None}, "hidden_size")],
)
def test_a_config_that_says_too_little(change: dict[str, Any], said: str) -> None:
    config = {**locate.find("tiny-ax-4.0", weights=False).config, **change}
    with pytest.raises(CheckpointError, match=said):
        read_architecture(config, "x")
