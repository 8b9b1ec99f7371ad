"""A checkpoint that is being written, run a layer at a time before it is on the disk.

Each layer's weights are made (the base's, with the adapter's delta) when its turn comes, all
sequences go through it, and it is dropped: a model of any size in the memory of one layer.
The layers are transformers' own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from axtune.checkpoint.adapter_layers import EMBEDDING
from axtune.errors import AxtuneError
from axtune.weights.output_tensor import OutputTensor, in_memory

# Linear layers of a decoder layer that see the same inputs; so are Llama's and Qwen2's named.
SAME_INPUTS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
LINEAR = re.compile(
    r"model\.layers\.(\d+)\.((?:self_attn\.[qkvo]|mlp\.(?:gate|up|down))_proj)\.weight"
)

_ROWS = 8192  # of the embeddings, read at once


class Decoder:
    """The layers of a checkpoint to write.

    Args:
        config: Its ``config.json``.
        pieces: Its tensors.
        device: Where the layers run.

    Attributes:
        pieces: As given.
        device: As given.
    """

    def __init__(
        self, config: Mapping[str, Any], pieces: Sequence[OutputTensor], device: torch.device
    ) -> None:
        self.device = device
        self.pieces = pieces
        self._pieces = {piece.name: piece for piece in pieces}
        plain = {key: value for key, value in config.items() if key != "quantization_config"}
        made = AutoConfig.for_model(plain.pop("model_type")).from_dict(plain)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(
                made, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
            )
        # Its frequencies are computed from the config, not read.
        self._rotary = type(model.model.rotary_emb)(made).to(device)
        self._layers = model.model.layers

    def __len__(self) -> int:
        """How many layers there are."""
        return len(self._layers)

    def names(self, index: int) -> list[str]:
        """The tensors of a layer."""
        return [name for name in self._pieces if name.startswith(f"model.layers.{index}.")]

    def piece(self, name: str) -> OutputTensor:
        """A tensor, not read yet."""
        return self._pieces[name]

    def embed(self, sequences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """What enters the first layer.

        Args:
            sequences: Token ids.

        Returns:
            (tokens, width) of each, in float32.
        """
        piece = self._pieces[EMBEDDING]
        states = [torch.empty(len(ids), piece.shape[1]) for ids in sequences]
        wanted = [torch.tensor(ids) for ids in sequences]
        for start in range(0, piece.shape[0], _ROWS):
            stop = min(start + _ROWS, piece.shape[0])
            here = [(ids >= start) & (ids < stop) for ids in wanted]
            if any(bool(places.any()) for places in here):
                rows = in_memory(piece, start, stop).float()
                for ids, places, state in zip(wanted, here, states, strict=True):
                    state[places] = rows[ids[places] - start]
        return states

    def layer(self, index: int) -> torch.nn.Module:
        """A layer with its weights, in float32.

        Raises:
            AxtuneError: When one of them is not finite.
        """
        weights = {
            name.removeprefix(f"model.layers.{index}."): in_memory(self._pieces[name])
            .float()
            .to(self.device)
            for name in self.names(index)
            if not name.endswith(".rotary_emb.inv_freq")  # of old checkpoints; computed
        }
        layer: torch.nn.Module = self._layers[index]
        layer.load_state_dict(weights, assign=True)
        self._layers[index] = torch.nn.Identity()  # whoever asked for it owns it
        return layer.eval().requires_grad_(False)

    @torch.inference_mode()
    def run(self, layer: torch.nn.Module, states: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Sequences through a layer, one by one.

        Args:
            layer: Of `layer`.
            states: What enters, (tokens, width) of each sequence.

        Yields:
            What comes out of each.
        """
        for state in states:
            hidden = state.to(self.device).unsqueeze(0)
            positions = torch.arange(len(state), device=self.device).unsqueeze(0)
            out = layer(
                hidden,
                attention_mask=None,  # sdpa is causal without one
                position_ids=positions,
                position_embeddings=self._rotary(hidden, positions),
            )
            yield out.squeeze(0).to(state.device)

    def require_finite(self, index: int, states: Sequence[torch.Tensor]) -> None:
        """Stop where a layer's output is not finite.

        Raises:
            AxtuneError: With the layer's name.
        """
        if not all(bool(state.isfinite().all()) for state in states):
            raise AxtuneError(
                f"What comes out of model.layers.{index} is not finite.",
                "The training of this model diverged, or its base is broken; use an earlier "
                "checkpoint.",
            )


@contextmanager
def watched(
    layer: torch.nn.Module, saw: Callable[[Sequence[str], torch.Tensor], None]
) -> Iterator[None]:
    """Show what goes into the linear layers of a layer while sequences go through it.

    Args:
        layer: Of `Decoder.layer`.
        saw: Given the names of those that share their inputs, as `SAME_INPUTS` has them, and the
            inputs, (tokens, width).
    """
    hooks = []
    for names in SAME_INPUTS:
        linear: Any = layer.get_submodule(names[0])
        hooks.append(
            linear.register_forward_pre_hook(
                lambda _, inputs, names=names: saw(names, inputs[0].flatten(0, -2))
            )
        )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
