"""Rounding to 4 bit and back, block by block: bitsandbytes' own result on the whole tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from safetensors.torch import save_file
from support.tiny import LIBRARY_WARNINGS

from axtune.errors import AxtuneError
from axtune.weights.nf4 import BLOCK, FourBit, four_bit, rounding
from axtune.weights.safetensors_file import TensorInfo, read_header

pytestmark = LIBRARY_WARNINGS

SETTINGS = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


def stored(tensor: torch.Tensor, folder: Path) -> TensorInfo:
    save_file({"model.layers.0.mlp.up_proj.weight": tensor}, folder / "a")
    return read_header(folder / "a")[0]


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("shape", [(128, 192), (64, 31), (3, 17)], ids=str)
def test_rows_come_back_as_the_whole_tensor_does(
    kind: str, double: bool, shape: tuple[int, int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    weight = (torch.randn(shape) * torch.rand(shape[0], 1) * 3).bfloat16()
    weight[0, :16] = 0
    settings = FourBit(kind, double, (), torch.bfloat16)
    step = rounding(stored(weight, tmp_path), settings)
    packed, quant_state = quantize_4bit(
        weight, blocksize=BLOCK, quant_type=kind, compress_statistics=double
    )
    expected = dequantize_4bit(packed, quant_state)
    ours = weight.float()
    unit = BLOCK if shape[0] % BLOCK == 0 else shape[0]  # rows that hold whole blocks of 64
    for start in range(0, shape[0], unit):
        step(ours[start : start + unit], start, torch.empty(0))
    assert torch.equal(ours.bfloat16(), expected)
    assert torch.equal(ours, expected.float())  # in float32 it is rounded to bfloat16 already
    assert not torch.equal(expected, weight)


def info(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, torch.bfloat16, shape, Path("a"), 0)


@pytest.mark.parametrize(
    ("tensor", "concerned"),
    [
        (info("model.layers.0.mlp.up_proj.weight", 8, 8), True),
        (info("lm_head.weight", 8, 8), False),
        (info("model.embed_tokens.weight", 8, 8), False),
        (info("model.layers.0.input_layernorm.weight", 8), False),
        (info("model.layers.0.self_attn.q_proj.bias", 8), False),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_linear_layers_alone_are_quantised(tensor: TensorInfo, concerned: bool) -> None:
    assert four_bit(SETTINGS, "bf16").concerns(tensor) is concerned


@pytest.mark.parametrize(
    ("skipped", "kept"),
    [
        ([], []),
        (["up_proj"], ["model.layers.1.mlp.up_proj", "model.layers.11.mlp.up_proj"]),
        (["model.layers.1"], ["model.layers.1.mlp.up_proj"]),  # not layer 11
    ],
    ids=str,
)
def test_modules_that_stay_are_matched_as_transformers_does(
    skipped: list[str], kept: list[str]
) -> None:
    settings = four_bit({**SETTINGS, "llm_int8_skip_modules": skipped}, "bf16")
    modules = [f"model.layers.{layer}.mlp.up_proj" for layer in (1, 11)]
    found = [module for module in modules if not settings.concerns(info(f"{module}.weight", 8, 8))]
    assert found == kept


def test_the_settings_of_a_run() -> None:
    assert four_bit(SETTINGS, "fp16") == FourBit("nf4", True, ("lm_head",), torch.float16)
    silent = four_bit({"load_in_4bit": True}, "fp32")  # transformers' defaults
    assert silent == FourBit("fp4", False, ("lm_head",), torch.float32)


@pytest.mark.parametrize(("quantization", "precision"), [({}, "bf16"), (SETTINGS, "auto")], ids=str)
def test_a_run_that_was_not_in_4_bit_is_refused(quantization: Any, precision: str) -> None:
    with pytest.raises(AxtuneError, match="not trained in 4 bit") as caught:
        four_bit(quantization, precision)
    assert "--into 16bit" in caught.value.remedy
