from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from axtune.model import cpu_bf16


@pytest.fixture
def switches() -> Iterator[None]:
    before = torch.backends.mkldnn.set_flags()
    yield
    torch.backends.mkldnn.set_flags(*before)


def test_right_products_are_recognised() -> None:
    assert cpu_bf16.products_are_right()


@pytest.mark.parametrize("wrong", [float("nan"), 1.0])
def test_wrong_products_are_noticed(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    multiply = torch.Tensor.__matmul__

    def emulate(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        product = multiply(left, right)
        return product + wrong if left.dtype == torch.bfloat16 else product

    monkeypatch.setattr(torch.Tensor, "__matmul__", emulate)
    assert not cpu_bf16.products_are_right()


@pytest.mark.parametrize("right", [True, False])
def test_wrong_kernels_are_left_out(
    right: bool, switches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_bf16, "products_are_right", lambda: right)
    layer = torch.nn.Linear(2, 2)
    layer.support_avx512bf16_for_cpu = True
    cpu_bf16.avoid_broken_kernels(torch.nn.Sequential(layer))
    assert torch.backends.mkldnn.enabled == right
    assert layer.support_avx512bf16_for_cpu is False
