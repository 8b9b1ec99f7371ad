"""Packing: several samples in one sequence, each of them as if it stood alone.

A pack (`axtune.data.packing`) is one forward pass: no padding, positions that restart with every
sample, and attention that is block-diagonal, a plain causal call for each sample, so that no mask
grows with the square of the pack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from axtune.data.samples import IGNORED
from axtune.errors import AxtuneError

# The name under which transformers' attention interface knows `_attend`.
_ATTENTION = "axtune_documents"


class PackCollator(torch.utils.data.Dataset[dict[str, Any]]):
    """Packs as rows: ``input_ids`` and ``labels`` of the samples one after the other, ``lengths``.

    Args:
        rows: A `datasets.Dataset` of samples with ``input_ids`` and ``labels``.
        packs: Of each pack, the indices of its samples.
    """

    def __init__(self, rows: Any, packs: Sequence[Sequence[int]]) -> None:
        self.rows = rows
        self.packs = packs

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        columns = self.rows[self.packs[index]]
        return {
            "input_ids": list(chain.from_iterable(columns["input_ids"])),
            "labels": list(chain.from_iterable(columns["labels"])),
            "lengths": list(map(len, columns["input_ids"])),
        }


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """One sequence of packs.

    Args:
        rows: Of `PackCollator`.

    Returns:
        ``lengths`` (samples,); ``input_ids``, ``labels`` and ``position_ids``, (1, tokens). A
        sample's first token has no label: what stands before it is another sample.
    """
    names = ("input_ids", "labels", "lengths")
    input_ids, labels, lengths = (
        torch.tensor(list(chain.from_iterable(row[name] for row in rows))) for name in names
    )
    labels[lengths.cumsum(0)[:-1]] = IGNORED
    positions = torch.cat([torch.arange(length) for length in lengths.tolist()])
    return {
        "lengths": lengths,  # first: a trainer takes the size of a batch from the first tensor
        "input_ids": input_ids[None],
        "labels": labels[None],
        "position_ids": positions[None],
    }


def install(model: PreTrainedModel) -> None:
    """Make a causal language model attend within samples: it takes ``documents`` from now on.

    Args:
        model: The base, under whatever adapters; changed in place.

    Raises:
        AxtuneError: When a layer's attention is not full.
    """
    take_attention(model, _ATTENTION, _attend, "data.packing=false")


def take_attention(
    model: PreTrainedModel, name: str, attend: Callable[..., Any], way_out: str
) -> None:
    """Give a model's layers an attention function of axtune's, through transformers' interface.

    Args:
        model: Changed in place.
        name: Of the function in the interface.
        attend: With the interface's signature.
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
    AttentionInterface.register(name, attend)
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
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    documents: Sequence[int],
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sample; the signature is transformers' attention interface's.

    Args:
        module: The layer's attention.
        query: (1, heads, tokens, width).
        key: (1, key heads, tokens, width).
        value: As `key`.
        attention_mask: Not used: `documents` says all.
        documents: Tokens of each sample, in order.
        kwargs: Scaling and dropout, passed on.

    Returns:
        (1, tokens, heads, width), and no weights.
    """
    ends = np.cumsum([0, *documents]).tolist()
    outputs = []
    for begin, end in pairwise(ends):
        q, k, v = (states[:, :, begin:end] for states in (query, key, value))
        outputs.append(sdpa_attention_forward(module, q, k, v, None, **kwargs)[0])
    return torch.cat(outputs, dim=1), None
