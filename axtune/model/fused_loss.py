"""The loss head: next-token loss of the labelled positions, without their logits ever in memory.

Positions are projected onto the vocabulary a few at a time, in the precision of the weights, and
each chunk leaves its loss and the gradient of its hidden states behind: two matrix products a
position instead of the three that recomputing the logits in the backward pass takes. The idea is
that of Liger Kernel's fused linear cross-entropy (https://arxiv.org/abs/2410.10989).
"""

from __future__ import annotations

from typing import Any

import torch

from axtune.plan.memory import HEAD_ROWS


def next_token_loss(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of tokens, summed, and how many of them are the most likely one.

    Args:
        hidden: (positions, width); the last hidden states of labelled positions only.
        weight: (vocabulary, width); of the language-model head. It may lie on another device, and
            then is on that of `hidden` for this call only.
        targets: (positions,); the token that each position has to say.

    Returns:
        The loss, a float32 scalar; the count, an integer scalar; and the loss of each position,
        (positions,), float32. The last two have no gradient.
    """
    learning = torch.is_grad_enabled()  # inside of a Function's forward it never is
    wanted, trained = learning and hidden.requires_grad, learning and weight.requires_grad
    apply: Any = _NextTokenLoss.apply
    loss, right, each = apply(hidden, weight, targets, wanted, trained)
    return loss, right, each


class _NextTokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        wanted: bool,
        trained: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        origin, weight = weight.device, weight.to(hidden.device)
        loss = hidden.new_zeros((), dtype=torch.float32)
        right = targets.new_zeros(())
        each = hidden.new_empty(len(targets), dtype=torch.float32)
        grad = torch.empty_like(hidden) if wanted else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if trained else None
        for start in range(0, len(targets), HEAD_ROWS):
            chunk = slice(start, start + HEAD_ROWS)
            states, wants = hidden[chunk].to(weight.dtype), targets[chunk, None]
            logits = (states @ weight.T).float()  # (chunk, vocabulary)
            wanted_logits = logits.gather(1, wants)
            largest, likeliest = logits.max(dim=1, keepdim=True)
            # In place from here on: whatever stands beside the logits is as large as they are.
            probabilities = logits.sub_(largest).exp_()
            total = probabilities.sum(dim=1, keepdim=True)
            each[chunk] = (total.log() + largest - wanted_logits)[:, 0]
            loss += each[chunk].sum()
            right += (likeliest == wants).sum()
            if not (wanted or trained):
                continue
            # d(loss) / d(logits) is the probabilities, less 1 at the wanted token.
            slope = probabilities.div_(total)
            slope.scatter_add_(1, wants, slope.new_full(wants.shape, -1.0))
            slope = slope.to(weight.dtype)
            if grad is not None:
                grad[chunk] = slope @ weight
            if weight_grad is not None:
                weight_grad += (slope.T @ states).float()
        if weight_grad is not None:
            weight_grad = weight_grad.to(origin, weight.dtype)
        ctx.save_for_backward(grad, weight_grad)
        ctx.mark_non_differentiable(right, each)
        return loss, right, each

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight = (
            None if grad is None else grad * grads[0].to(grad) for grad in ctx.saved_tensors
        )
        return hidden, weight, None, None, None
