"""Tiles: a layer's MLP over a part of the sequence at a time, at no extra computation.

Under gradient checkpointing a layer is computed twice: once forward, and once more when its
backward pass begins, which needs what autograd saves on the way. Three quarters of that are the
MLP's: 14 bytes a token for each of its inner channels (A.X 4.0 Light: 4.3 GB at 16,384 tokens).
Here the MLP, its norm before it, is one autograd function that saves its input alone. Its backward
pass computes one tile of the sequence again, takes that tile's gradients, and drops it. In the
layer's second computation nobody reads the function's value, only the graph is rebuilt, so it
computes nothing then: the MLP is computed twice a step, as often as without tiles. (Others compute
it three times: https://arxiv.org/abs/2506.13996.)

Norms, whose float32 copies are the next largest, are such functions too; they are computed where
their value is read, and their backward pass computes them once more, which is no matrix product.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import get_device_states, set_device_states
from transformers import PreTrainedModel

from axtune.plan import memory

# Computes positions of a sequence independently of each other: (tokens, width) to the same shape.
PositionWise = Callable[[torch.Tensor], torch.Tensor]


def install(model: PreTrainedModel) -> None:
    """Make a causal language model compute its norms and MLPs in tiles, from now on.

    In training this is done for the layers that gradient checkpointing computes again; where no
    gradients are taken, for all of them.

    Args:
        model: The base, with its adapters in place; changed in place, where its layers are
            Llama's or Qwen2's, as A.X's are. No parameter gets another name.
    """
    if model.config.model_type not in ("llama", "qwen2"):
        return
    backbone: Any = model.base_model
    for layer in backbone.layers:
        _tile_layer(layer)
    backbone.norm.forward = _Tiled(backbone.norm.forward, backbone.norm, whole=backbone)


def _tile_layer(layer: Any) -> None:
    """The norm before the MLP moves into the MLP's function, and hands its input on."""
    before, norm, mlp = layer.input_layernorm, layer.post_attention_layernorm, layer.mlp
    normed, computed = norm.forward, mlp.forward
    before.forward = _Tiled(before.forward, before, whole=layer)
    norm.forward = _unchanged
    mlp.forward = _Tiled(
        lambda hidden: computed(normed(hidden)), norm, mlp, whole=layer, ends_layer=True
    )


def _unchanged(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


class _Tiled:
    """The forward pass of modules that compute positions independently, in tiles.

    Args:
        compute: What they compute.
        modules: They, for their parameters.
        whole: The layer or backbone that they are of, which says whether it is checkpointed.
        ends_layer: Whether nothing but the layer's output is made of the value: a sum, of which
            the second computation needs nothing.
    """

    def __init__(
        self,
        compute: PositionWise,
        *modules: torch.nn.Module,
        whole: torch.nn.Module,
        ends_layer: bool = False,
    ) -> None:
        self.compute = compute
        self.modules = modules
        self.whole = whole
        self.ends_layer = ends_layer

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return self.in_tiles(hidden)
        if not (self.whole.training and self.whole.gradient_checkpointing):
            return self.compute(hidden)
        trained = [p for module in self.modules for p in module.parameters() if p.requires_grad]
        apply: Any = _Function.apply
        output: torch.Tensor = apply(self, hidden, *trained)
        return output

    def in_tiles(self, hidden: torch.Tensor) -> torch.Tensor:
        """The value, of a hidden state of any number of dimensions; without a graph."""
        parts = tiles(hidden)
        if len(parts) == 1:
            return self.compute(hidden)
        output = None
        with unpacked_once(self.modules):
            for part, rows in parts:
                tile = self.compute(rows)
                if output is None:
                    output = tile.new_empty(hidden.shape)
                    flat = output.view(-1, hidden.shape[-1])
                flat[part] = tile
        assert output is not None
        return output


def tiles(hidden: torch.Tensor) -> list[tuple[slice, torch.Tensor]]:
    """Parts of a hidden state: where their positions are, and they, (tokens, width)."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    count = max(1, -(-len(rows) // memory.TILE))
    size = max(1, -(-len(rows) // count))  # all tiles alike, none with a few positions left over
    spans = [slice(start, start + size) for start in range(0, max(1, len(rows)), size)]
    return [(span, rows[span]) for span in spans]


class _Function(torch.autograd.Function):
    """Positions in, positions out; what lies between is computed again, tile by tile."""

    @staticmethod
    def forward(
        ctx: Any, tiled: _Tiled, hidden: torch.Tensor, *trained: torch.Tensor
    ) -> torch.Tensor:
        ctx.tiled, ctx.trained = tiled, trained
        ctx.surroundings = _Surroundings(hidden, draws=_draws(tiled.modules))
        ctx.save_for_backward(hidden)
        # Only a backward pass computes a checkpointed layer a second time.
        if tiled.ends_layer and torch._C._current_graph_task_id() != -1:
            return hidden.new_zeros(()).expand(hidden.shape)
        with ctx.surroundings.autocast():
            return tiled.in_tiles(hidden)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (hidden,) = ctx.saved_tensors
        tiled, trained = ctx.tiled, ctx.trained
        slopes = grads[0].reshape(-1, hidden.shape[-1])
        grad = torch.empty_like(slopes, dtype=hidden.dtype)
        # In float32, whatever the parameters are in: a sum over tiles is no reason to round.
        sums = [torch.zeros_like(p, dtype=torch.float32) for p in trained]
        parts = tiles(hidden)
        with ExitStack() as stack:
            stack.enter_context(ctx.surroundings.replayed())
            if len(parts) > 1:
                stack.enter_context(unpacked_once(tiled.modules))
            for part, rows in parts:
                rows = rows.detach().requires_grad_()
                with ctx.surroundings.autocast():
                    tile = tiled.compute(rows)
                found = torch.autograd.grad(tile, [rows, *trained], slopes[part], allow_unused=True)
                grad[part] = found[0]
                for total, of_tile in zip(sums, found[1:], strict=True):
                    if of_tile is not None:
                        total += of_tile
        given = [total.to(p.dtype) for total, p in zip(sums, trained, strict=True)]
        return None, grad.view(hidden.shape), *given


class _Surroundings:
    """What a forward pass has around it, and its second computation must have again.

    Args:
        hidden: Its input, for the device.
        draws: Whether it draws random numbers.
    """

    def __init__(self, hidden: torch.Tensor, *, draws: bool) -> None:
        self.device = hidden.device.type
        self.dtype = torch.get_autocast_dtype(self.device)
        self.enabled = torch.is_autocast_enabled(self.device)
        self.random = (torch.get_rng_state(), *get_device_states(hidden)) if draws else None

    def autocast(self) -> torch.autocast:
        """As it was. Nothing is kept of it: a cast made without gradients has none later either."""
        return torch.autocast(
            self.device, dtype=self.dtype, enabled=self.enabled, cache_enabled=False
        )

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """With gradients, and the same random numbers; what a tile saves stays where it is."""
        with ExitStack() as stack:
            if self.random is not None:
                state, devices, states = self.random
                stack.enter_context(torch.random.fork_rng(devices))
                torch.set_rng_state(state)
                set_device_states(devices, states, device_type=self.device)
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_as_is, _as_is))
            yield


def _as_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _draws(modules: Sequence[torch.nn.Module]) -> bool:
    """Whether there is dropout in them."""
    return any(
        isinstance(part, torch.nn.Dropout) and part.p > 0 and part.training
        for module in modules
        for part in module.modules()
    )


@contextmanager
def unpacked_once(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Layers in 4 bit multiply with weights that are unpacked once, not once for each tile.

    The products are those of bitsandbytes' own (bitsandbytes/autograd/_functions.py, MatMul4Bit).

    Args:
        modules: In which they are.
    """
    if "bitsandbytes" not in sys.modules:
        yield
        return
    import bitsandbytes

    layers = [
        part
        for module in modules
        for part in module.modules()
        if isinstance(part, bitsandbytes.nn.Linear4bit)
    ]
    before = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            # Weights that FSDP gathers come without it; their layer knows.
            bitsandbytes.nn.modules.fix_4bit_weight_quant_state_from_module(layer)
            weight = bitsandbytes.functional.dequantize_4bit(
                layer.weight.data, layer.weight.quant_state
            )
            layer.forward = partial(_multiply, layer, weight)
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            if forward is not None:
                layer.forward = forward
            else:
                vars(layer).pop("forward", None)


def _multiply(layer: Any, weight: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    dtype = layer.compute_dtype or hidden.dtype
    bias = None if layer.bias is None else layer.bias.to(dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        product = torch.nn.functional.linear(hidden.to(dtype), weight.to(dtype), bias)
    return product.to(hidden.dtype)
