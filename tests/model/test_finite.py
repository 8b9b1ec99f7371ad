"""Counting the numbers that are not finite."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from axtune.model.finite import count_nonfinite

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float8_e5m2, torch.float8_e4m3fn], ids=str)
def test_every_bit_pattern_counts_as_torch_counts_it(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    raw = torch.randint(0, 256, (1 << 20,), dtype=torch.uint8)
    numbers = raw.view(dtype)
    expected = int((~torch.isfinite(numbers.double())).sum())
    assert expected > 0
    assert count_nonfinite(numbers) == expected
    assert count_nonfinite(numbers.view(-1, 64).T) == expected


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_largest_numbers_are_finite(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    assert count_nonfinite(torch.tensor([info.max, info.min, info.tiny, -0.0], dtype=dtype)) == 0
    assert count_nonfinite(torch.empty(0, dtype=dtype)) == 0
    assert count_nonfinite(torch.empty(3, dtype=dtype, device="meta")) == 0


def test_whole_numbers_are_finite() -> None:
    assert count_nonfinite(torch.tensor([-1, 0x7FC0], dtype=torch.int16)) == 0


@given(st.lists(st.floats(width=32), max_size=50), st.integers(0, 3), st.sampled_from([-1.0, 1.0]))
def test_each_one_is_counted(numbers: list[float], infinite: int, sign: float) -> None:
    values = torch.tensor([*numbers, *[sign * float("inf")] * infinite])
    assert count_nonfinite(values) == int((~torch.isfinite(values)).sum())
