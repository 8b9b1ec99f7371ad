"""Rounding by what a layer sees: less is lost, and the arithmetic is the paper's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from axtune.model.int4 import round_to_nearest, rounded
from axtune.weights import gptq
from axtune.weights.gptq import Factor, SecondMoment, Singular

BF16 = torch.bfloat16


def correlated(tokens: int, width: int, seed: int = 0) -> torch.Tensor:
    """Inputs as layers see them: few directions are much used."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) * torch.logspace(0, -2, width)
    return torch.randn(tokens, width, generator=generator) @ mixing.T


def moment_of(inputs: torch.Tensor, blocks: int = 1) -> SecondMoment:
    moment = SecondMoment(inputs.shape[1], blocks, torch.device("cpu"))
    for part in inputs.split(100):
        moment.add(part)
    return moment


def loss(weight: torch.Tensor, served: torch.Tensor, inputs: torch.Tensor) -> float:
    """The error of a layer's outputs, as a share of them."""
    error = inputs @ (served.float() - weight).T
    return float(error.square().sum() / (inputs @ weight.T).square().sum())


@pytest.fixture(scope="module")
def layer() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(96, 256, generator=generator) * 0.05, correlated(3000, 256)


def test_on_correlated_inputs_at_most_a_quarter_is_lost_of_what_nearest_loses(
    layer: tuple[torch.Tensor, torch.Tensor],
) -> None:
    weight, inputs = layer
    factors = moment_of(inputs).factor()
    nearest = loss(weight, round_to_nearest(weight, 64, BF16).dequantized(), inputs)
    ours = loss(weight, gptq.gptq(weight, factors, 64, BF16).dequantized(), inputs)
    assert ours < nearest / 4


def test_each_idea_of_the_method_earns_its_place(
    layer: tuple[torch.Tensor, torch.Tensor],
) -> None:
    weight, inputs = layer
    factors = moment_of(inputs).factor()
    min_max = round_to_nearest(weight, 64, BF16)
    scales = gptq.best_scales(weight, factors[0].diagonal, 64, BF16)
    searched = rounded(weight, scales)
    full = gptq.gptq(weight, factors, 64, BF16)
    losses = [loss(weight, each.dequantized(), inputs) for each in (min_max, searched, full)]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] < 0.95 * losses[0]


def by_the_paper(weight: torch.Tensor, moment: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Algorithm 1 of the paper, written down again without blocks: float64, column by column."""
    width = weight.shape[1]
    order = torch.argsort(moment.diagonal(), descending=True, stable=True)
    damped = moment.double() + 0.01 * float(moment.diagonal().mean()) * torch.eye(width)
    # numpy's: MKL's own LU reads beyond its pivots where OpenMP may have one thread only.
    inverse = torch.from_numpy(np.linalg.inv(damped[order][:, order].numpy()))
    upper = torch.linalg.cholesky(inverse, upper=True)
    left = weight.double()[:, order].clone()
    per_column = scales.double().repeat_interleave(width // scales.shape[1], dim=1)[:, order]
    found = torch.empty_like(left)
    for column in range(width):
        scale = per_column[:, column]
        found[:, column] = (left[:, column] / scale).round().clamp(-8, 7) * scale
        error = (left[:, column] - found[:, column]) / upper[column, column]
        left[:, column:] -= error.unsqueeze(1) * upper[column, column:]
    back = torch.empty_like(found)
    back[:, order] = found
    return back


def test_the_arithmetic_is_that_of_the_paper(layer: tuple[torch.Tensor, torch.Tensor]) -> None:
    weight, inputs = layer
    moment = inputs.T @ inputs
    factors = moment_of(inputs).factor()
    ours = gptq.gptq(weight, factors, 64, torch.float32)
    theirs = by_the_paper(weight, moment, ours.scales)
    same = (ours.dequantized().double() - theirs).abs() < 1e-6
    # A number that lies between two may fall to either side in float32, and moves those after it.
    assert same.double().mean() > 0.98
    lost = loss(weight, ours.dequantized(), inputs), loss(weight, theirs, inputs)
    assert abs(lost[0] - lost[1]) < 0.01 * lost[1]


def test_blocks_cost_little_and_cover_all_inputs(layer: tuple[torch.Tensor, torch.Tensor]) -> None:
    weight, inputs = layer
    whole = gptq.gptq(weight, moment_of(inputs).factor(), 64, BF16)
    parts = gptq.gptq(weight, moment_of(inputs, blocks=2).factor(), 64, BF16)
    assert parts.numbers.shape == whole.numbers.shape == weight.shape
    assert parts.scales.shape == whole.scales.shape == (96, 4)
    nearest = loss(weight, round_to_nearest(weight, 64, BF16).dequantized(), inputs)
    assert loss(weight, parts.dequantized(), inputs) < nearest / 2


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.sampled_from([32, 64, 128]), st.integers(1, 3), st.integers(0, 1000))
def test_a_searched_scale_never_loses_more_than_the_ends_of_its_range(
    rows: int, group: int, groups: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, group * groups, generator=generator)
    importance = torch.rand(group * groups, generator=generator) + 0.01
    found = gptq.best_scales(weight, importance, group, torch.float32)
    assert found.shape == (rows, groups)
    assert (found != 0).all()
    grouped = weight.view(rows, groups, group)
    far = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True)).squeeze(-1)

    def lost(scales: torch.Tensor) -> torch.Tensor:
        error = (rounded(weight, scales).dequantized() - weight).square() * importance
        return error.view(rows, groups, group).sum(-1)

    for end in (-8, 7):
        assert (lost(found) <= lost(far / end) * (1 + 1e-5)).all()


def test_inputs_that_never_come_are_rounded_all_the_same() -> None:
    inputs = correlated(500, 64)
    inputs[:, 5] = 0
    weight = torch.randn(8, 64)
    found = gptq.gptq(weight, moment_of(inputs).factor(), 32, BF16).dequantized().float()
    assert found.isfinite().all()
    assert (found[:, 5] - weight[:, 5]).abs().max() < 0.5


def test_fewer_tokens_than_inputs_are_enough() -> None:
    weight = torch.randn(8, 128)
    few = correlated(10, 128)
    found = gptq.gptq(weight, moment_of(few).factor(), 32, BF16)
    assert loss(weight, found.dequantized(), few) < 0.01


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_moments_that_say_nothing_are_refused(value: float) -> None:
    with pytest.raises(Singular):
        Factor(torch.full((8, 8), value))


def test_a_width_that_blocks_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="10 inputs are not 3 blocks"):
        SecondMoment(10, 3, torch.device("cpu"))
