"""bf16 on a CPU, where its units can be trusted, and around them where they cannot.

Some virtual machines announce AVX512-BF16 and return nonsense for it: products of random matrices
come back with errors of the size of the product itself, or as NaN. oneDNN and bitsandbytes choose
their kernels by what the machine announces.
"""

from __future__ import annotations

import torch


def products_are_right() -> bool:
    """Whether this CPU multiplies bf16 matrices right, tried on shapes of several kernels."""
    random = torch.Generator().manual_seed(0)
    for rows, inner, columns in ((128, 64, 300), (128, 96, 300), (1, 64, 64), (7, 33, 129)):
        left, right = (
            torch.randn(size, inner, generator=random).bfloat16() for size in (rows, columns)
        )
        product = (left @ right.T).float()
        exact = left.float() @ right.float().T
        # One rounding to bf16 of the sum; partial sums rounded on the way cost a few more.
        if not torch.allclose(product, exact, rtol=2**-6, atol=2**-6 * inner**0.5):
            return False
    return True


def avoid_broken_kernels(model: torch.nn.Module) -> None:
    """Keep a model on a CPU away from bf16 kernels that are wrong there, or train nothing.

    Args:
        model: Loaded, on a CPU. bitsandbytes' 4-bit layers would be repacked at their first
            evaluation, for good, for a kernel that passes no gradients on; they stay as they are.
    """
    if torch.backends.mkldnn.enabled and not products_are_right():
        torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
