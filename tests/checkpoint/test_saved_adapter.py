"""Adapter folders: what is read, what is refused, and the names of tensors saved from wrappers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from axtune.checkpoint.saved_adapter import (
    WEIGHTS,
    fits_nothing,
    incomplete,
    names_in_base,
    read_adapter_config,
    require_finite,
)
from axtune.errors import AxtuneError

Q = "model.layers.0.self_attn.q_proj"


def folder_with(folder: Path, **values: Any) -> Path:
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **values}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / WEIGHTS).write_bytes(b"")  # not opened
    return folder


def test_a_plain_adapter_is_read(tmp_path: Path) -> None:
    values = {"megatron_config": None, "megatron_core": "megatron.core", "use_rslora": True,
              "corda_config": None, "eva_config": {"rho": 2}, "unsloth_fixed": True}  # fmt: skip
    assert read_adapter_config(folder_with(tmp_path, **values))["r"] == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "is a IA3 adapter; expected LORA"),
        ({"peft_type": 7}, "is a 7 adapter"),
        ({"peft_type": None}, "is a None adapter"),
        ({"peft_type": None, "lora_parameters": {"rank": 8}}, "in mlx's format"),
        ({"init_lora_weights": "pissa_niter_4"}, "was initialised with pissa_niter_4"),
        ({"init_lora_weights": "lora_ga"}, "was initialised with lora_ga"),
        ({"init_lora_weights": "OLoRA"}, "was initialised with olora"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "uses megatron_config"),
        ({"use_what_comes_next": True}, "uses use_what_comes_next"),
        ({"later_config": {"a": 1}}, "uses later_config"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "names code to run"),
        ({"r": 0}, "r: input should be greater"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": 0}, "lora_alpha: input should be greater than 0"),
        ({"lora_alpha": -8}, "lora_alpha: input should be greater than 0"),
        ({"alpha_pattern": {"q_proj": 0}}, "alpha_pattern.q_proj: input should be greater"),
        ({"target_modules": 3}, "target_modules"),
        ({"modules_to_save": "lm_head"}, "modules_to_save"),
    ],
    ids=str,
)
def test_what_is_no_plain_lora_is_refused(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(AxtuneError, match=message):
        read_adapter_config(folder_with(tmp_path, **values))


def test_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(AxtuneError, match="does not exist"):
        read_adapter_config(tmp_path / "none")
    with pytest.raises(AxtuneError, match="is not an adapter"):
        read_adapter_config(tmp_path)
    (folder_with(tmp_path) / WEIGHTS).unlink()
    with pytest.raises(AxtuneError, match=f"lacks {WEIGHTS}"):
        read_adapter_config(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(AxtuneError, match=r"pickle files \(adapter_model.bin\) are not read"):
        read_adapter_config(tmp_path)


@pytest.mark.parametrize(
    ("saved", "plain"),
    [
        (f"base_model.model.{Q}.lora_A.weight", f"{Q}.lora_A.weight"),
        (f"module.base_model.model.{Q}.lora_A.weight", f"{Q}.lora_A.weight"),
        (f"_orig_mod.base_model.model.{Q}.lora_A.weight", f"{Q}.lora_A.weight"),
        (f"module._orig_mod.base_model.model.{Q}.lora_A.weight", f"{Q}.lora_A.weight"),
        (f"_orig_mod.module.base_model.model.{Q}.lora_A.weight", f"{Q}.lora_A.weight"),
        (f"base_model.model._orig_mod.{Q}.lora_A.weight", f"{Q}.lora_A.weight"),
        (f"base_model.model.module.{Q}.lora_A.weight", f"{Q}.lora_A.weight"),
        (f"base_model.model.{Q}._orig_mod.lora_A.weight", f"{Q}.lora_A.weight"),
        (
            "base_model.model.model.layers.0._checkpoint_wrapped_module.mlp.up_proj.lora_B.weight",
            "model.layers.0.mlp.up_proj.lora_B.weight",
        ),
        (
            "_fsdp_wrapped_module.base_model.model.model.layers.0._fsdp_wrapped_module."
            "_checkpoint_wrapped_module.mlp.up_proj.lora_B.weight",
            "model.layers.0.mlp.up_proj.lora_B.weight",
        ),
        (f"base_model.model.{Q}.lora_A.default.weight", f"{Q}.lora_A.weight"),
        (f"base_model.model.{Q}.lora_B.mine.bias", f"{Q}.lora_B.bias"),
        (
            f"base_model.model.{Q}.lora_magnitude_vector.default.weight",
            f"{Q}.lora_magnitude_vector.weight",
        ),
        (f"base_model.model.{Q}.lora_magnitude_vector", f"{Q}.lora_magnitude_vector"),
        ("base_model.model.lm_head.modules_to_save.default.weight", "lm_head.weight"),
        (
            "base_model.model.model.embed_tokens.lora_embedding_A.default",
            "model.embed_tokens.lora_embedding_A",
        ),
        (
            "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
            "model.embed_tokens.token_adapter.trainable_tokens_delta",
        ),
        (f"base_model.other.{Q}.lora_A.weight", f"base_model.other.{Q}.lora_A.weight"),
        (f"{Q}.lora_A.weight", f"{Q}.lora_A.weight"),
        ("base_model.model.layers.0.mlp.up_proj.lora_A.weight",
         "model.layers.0.mlp.up_proj.lora_A.weight"),
        ("base_model.model.lm_head.weight", "lm_head.weight"),
    ],
)  # fmt: skip
def test_wrappers_are_taken_out_of_names(saved: str, plain: str, tmp_path: Path) -> None:
    assert names_in_base(tmp_path / WEIGHTS, [saved]) == {saved: plain}


def test_two_adapters_in_a_file_are_refused(tmp_path: Path) -> None:
    names = [f"base_model.model.{Q}.lora_A.{name}.weight" for name in ("one", "two")]
    with pytest.raises(AxtuneError, match=r"more than one adapter: .*one.weight and .*two.weight"):
        names_in_base(tmp_path / WEIGHTS, names)


def test_errors_name_the_tensor(tmp_path: Path) -> None:
    require_finite(tmp_path, "a", 0)
    with pytest.raises(AxtuneError, match=r"a holds numbers that are not finite \(3\)"):
        require_finite(tmp_path, "a", 3)
    error = fits_nothing(tmp_path, ["front.a", "front.b"], "base")
    assert "holds front.a and 1 more tensors, which base has no place for" in error.found


def test_tensors_that_are_declared_and_absent_are_counted(tmp_path: Path) -> None:
    error = incomplete(tmp_path, [f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"])
    assert "lacks 2 of the tensors" in error.found
    assert f"{Q}.lora_A.weight first" in error.found
