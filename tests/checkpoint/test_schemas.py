"""What checkpoints' JSON files may hold."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.checkpoint import locate
from axtune.checkpoint.schemas import (
    AdapterConfig,
    GenerationConfig,
    ModelConfig,
    QuantizationRecord,
    Record,
    ShardIndex,
    fault_of,
)

LORA = {"r": 4, "lora_alpha": 8}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("folder", locate.embedded(), ids=lambda folder: folder.name)
def test_the_embedded_models_hold_what_they_must(folder: Any) -> None:
    assert fault_of(locate.read_json(folder / "config.json"), ModelConfig) is None
    assert fault_of(locate.read_json(folder / "generation_config.json"), GenerationConfig) is None


@pytest.mark.parametrize(
    ("record", "value", "fault"),
    [
        (ModelConfig, {}, "model_type: it is missing"),
        (ModelConfig, {"model_type": "llama", "what_else": [1]}, None),
        (ModelConfig, {"model_type": "llama", "hidden_size": "64"}, "hidden_size: input should be"),
        (ModelConfig, {"model_type": "llama", "hidden_size": True}, "hidden_size: input should be"),
        (ModelConfig, {"model_type": "llama", "num_hidden_layers": 10**9}, "num_hidden_layers"),
        (ModelConfig, {"model_type": "llama", "rope_theta": float("nan")}, "rope_theta"),
        (ModelConfig, {"model_type": "llama", "rope_theta": 1000000}, None),
        (GenerationConfig, {"eos_token_id": [27, 0]}, None),
        (GenerationConfig, {"eos_token_id": "27"}, "eos_token_id"),
        (ShardIndex, {"weight_map": {"a": "one.safetensors"}}, None),
        (ShardIndex, {"weight_map": {"a": "../one.safetensors"}}, "weight_map.a: input should be"),
        (ShardIndex, {"weight_map": {"a": "/one.safetensors"}}, "weight_map.a: input should be"),
        (ShardIndex, {"weight_map": {"a": "a" * 255 + ".safetensors"}}, "weight_map.a"),
        (ShardIndex, {"weight_map": ["one.safetensors"]}, "weight_map: input should be"),
        (AdapterConfig, LORA, None),
        (AdapterConfig, {**LORA, "lora_alpha": 11.3, "target_modules": "all-linear"}, None),
        (AdapterConfig, {**LORA, "r": 0}, "r: input should be greater"),
        (AdapterConfig, {**LORA, "r": 10**9}, "r: input should be less"),
        (AdapterConfig, {**LORA, "lora_alpha": float("inf")}, "lora_alpha"),
        (AdapterConfig, {**LORA, "target_modules": 7}, "target_modules"),
        (AdapterConfig, {**LORA, "layers_to_transform": -1}, "layers_to_transform"),
        (AdapterConfig, {**LORA, "rank_pattern": {"q_proj": "4"}}, "rank_pattern.q_proj"),
        (AdapterConfig, {**LORA, "rank_pattern": {"(": 4}}, "rank_pattern.*regular expression"),
        (QuantizationRecord, {"name": "base"}, "commit: it is missing"),
    ],
)
def test_what_a_file_must_hold(
    record: type[Record], value: dict[str, Any], fault: str | None
) -> None:
    found = fault_of(value, record)
    assert found is None if fault is None else re.search(fault, found or "")


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        (r".*\.(q|k|v)_proj", True),
        (r"model\.layers\.\d+\.mlp\..*", True),
        (
            r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:k_proj|v_proj).*?)"
            r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention)\.(?:(?:k_proj|q_proj)))",
            True,
        ),
        (r"(a+)+$", False),
        (r"((a)+)+$", False),
        (r"(a|aa)*$", False),
        (r"([ab]*c){5}", False),
        (".*" * 20 + "x", False),
        ("a" * 5000, False),
    ],
)
def test_patterns_that_would_never_end_are_refused(pattern: str, taken: bool) -> None:
    assert (fault_of({**LORA, "target_modules": pattern}, AdapterConfig) is None) == taken


@given(record=st.sampled_from(Record.__subclasses__()), data=st.data())
def test_any_json_is_taken_or_named(record: type[Record], data: st.DataObject) -> None:
    keys = st.sampled_from(sorted(record.model_fields)) | st.text()
    value = data.draw(st.dictionaries(keys, JSON, max_size=5))
    fault = fault_of(value, record)
    assert fault is None or isinstance(fault, str)
