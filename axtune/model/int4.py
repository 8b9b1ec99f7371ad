"""Weights in 4 bit as vLLM serves them: compressed-tensors' ``pack-quantized``, symmetric, grouped.

A linear layer of the shape (out, in) is three tensors: ``weight_packed`` int32 (out, in / 8), eight
numbers in each, the lowest bits first and 8 added to each; ``weight_scale`` (out, in / group); and
``weight_shape`` int64 (2). A number stands for itself times its group's scale, in the scale's dtype
(https://github.com/vllm-project/compressed-tensors, compressors/pack_quantized).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from axtune.checkpoint.provenance import is_for_serving
from axtune.errors import CheckpointError

LEAST, MOST = -8, 7
WEAK_BENEATH_ADAPTERS = (
    "adapters over 4-bit weights are reported weak and hard to reproduce from rank 32 on "
    "(vllm#50059)"
)
GROUPS = (128, 64, 32)  # those that engines have kernels for
PACKED, SCALE, SHAPE = "weight_packed", "weight_scale", "weight_shape"

_PER_WORD = 8


@dataclass(frozen=True)
class Int4:
    """A weight in 4 bit.

    Attributes:
        numbers: int8 (out, in), each from -8 to 7.
        scales: (out, in / group), in the dtype that the weight is served in.
    """

    numbers: torch.Tensor
    scales: torch.Tensor

    def tensors(self) -> dict[str, torch.Tensor]:
        """What is stored, by the last part of its name."""
        return {
            PACKED: pack(self.numbers),
            SCALE: self.scales.contiguous(),
            SHAPE: torch.tensor(self.numbers.shape, dtype=torch.int64),
        }

    def dequantized(self) -> torch.Tensor:
        """The weight that it stands for, (out, in), in the dtype of its scales."""
        return dequantize(self.numbers, self.scales)


def group_of(width: int, wanted: int | None = None) -> int | None:
    """The group of a layer.

    Args:
        width: Its inputs.
        wanted: The largest group; None takes 128.

    Returns:
        The largest of 128, 64 and 32 that divides them and is no larger; None where none does.
    """
    return next(
        (group for group in GROUPS if group <= (wanted or GROUPS[0]) and width % group == 0), None
    )


def pack(numbers: torch.Tensor) -> torch.Tensor:
    """Eight numbers to an int32.

    Args:
        numbers: int8 (out, in), each from -8 to 7; ``in`` is a multiple of 8.

    Returns:
        int32 (out, in / 8).
    """
    shifted = (numbers - LEAST).view(torch.uint8)
    bytes_ = shifted[:, 0::2] | (shifted[:, 1::2] << 4)  # the low half first; so are the bytes
    return bytes_.contiguous().view(torch.int32)


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """The numbers of packed words.

    Args:
        packed: int32 (out, in / 8).

    Returns:
        int8 (out, in), each from -8 to 7.
    """
    pairs = packed.contiguous().view(torch.uint8)
    numbers = torch.stack((pairs & 15, pairs >> 4), dim=-1).flatten(1)
    return numbers.view(torch.int8) + LEAST


def dequantize(numbers: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Numbers times their groups' scales, rounded as the scales' dtype rounds.

    Args:
        numbers: int8 (out, in).
        scales: (out, in / group).
    """
    grouped = numbers.view(*scales.shape, -1).to(scales.dtype)
    return (grouped * scales.unsqueeze(-1)).flatten(1)


def round_to_nearest(weight: torch.Tensor, group: int, dtype: torch.dtype) -> Int4:
    """The least work: each group's largest magnitude is the end of the range.

    Args:
        weight: (out, in) in float32.
        group: Divides ``in``.
        dtype: Of the scales.
    """
    grouped = weight.reshape(len(weight), -1, group)
    scales = (grouped.abs().amax(dim=-1) / ((MOST - LEAST) / 2)).to(dtype)
    return rounded(weight, safe(scales))


def rounded(weight: torch.Tensor, scales: torch.Tensor) -> Int4:
    """A weight rounded by scales that are given.

    Args:
        weight: (out, in) in float32.
        scales: (out, in / group), none of them zero.
    """
    grouped = weight.reshape(*scales.shape, -1) / scales.float().unsqueeze(-1)
    return Int4(grouped.round_().clamp_(LEAST, MOST).to(torch.int8).flatten(1), scales)


def plain_state(stored: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint with those in 4 bit as the weights that they stand for.

    Args:
        stored: All of a checkpoint's, or of some of its layers.

    Raises:
        CheckpointError: When parts of a weight are missing or do not belong together.
    """
    plain = {}
    for name, tensor in stored.items():
        module, _, part = name.rpartition(".")
        if part == PACKED:
            plain[f"{module}.weight"] = stored_weight(
                name, tensor, stored.get(f"{module}.{SCALE}"), stored.get(f"{module}.{SHAPE}")
            )
        elif part not in (SCALE, SHAPE):
            plain[name] = tensor
    return plain


def plain_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of `plain_state`, from those of what is stored."""
    plain = {}
    for name, shape in shapes.items():
        module, _, part = name.rpartition(".")
        if part == PACKED:
            plain[f"{module}.weight"] = (*shape[:-1], shape[-1] * _PER_WORD)
        elif part not in (SCALE, SHAPE):
            plain[name] = shape
    return plain


def stored_weight(
    name: str, packed: torch.Tensor, scales: torch.Tensor | None, shape: torch.Tensor | None
) -> torch.Tensor:
    """The weight that three tensors stand for, in the dtype of the scales.

    Args:
        name: Of the packed one, for the message.
        packed: ``weight_packed``.
        scales: ``weight_scale``.
        shape: ``weight_shape``.

    Raises:
        CheckpointError: When parts are missing or do not belong together.
    """
    rows, width = packed.shape[0], packed.shape[1] * _PER_WORD
    if (
        scales is None
        or shape is None
        or shape.tolist() != [rows, width]
        or scales.dim() != 2
        or scales.shape[0] != rows
        or width % scales.shape[1]
    ):
        raise CheckpointError(
            f"{name} lacks its scales or its shape, or they are of another weight.",
            "Copy the checkpoint again, or make it again with axtune export --bits 4.",
        )
    return dequantize(unpack(packed), scales)


def safe(scales: torch.Tensor) -> torch.Tensor:
    """Scales that can be divided by; a group of zeros has any scale."""
    return torch.where(scales == 0, torch.ones_like(scales), scales)


def quantization_config(group: int) -> dict[str, Any]:
    """What config.json says of such weights, as compressed-tensors reads it.

    Args:
        group: Of all layers.
    """
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": group,
        "dynamic": False,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}
        },
        "ignore": ["lm_head"],
    }


def stated_group(config: Mapping[str, Any]) -> int:
    """How many inputs share a scale, in a config.json of `is_int4`."""
    groups = config["quantization_config"]["config_groups"]
    return int(next(iter(groups.values()))["weights"]["group_size"])


def is_int4(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of weights that compressed-tensors wrote.

    Raises:
        CheckpointError: When it is of another kind of compressed-tensors' than this module reads.
    """
    if not is_for_serving(config):
        return False
    stated = config["quantization_config"]
    groups = stated.get("config_groups")
    first: Any = next(iter(groups.values()), {}) if isinstance(groups, dict) else {}
    weights = first.get("weights") if isinstance(first, dict) else None
    wanted = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group"}
    if (
        stated.get("format") != "pack-quantized"
        or not isinstance(weights, dict)
        or len(groups) != 1
        or any(weights.get(key) != value for key, value in wanted.items())
        # In an order of their own they are rounded; what is stored is in the weights' order.
        or weights.get("actorder") not in (None, "static", "weight")
        or first.get("input_activations")
    ):
        raise CheckpointError(
            "config.json describes weights of compressed-tensors in another format than 4 bit, "
            "symmetric, in groups (pack-quantized).",
            "axtune reads those that axtune export --bits 4 writes.",
        )
    return True
