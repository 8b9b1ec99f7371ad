"""Rounding a layer's weights so that its outputs change least: GPTQ.

E. Frantar and others, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers" (https://arxiv.org/abs/2210.17323): inputs are rounded one after the other, and what
rounding one of them adds to the outputs is taken from those that are still to come. What decides
is the second moment of the layer's inputs, H = sum of x xᵀ, of which the weights on the diagonal
say how much an input is used. Here

- inputs come in the order of diag(H), the most used first, while as many others as possible can
  still make up for them;
- scales are set before, group by group, in the weights' own order ("static groups"): engines read
  them so, with no table of which input is in which group;
- a scale is what loses least, weighted with diag(H), among some smaller than the group's largest
  number needs, of either sign, since the range from -8 to 7 has one more below zero.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from axtune.model.int4 import LEAST, MOST, Int4, safe

# Of the mean of diag(H), added to all of it: what is never used may still be rounded somehow. As
# in the paper's code; raised where H cannot be factored all the same.
_DAMPING = (0.01, 0.1, 1.0)

# Parts of the largest magnitude that a group's range may end at.
_RANGES = tuple(1 - step / 20 for step in range(9))

_TOGETHER = 64  # inputs whose corrections are handed on to the rest at once
_CHUNK = 1 << 18  # numbers whose scales are searched at once: with their scratch, a core's cache


class Singular(ValueError):
    """H cannot be factored: its numbers are not finite, or there are none."""


class SecondMoment:
    """H of some inputs of a layer, added up as they come by.

    Args:
        width: How many inputs.
        blocks: Neighbouring inputs are taken for independent of those of other blocks: a block of
            H instead of all of it, which costs little and saves most of memory and time where a
            layer is wide.
        device: Where it is added up.
    """

    def __init__(self, width: int, blocks: int, device: torch.device) -> None:
        if width % blocks:
            raise ValueError(f"{width} inputs are not {blocks} blocks")
        size = width // blocks
        self.size = size
        self.blocks = [torch.zeros(size, size, device=device) for _ in range(blocks)]

    def add(self, inputs: torch.Tensor) -> None:
        """Take inputs into account.

        Args:
            inputs: (tokens, width) in float32.
        """
        for block, part in zip(self.blocks, torch.split(inputs, self.size, dim=1), strict=True):
            block.addmm_(part.T, part)

    def diagonal(self) -> torch.Tensor:
        """diag(H), (width,)."""
        return torch.cat([block.diagonal() for block in self.blocks])

    def factor(self) -> list[Factor]:
        """What rounding needs of each block; the blocks are used up.

        Raises:
            Singular: When a number is not finite, or all are zero.
        """
        factors = []
        while self.blocks:
            factors.append(Factor(self.blocks.pop(0)))
        return factors


class Factor:
    """A block of H, factored; layers of the same inputs share it.

    Args:
        moment: (width, width); used up.

    Attributes:
        order: The inputs by how much they are used, the most used first.
        upper: The upper Cholesky factor of H's inverse, in that order.
    """

    def __init__(self, moment: torch.Tensor) -> None:
        diagonal = moment.diagonal().clone()
        mean = float(diagonal.mean())
        if not mean > 0 or mean == float("inf"):  # false for NaN as well
            raise Singular
        self.diagonal = diagonal + _DAMPING[0] * mean
        self.order = torch.argsort(diagonal, descending=True, stable=True)
        moment = moment[self.order][:, self.order]
        damped = 0.0
        for damping in _DAMPING:
            moment.diagonal().add_((damping - damped) * mean)
            damped = damping
            lower, failed = torch.linalg.cholesky_ex(moment)
            if failed:
                continue
            inverse = torch.cholesky_inverse(lower)
            self.upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not failed:
                return
        raise Singular


def gptq(weight: torch.Tensor, factors: list[Factor], group: int, dtype: torch.dtype) -> Int4:
    """Round a layer's weight.

    Args:
        weight: (out, in) in float32.
        factors: Of H of its inputs, block by block.
        group: Inputs that share a scale; divides each block.
        dtype: Of the scales, in which the engine multiplies.
    """
    parts = []
    for factor, part in _blocks(weight, factors):
        scales = best_scales(part, factor.diagonal, group, dtype)
        parts.append(_round(part, factor, scales))
    numbers = torch.cat([part.numbers for part in parts], dim=1)
    return Int4(numbers, torch.cat([part.scales for part in parts], dim=1))


def _blocks(weight: torch.Tensor, factors: list[Factor]) -> Iterator[tuple[Factor, torch.Tensor]]:
    parts = torch.split(weight, [len(factor.order) for factor in factors], dim=1)
    return zip(factors, parts, strict=True)


def best_scales(
    weight: torch.Tensor, importance: torch.Tensor, group: int, dtype: torch.dtype
) -> torch.Tensor:
    """The scale of each group that loses least by rounding.

    Args:
        weight: (out, in) in float32.
        importance: What the square of an error counts, (in,).
        group: Divides ``in``.
        dtype: Of the scales.

    Returns:
        (out, in / group), none of them zero.
    """
    grouped = weight.reshape(-1, weight.shape[1] // group, group)
    counts = importance.view(-1, group)
    height = max(1, _CHUNK // weight.shape[1])
    return torch.cat([_search(rows, counts, dtype) for rows in torch.split(grouped, height)])


def _search(rows: torch.Tensor, importance: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As `best_scales`, for some rows: (n, groups, group)."""
    low, high = rows.amin(dim=-1), rows.amax(dim=-1)
    # The end of the range below zero, times eight: the larger magnitude; and the range turned over.
    far = torch.where(-low >= high, low, high)
    least = torch.full_like(far, torch.inf)
    best = torch.empty_like(far)
    quotient, error = torch.empty_like(rows), torch.empty_like(rows)
    for part in _RANGES:
        for end in (LEAST, MOST):
            scale = safe((far * (part / end)).to(dtype).float())
            torch.div(rows, scale.unsqueeze(-1), out=quotient)
            quotient.round_().clamp_(LEAST, MOST)
            torch.mul(quotient, scale.unsqueeze(-1), out=error)
            error.sub_(rows).square_()
            lost = torch.einsum("ngi,gi->ng", error, importance)
            better = lost < least
            least = torch.where(better, lost, least)
            best = torch.where(better, scale, best)
    return best.to(dtype)


def _round(weight: torch.Tensor, factor: Factor, scales: torch.Tensor) -> Int4:
    """Round inputs in their order, each making up for the errors of those before it."""
    width, upper = weight.shape[1], factor.upper
    group = width // scales.shape[1]
    # An input's weights lie together, so that a step reads and writes memory in order.
    left = weight.T[factor.order].contiguous()
    by_group = scales.T.contiguous()
    numbers = torch.empty(width, len(weight), dtype=torch.int8, device=weight.device)
    groups = (factor.order // group).tolist()
    for start in range(0, width, _TOGETHER):
        stop = min(start + _TOGETHER, width)
        block = left[start:stop]
        own = upper[start:stop, start:stop]
        errors = torch.empty_like(block)
        for index in range(stop - start):
            row = block[index]
            stored = by_group[groups[start + index]]
            scale = stored.float()
            number = (row / scale).round_().clamp_(LEAST, MOST)
            numbers[start + index] = number
            served = (number.to(stored.dtype) * stored).float()
            error = torch.sub(row, served, out=errors[index]).div_(own[index, index])
            if index + 1 < stop - start:
                block[index + 1 :].addr_(own[index, index + 1 :], error, alpha=-1)
        if stop < width:
            left[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    places = torch.empty_like(factor.order)
    places[factor.order] = torch.arange(width, device=places.device)
    return Int4(numbers[places].T.contiguous(), scales)
