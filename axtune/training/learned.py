"""Whether a run has changed the model: a last look before its adapter is written.

A loss, an optimiser or a scale can be such that every step is taken and none of them moves a weight
by what a float can hold. Such a run ends as others do, and its adapter merges to the base.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from axtune.errors import AxtuneError
from axtune.model.sharding import whole

# Frobenius norm of what all steps added to a layer. One step at the smallest learning rate that a
# recipe takes adds a thousand times as much; gradients that vanish add 1e-20 and less.
_NOTHING = 1e-12

_ADAPTER = "default"


class Beginning:
    """Where the trained weights of a model began.

    Args:
        model: Before its first step, its weights not yet shared out.
    """

    def __init__(self, model: PeftModel) -> None:
        self._model = model
        # A and B of the layers whose B is not 0: those of an adapter that is trained further.
        self._pairs = {
            name: (a.clone().cpu(), b.clone().cpu())
            for name, layer in _layers(model)
            for a, b in [_pair(layer)]
            if b.any()
        }
        self._others = dict(_other_sizes(model))

    def require_learned(self) -> None:
        """Refuse a model that is what it was; where weights are shared out, all processes do.

        Raises:
            AxtuneError: When no trained weight has moved.
        """
        added = max((self._added(name, layer) for name, layer in _layers(self._model)), default=0.0)
        moved = any(
            abs(now - before) > _NOTHING
            for name, sizes in _other_sizes(self._model)
            for now, before in zip(sizes, self._others[name], strict=True)
        )
        if added <= _NOTHING and not moved:
            raise AxtuneError(
                "The run has learned nothing: all its steps together added "
                f"{f'no more than {added:.1g}' if added else '0'} to a layer, and merging its "
                "adapter would change no weight.",
                "Look at what makes its steps so small: learning_rate, beta, loss_weights, "
                "optim_args, lora_alpha; and at loss.png. No adapter was written.",
            )

    def _added(self, name: str, layer: LoraLayer) -> float:
        """Frobenius norm of s (B A - B0 A0), which is s [B - B0, B0] [A; A - A0]."""
        a, b = _pair(layer)
        if name in self._pairs:
            a0, b0 = (each.to(a.device) for each in self._pairs[name])
            a, b = torch.cat([a, a - a0]), torch.cat([b - b0, b0], dim=1)
        # Of the products no more than rank times rank is computed.
        square = float(((b.T @ b).double() * (a @ a.T).double()).sum())
        return abs(float(layer.scaling[_ADAPTER])) * math.sqrt(max(square, 0.0))


def _layers(model: PeftModel) -> Iterator[tuple[str, LoraLayer]]:
    """The layers that have an A and a B, by name."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and _ADAPTER in module.lora_A:
            yield name, module


def _pair(layer: LoraLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """A (rank, in) and B (out, rank)."""
    a, b = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
    return whole(a.detach()).float(), whole(b.detach()).float()


def _other_sizes(model: PeftModel) -> Iterator[tuple[str, tuple[float, float]]]:
    """Sum and norm of what is trained besides: whole modules, biases, magnitudes of DoRA."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ".lora_A." not in name and ".lora_B." not in name:
            values = whole(parameter.detach())
            norm = torch.linalg.vector_norm(values, dtype=torch.float64)
            yield name, (values.sum(dtype=torch.float64).item(), norm.item())
