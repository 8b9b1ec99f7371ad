"""Packing: several samples in one sequence, each of them as if it stood alone.

A pack (`axtune.data.packing`) is one forward pass: no padding, positions that restart with every
sample, and attention that is block-diagonal, a plain causal call for each sample, so that no mask
grows with the square of the pack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from axtune.errors import AxtuneError

# The name under which transformers' attention interface knows `_attend`.
ATTENTION = "axtune_documents"

# Attention of a layer over a part of a sequence. Takes queries (1, heads, tokens, width), keys and
# values (1, key heads, tokens, width), and a mask, or None for plainly causal attention; gives
# (1, tokens, heads, width).
AttentionCall = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor
]
# Such a call, queries, keys and values of the whole sequence, and its layout.
LayoutAttention = Callable[
    [AttentionCall, torch.Tensor, torch.Tensor, torch.Tensor, Any], torch.Tensor
]


def install(model: PreTrainedModel) -> None:
    """Make a causal language model attend within samples: it takes ``documents`` from now on.

    Args:
        model: The base, under whatever adapters; changed in place.

    Raises:
        AxtuneError: When a layer's attention is not full.
    """
    take_attention(model, ATTENTION, "documents", _attend, "data.packing=false")


def take_attention(
    model: PreTrainedModel, name: str, layout: str, attend: LayoutAttention, way_out: str
) -> None:
    """Give a model's layers an attention function of axtune's, through transformers' interface.

    Args:
        model: Changed in place; it takes the keyword `layout` from now on.
        name: Of the function in the interface.
        layout: The keyword that says what of the sequence belongs together.
        attend: From queries, keys and values of the whole sequence, and its layout; it calls
            attention over the parts.
        way_out: The word of a recipe that does without.

    Raises:
        AxtuneError: When a layer's attention is not full.
    """
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise AxtuneError(
            f"{model.name_or_path} has layers of {', '.join(sorted(kinds))}; samples are "
            "packed together for full attention only.",
            f"Set {way_out}.",
        )

    def interface(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """transformers' signature; there is no mask, the layout says all."""
        parts = kwargs.pop(layout)

        def part(q: Any, k: Any, v: Any, mask: Any) -> torch.Tensor:
            output, _ = sdpa_attention_forward(module, q, k, v, mask, **kwargs)
            return output

        return attend(part, query, key, value, parts), None

    AttentionInterface.register(name, interface)
    model.set_attn_implementation(name)


def for_flash_attention(lengths: torch.Tensor) -> dict[str, Any]:
    """What transformers' flash attention takes to keep samples apart (`FlashAttentionKwargs`)."""
    ends = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    longest = int(lengths.max())
    return {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _attend(
    attend: AttentionCall,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    documents: Sequence[int],
) -> torch.Tensor:
    """Causal attention within each sample; `documents` are their tokens, in order."""
    ends = np.cumsum([0, *documents]).tolist()
    outputs = []
    for begin, end in pairwise(ends):
        q, k, v = (states[:, :, begin:end] for states in (query, key, value))
        outputs.append(attend(q, k, v, None))
    return torch.cat(outputs, dim=1)
