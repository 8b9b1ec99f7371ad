"""The held-out loss by source, of the rows as an evaluation passes over them.

The loss of a source is the mean over all of its labelled tokens, as ``axtune eval`` reports it
afterwards (`axtune.evaluate.losses`), and hangs on nothing but the model: not on batches, and not
on what training adds to a loss.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

_NAMED = re.compile(r"eval_(.+)_loss")


def by_source(event: Mapping[str, Any]) -> dict[str, float]:
    """The losses by source of an event of ``metrics.jsonl``."""
    return {match[1]: value for name, value in event.items() if (match := _NAMED.fullmatch(name))}


def row_losses(
    token_losses: torch.Tensor, learned: torch.Tensor, lengths: torch.Tensor | None
) -> torch.Tensor:
    """What the rows of a batch cost.

    Args:
        token_losses: (positions,); of those that have something to say.
        learned: (batch, length - 1); which these are.
        lengths: Of rows that stand one after the other in a batch of one; None where each stands
            for itself.

    Returns:
        (rows, 2), float32: the nats of each row, and its labelled tokens.
    """
    rows = learned.nonzero()[:, 0]
    if lengths is not None:  # of the token that a position has to say
        rows = torch.repeat_interleave(lengths)[1:][learned[0]]
    costs = torch.stack([token_losses.float(), torch.ones_like(token_losses).float()], dim=1)
    count = len(learned if lengths is None else lengths)
    return costs.new_zeros(count, 2).index_add_(0, rows, costs)


class SourceLosses:
    """Sums up an evaluation by source.

    Args:
        sources: Of each file of the held-out rows, as their ``place`` counts them.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = sources
        self._sums: dict[str, tuple[float, float]] = {}

    def add(self, rows: torch.Tensor) -> None:
        """Count rows in.

        Args:
            rows: (rows, 3): the number of a row's file, its nats and its labelled tokens.
        """
        for file, nats, tokens in rows.tolist():
            source = self._sources[int(file)]
            before = self._sums.get(source, (0.0, 0.0))
            self._sums[source] = before[0] + nats, before[1] + tokens

    def take(self) -> dict[str, float]:
        """The losses as events name them, and begin again; none where there is one source alone."""
        sums, self._sums = self._sums, {}
        told = {
            f"eval_{source}_loss": nats / tokens
            for source in dict.fromkeys(self._sources)
            for nats, tokens in [sums.get(source, (0.0, 0.0))]
            if tokens
        }
        return told if len(told) > 1 else {}
