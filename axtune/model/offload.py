"""What ``offload`` keeps in host memory: activations, and the two tables that no step updates.

A.X's vocabulary of 102,400 makes the embedding and the head 1.5 GB in 16 bit, a third of what a
4-bit base takes. Both stay in host memory here. Of the embedding, the rows of a batch are sent to
the card; of the head, the whole table is, while the loss is computed, and freed before the layers'
backward passes need the memory. Saved activations are offloaded by TRL, which is told so here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.weak import TensorWeakRef
from transformers import PreTrainedModel

from axtune.errors import AxtuneError


def activation_keys(offload: Sequence[str], *, on_gpu: bool) -> dict[str, bool]:
    """What TRL's configuration says of saved activations.

    Args:
        offload: As in the recipe.
        on_gpu: Whether there is a card that they take memory of.
    """
    return {"activation_offloading": True} if on_gpu and "activations" in offload else {}


class HostEmbedding(torch.nn.Module):
    """An embedding whose table is in host memory.

    The tables are no parameters: a trainer that moves its model to the card leaves them behind.

    Args:
        table: (vocabulary, width).
        device: Where the rows go.
    """

    def __init__(self, table: torch.Tensor, device: torch.device) -> None:
        super().__init__()
        self.table = _host(table, device)
        self.device = device

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Rows of the table, (…, width), on the device."""
        rows = torch.nn.functional.embedding(input_ids.to(self.table.device), self.table)
        return rows.to(self.device, non_blocking=True)


class HostHead(torch.nn.Module):
    """A language-model head whose table is in host memory, and on the device while it is used.

    Args:
        table: (vocabulary, width).
        device: Where it is used.
    """

    bias = None  # TRL's fused head asks for it

    def __init__(self, table: torch.Tensor, device: torch.device) -> None:
        super().__init__()
        self.table = _host(table, device)
        self.device = device
        self._copy: TensorWeakRef | None = None

    @property
    def weight(self) -> torch.Tensor:
        """The table on the device, for as long as somebody holds it."""
        copy: torch.Tensor | None = self._copy() if self._copy else None
        if copy is None:
            copy = self.table.to(self.device, non_blocking=True)
            self._copy = TensorWeakRef(copy)
        return copy

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits, (…, vocabulary)."""
        if not hidden.numel():  # a loss of axtune's own asks for none
            return hidden.new_zeros(*hidden.shape[:-1], len(self.table))
        return torch.nn.functional.linear(hidden, self.weight)


HOSTED = (HostEmbedding, HostHead)


def embeddings_to_host(model: PreTrainedModel, device: torch.device) -> None:
    """Move a base's embedding and head to host memory.

    Args:
        model: The base, without adapters; changed in place.
        device: Where the layers are.

    Raises:
        AxtuneError: When the two are one table, which no A.X Light model has.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embedding.weight is head.weight:
        raise AxtuneError(
            f"{model.name_or_path} shares one table between embedding and head, which "
            "cannot be kept in host memory.",
            "Remove embeddings from offload.",
        )
    assert isinstance(embedding.weight, torch.Tensor)
    assert isinstance(head.weight, torch.Tensor)
    model.set_input_embeddings(HostEmbedding(embedding.weight.detach(), device))
    model.set_output_embeddings(HostHead(head.weight.detach(), device))


def _host(table: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A table in host memory, pinned where a card is to read it."""
    table = table.cpu()
    return table.pin_memory() if device.type == "cuda" else table
