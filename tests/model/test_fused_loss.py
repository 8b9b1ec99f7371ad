from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from axtune.model import fused_loss
from axtune.model.fused_loss import next_token_loss
from axtune.plan.memory import HEAD_ROWS


def both(positions: int, dtype: torch.dtype, trained: bool, seed: int):
    """Loss, count and gradients, by the head and by torch's own cross entropy in float32."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(positions, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(50, 16, generator=generator).to(dtype).requires_grad_(trained)
    targets = torch.randint(0, 50, (positions,), generator=generator)
    results = []
    loss, right, each = next_token_loss(hidden, weight, targets)
    torch.testing.assert_close(each.sum(), loss)
    assert not each.requires_grad
    (loss * 0.5).backward()
    results.append((loss.detach(), right, hidden.grad, weight.grad))
    hidden.grad = weight.grad = None
    logits = hidden.float() @ weight.float().T
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    (loss * 0.5).backward()
    right = (logits.argmax(1) == targets).sum()
    results.append((loss.detach(), right, hidden.grad, weight.grad))
    return results


@given(st.integers(1, 40), st.booleans(), st.integers(0, 100))
def test_loss_and_gradients_are_those_of_whole_logits(positions, trained, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_loss, "HEAD_ROWS", 7)  # several chunks and a rest
        ours, torchs = both(positions, torch.float32, trained, seed)
    for mine, theirs in zip(ours, torchs, strict=True):
        if theirs is None:
            assert mine is None
        else:
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_16_bit_weights_are_multiplied_in_16_bit():
    ours, torchs = both(300, torch.bfloat16, True, 0)
    assert ours[0].dtype == torch.float32
    assert ours[2].dtype == ours[3].dtype == torch.bfloat16
    torch.testing.assert_close(ours[0], torchs[0], atol=0, rtol=1e-2)
    torch.testing.assert_close(ours[2], torchs[2], atol=5e-2, rtol=5e-2)


def test_nothing_is_kept_for_a_backward_pass_that_will_not_come():
    hidden = torch.randn(3, 4, requires_grad=True)
    weight = torch.randn(9, 4, requires_grad=True)
    with torch.no_grad():
        loss, right, _ = next_token_loss(hidden, weight, torch.tensor([1, 2, 3]))
    assert not loss.requires_grad
    assert right.dtype == torch.int64


def test_no_position_gives_a_zero_that_a_step_can_go_on_from():
    hidden = torch.randn(4, 8, requires_grad=True)
    none = torch.tensor([], dtype=torch.long)
    loss, right, _ = next_token_loss(hidden[:0], torch.randn(5, 8), none)
    loss.backward()
    assert (loss.item(), right.item()) == (0.0, 0)
    assert torch.equal(hidden.grad, torch.zeros_like(hidden))


class Largest(TorchDispatchMode):
    """Watches for the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        tensors = [made] if isinstance(made, torch.Tensor) else []
        self.numel = max(self.numel, *(tensor.numel() for tensor in tensors), 0)
        return made


def test_the_whole_logits_are_never_in_memory():
    hidden = torch.randn(1000, 8, requires_grad=True)
    weight, targets = torch.randn(5000, 8), torch.arange(1000)
    with Largest() as watch:
        next_token_loss(hidden, weight, targets)[0].backward()
    assert watch.numel == HEAD_ROWS * 5000
    with Largest() as watch:
        torch.nn.functional.cross_entropy(hidden @ weight.T, targets).backward()
    assert watch.numel == 1000 * 5000
