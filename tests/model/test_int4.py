"""Weights in 4 bit: packed and unpacked as compressed-tensors does it, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from hypothesis import given, settings
from hypothesis import strategies as st

from axtune.errors import CheckpointError
from axtune.model import int4


def numbers(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 8, (rows, width), generator=generator, dtype=torch.int8)


def scheme(group: int) -> QuantizationScheme:
    config = QuantizationConfig.model_validate(int4.quantization_config(group))
    return config.config_groups["group_0"]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 99))
def test_eight_numbers_fill_a_word_as_compressed_tensors_fills_it(
    rows: int, words: int, seed: int
) -> None:
    given_numbers = numbers(rows, 8 * words, seed)
    packed = int4.pack(given_numbers)
    assert packed.dtype == torch.int32
    assert packed.shape == (rows, words)
    assert torch.equal(packed, pack_to_int32(given_numbers, 4))
    assert torch.equal(int4.unpack(packed), given_numbers)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("group", int4.GROUPS)
def test_a_weight_is_what_compressed_tensors_makes_of_it(dtype: torch.dtype, group: int) -> None:
    scales = (torch.randn(24, 384 // group) * 0.01).to(dtype)  # of either sign
    rounded = int4.Int4(numbers(24, 384, 3), scales)
    stored = rounded.tensors()
    theirs = PackedQuantizationCompressor.decompress(stored, scheme(group))["weight"]
    ours = int4.stored_weight("x", *(stored[n] for n in (int4.PACKED, int4.SCALE, int4.SHAPE)))
    assert ours.dtype == theirs.dtype == dtype
    assert torch.equal(ours, theirs)
    assert torch.equal(ours, rounded.dequantized())


def test_rounding_to_nearest_is_compressed_tensors_own_with_its_scales() -> None:
    from compressed_tensors.quantization.utils import calculate_qparams

    weight = torch.randn(16, 256) * 0.05
    rounded = int4.round_to_nearest(weight, 64, torch.float32)
    grouped = weight.view(16, 4, 64)
    scales, _ = calculate_qparams(grouped.amin(-1), grouped.amax(-1), scheme(64).weights)
    torch.testing.assert_close(rounded.scales, scales, rtol=1e-6, atol=0)
    error = (rounded.dequantized() - weight).abs().view(16, 4, 64)
    inside = grouped.abs() < grouped.abs().amax(-1, keepdim=True)  # the largest may be cut
    assert (error <= rounded.scales.unsqueeze(-1) * 0.5001)[inside].all()


def test_a_group_of_zeros_stays_zero() -> None:
    rounded = int4.round_to_nearest(torch.zeros(2, 64), 32, torch.bfloat16)
    assert not rounded.dequantized().any()
    assert rounded.dequantized().isfinite().all()


@pytest.mark.parametrize(
    ("width", "wanted", "group"),
    [(3584, None, 128), (18944, None, 128), (10880, 64, 64), (576, None, 64), (96, 128, 32),
     (48, None, None)],
)  # fmt: skip
def test_the_group_is_the_largest_that_divides(
    width: int, wanted: int | None, group: int | None
) -> None:
    assert int4.group_of(width, wanted) == group


def stored(**changed: torch.Tensor) -> dict[str, torch.Tensor]:
    weight = int4.round_to_nearest(torch.randn(8, 64), 32, torch.bfloat16)
    tensors = {f"m.q_proj.{name}": tensor for name, tensor in weight.tensors().items()}
    tensors["m.norm.weight"] = torch.ones(4)
    return tensors | changed


def test_a_checkpoint_is_unpacked_whole() -> None:
    plain = int4.plain_state(stored())
    assert plain.keys() == {"m.q_proj.weight", "m.norm.weight"}
    assert plain["m.q_proj.weight"].shape == (8, 64)
    shapes = int4.plain_shapes({name: tuple(t.shape) for name, t in stored().items()})
    assert shapes == {name: tuple(tensor.shape) for name, tensor in plain.items()}


@pytest.mark.parametrize(
    "damage",
    [
        {"m.q_proj.weight_shape": torch.tensor([8, 32])},
        {"m.q_proj.weight_scale": torch.ones(7, 2)},
        {"m.q_proj.weight_scale": torch.ones(8, 3)},
        {"m.q_proj.weight_scale": torch.ones(8)},
    ],
)
def test_parts_that_do_not_belong_together_are_named(damage: dict[str, torch.Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"m\.q_proj\.weight_packed lacks its scales"):
        int4.plain_state(stored(**damage))


def test_a_lost_part_is_named() -> None:
    tensors = stored()
    del tensors["m.q_proj.weight_scale"]
    with pytest.raises(CheckpointError, match="lacks its scales or its shape"):
        int4.plain_state(tensors)


def test_a_config_says_whether_its_weights_are_in_4_bit() -> None:
    assert int4.is_int4({"quantization_config": int4.quantization_config(128)})
    assert not int4.is_int4({})
    assert not int4.is_int4({"quantization_config": {"quant_method": "bitsandbytes"}})


@pytest.mark.parametrize(
    "change",
    [
        {"num_bits": 8},
        {"symmetric": False},
        {"strategy": "channel"},
        {"actorder": "group"},
    ],
)
def test_other_formats_of_compressed_tensors_are_refused(change: dict[str, Any]) -> None:
    config = int4.quantization_config(128)
    config["config_groups"]["group_0"]["weights"] |= change
    with pytest.raises(CheckpointError, match="in another format than 4 bit"):
        int4.is_int4({"quantization_config": config})


@pytest.mark.parametrize("order", ["static", "weight", None])
def test_a_static_order_leaves_nothing_to_read(order: str | None) -> None:
    config = int4.quantization_config(128)
    config["config_groups"]["group_0"]["weights"]["actorder"] = order
    assert int4.is_int4({"quantization_config": config})
