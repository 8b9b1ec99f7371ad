"""The weights that QLoRA trains on: a base rounded to 4 bit by bitsandbytes and back.

bitsandbytes quantises whole tensors. Its blocks are independent of each other but for one thing:
with double quantisation their scales are rounded together, as offsets from the mean of all. So the
scales are gathered in a first pass over the tensor, and the rest is done a block of rows at a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch

from axtune.checkpoint.adapter_layers import HEAD
from axtune.errors import AxtuneError, MissingPackageError
from axtune.model.dtypes import PRECISIONS
from axtune.weights.output_tensor import Step
from axtune.weights.safetensors_file import TensorInfo, blocks

BLOCK = 64  # numbers to a scale; transformers leaves bitsandbytes' default
SCALES = 256  # scales to a scale of theirs (bitsandbytes, functional.quantize_4bit)
CHUNK = 1 << 17  # numbers worked on at once, so that they stay in a core's cache


@dataclass(frozen=True)
class FourBit:
    """How a run's base was quantised.

    Attributes:
        kind: nf4 or fp4.
        double: Whether the scales are quantised as well.
        skipped: Modules that stay as they are, as transformers matches them.
        dtype: What the weights were loaded in before, and come back in.
    """

    kind: str
    double: bool
    skipped: tuple[str, ...]
    dtype: torch.dtype

    def concerns(self, tensor: TensorInfo) -> bool:
        """Whether a tensor of the base is the weight of a quantised linear layer."""
        module = tensor.name.removesuffix(".weight")
        if module == tensor.name or len(tensor.shape) != 2 or module.endswith("embed_tokens"):
            return False
        # transformers, quantizers/quantizers_utils.py: should_convert_module.
        boundary = r"(?:(?<=\.)|(?=\.|$))"
        return not any(
            re.match(rf"(?:{key}){boundary}", module) or module.endswith(key)
            for key in self.skipped
        )


def four_bit(quantization: dict[str, Any], precision: str) -> FourBit:
    """Settings from a recipe's ``quantization`` section.

    Args:
        quantization: ``BitsAndBytesConfig`` by its own names; what it lacks has the defaults there.
        precision: The run's: bf16, fp16 or fp32.

    Raises:
        MissingPackageError: When bitsandbytes is not installed.
        AxtuneError: When the run's settings are not of 4 bit.
    """
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise MissingPackageError(
            "Merging into 4-bit weights needs the package bitsandbytes, which is not installed.",
            "Run `pip install bitsandbytes`, or merge into the 16-bit weights (--into 16bit).",
        ) from None
    if not quantization.get("load_in_4bit") or precision not in PRECISIONS:
        raise AxtuneError("The run was not trained in 4 bit.", "Merge it with --into 16bit.")
    skipped = quantization.get("llm_int8_skip_modules")
    return FourBit(
        kind=str(quantization.get("bnb_4bit_quant_type", "fp4")),
        double=bool(quantization.get("bnb_4bit_use_double_quant", False)),
        skipped=tuple(skipped if skipped is not None else [HEAD.removesuffix(".weight")]),
        dtype=PRECISIONS[precision],
    )


def rounding(tensor: TensorInfo, settings: FourBit) -> Step:
    """The step that rounds rows of a tensor to 4 bit and back, as the whole tensor would be.

    Args:
        tensor: The base's weight; read once here, for its scales.
        settings: Of the run.
    """
    scales, restored = _scales(tensor, settings)
    nearest = _Nearest(settings.kind)
    width = tensor.shape[1]

    def step(rows: torch.Tensor, start: int, scratch: torch.Tensor) -> None:
        first = start * width // BLOCK
        count = -(-rows.numel() // BLOCK)
        numbers = rows.to(settings.dtype).float().view(-1)
        if rest := -len(numbers) % BLOCK:
            numbers = torch.nn.functional.pad(numbers, (0, rest))
        matrix = numbers.view(count, BLOCK)
        own, seen = (each[first : first + count].unsqueeze(1) for each in (scales, restored))
        # bitsandbytes multiplies with the reciprocal (backends/default/ops.py).
        matrix.mul_(1.0 / own.clamp(min=1e-38)).clamp_(-1, 1)
        exact = nearest(matrix).mul_(seen).to(settings.dtype)
        rows.copy_(exact.view(-1)[: rows.numel()].view_as(rows))

    return step


class _Nearest:
    """The nearest of the 16 codes, by one look into a table.

    A search through the codes' midpoints for each number, as in bitsandbytes on a CPU, takes ten
    times as long. Here [-1, 1] is cut into bins so narrow that each holds one midpoint at most: the
    bin gives the codes below and above it. The cut is a monotone function, so which bin a midpoint
    itself falls into decides for all numbers, rounding included.

    Args:
        kind: nf4 or fp4.
    """

    _BINS = 1024  # midpoints are at least 1/192 apart (fp4, on either side of 0)

    def __init__(self, kind: str) -> None:
        from bitsandbytes.functional import get_4bit_type

        codes = get_4bit_type(kind, device="cpu").float().sort().values
        middles = (codes[:-1] + codes[1:]) / 2
        places = self._bin(middles).long()
        index = torch.arange(self._BINS + 1)
        below = (places.unsqueeze(1) < index).sum(dim=0)  # midpoints in lower bins
        self._middle = torch.full((self._BINS + 1,), torch.inf)
        self._middle[places] = middles
        self._below = below.int()
        self._codes = codes
        assert len(set(places.tolist())) == len(places)

    def __call__(self, numbers: torch.Tensor) -> torch.Tensor:
        """Codes of numbers in [-1, 1]; a midpoint itself takes the lower one."""
        flat = numbers.view(-1)
        bins = self._bin(flat)
        choice = torch.index_select(self._below, 0, bins)
        choice.add_(flat > torch.index_select(self._middle, 0, bins))
        return torch.index_select(self._codes, 0, choice).view_as(numbers)

    def _bin(self, numbers: torch.Tensor) -> torch.Tensor:
        return ((numbers + 1) * (self._BINS / 2)).int()


def _scales(tensor: TensorInfo, settings: FourBit) -> tuple[torch.Tensor, torch.Tensor]:
    """The scales of a tensor's blocks of 64, as quantising and as dequantising sees them.

    Returns:
        The largest magnitude in each block, (blocks,) in float32; and the same after double
        quantisation.
    """
    from bitsandbytes.functional import dequantize_blockwise, quantize_blockwise

    found = []
    for block in blocks(tensor, multiple=BLOCK):
        for numbers in torch.split(block, CHUNK):
            exact = numbers.to(settings.dtype).float()
            if rest := -len(exact) % BLOCK:
                exact = torch.nn.functional.pad(exact, (0, rest))
            found.append(exact.abs_().view(-1, BLOCK).amax(dim=1))
    scales = torch.cat(found)
    if not settings.double:
        return scales, scales
    offset = scales.mean()
    rounded, state = quantize_blockwise(scales - offset, blocksize=SCALES)
    return scales, dequantize_blockwise(rounded, state) + offset
