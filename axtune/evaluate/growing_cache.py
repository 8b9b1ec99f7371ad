"""Keys and values that grow without being copied for every token.

transformers' own cache concatenates all that it holds with each new token: of many long rows that
takes longer than computing the token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

_STEP = 64  # tokens that there is room for after each time it is made larger


def growing_cache() -> Cache:
    """An empty cache, for models all of whose layers see everything before them."""
    return Cache(layer_class_to_replicate=_GrowingLayer)


def held(cache: Cache) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values layer by layer, each (rows, heads, tokens, width)."""
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        yield layer.keys, layer.values


class _GrowingLayer(DynamicLayer):
    """Keys and values of a layer, at the beginning of tensors with room behind them."""

    _room: list[torch.Tensor]  # keys and values, each (rows, heads, tokens, width)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take new tokens in; returns all."""
        new = [key_states, value_states]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._room = [states[:, :, :0] for states in new]
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        for side, states in enumerate(new):
            if end > self._room[side].shape[-2]:
                rows, heads, _, width = states.shape
                larger = states.new_empty(rows, heads, end + _STEP, width)
                larger[:, :, :begin] = self._room[side][:, :, :begin]
                self._room[side] = larger
            self._room[side][:, :, begin:end] = states
        return self._show(end)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows."""
        end = self.get_seq_length()
        for side in (0, 1):
            self._room[side] = self._room[side][indices]
        self._show(end)

    def _show(self, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values
