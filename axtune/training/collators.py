"""Rows of token ids on their way into a trainer: batches, and what stands beside a row.

Column names of preferences are those of TRL's trainers after tokenising, ``prompt_ids``,
``chosen_ids`` and ``rejected_ids`` of pairs, ``prompt_ids``, ``completion_ids`` and ``label`` of
labelled answers; and ``chosen_labels``, ``rejected_labels``, ``completion_labels``, -100 where a
token of an answer is context, such as a tool's result between two turns. Without them every token
is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from axtune.data.samples import IGNORED
from axtune.model.shared_prefix import learned, pack
from axtune.training.trl_private import pair_collator, unpaired_collator


class PackedRows(torch.utils.data.Dataset[dict[str, Any]]):
    """Packs as rows: ``input_ids`` and ``labels`` of the samples one after the other, ``lengths``.

    The samples' ``place`` are a list.

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
            "place": columns["place"],
        }


def collate_packs(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """One sequence of packs.

    Args:
        rows: Of `PackedRows`.

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


class PairCollator:
    """Collates pairs as TRL does, with their packed layout and their reference beside it.

    Args:
        pad_id: What rows are padded with.
        shared: Whether the packed layout is wanted.
    """

    def __init__(self, pad_id: int, *, shared: bool) -> None:
        self._trl = pair_collator(pad_id)
        self._shared = shared

    def __call__(self, pairs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch; of a packed one, ``packed``; with a reference, ``reference_logps``.

        Returns:
            ``input_ids``, ``attention_mask`` and ``completion_mask`` are (2 × pairs, length),
            chosen above rejected; ``reference_logps`` is (2 × pairs, length - 1), zero where there
            is no learned token.
        """
        batch: dict[str, Any] = self._trl(pairs)
        _leave_context_out(batch["completion_mask"], pairs, "chosen", 0)
        _leave_context_out(batch["completion_mask"], pairs, "rejected", len(pairs))
        if self._shared:
            batch["packed"] = pack(pairs)
        if "chosen_reference" in pairs[0]:
            answers = batch["completion_mask"][:, 1:].bool()
            rows = [pair[f"{side}_reference"] for side in ("chosen", "rejected") for pair in pairs]
            flat = torch.from_numpy(np.concatenate(rows))
            batch["reference_logps"] = torch.zeros(answers.shape).masked_scatter(answers, flat)
        return batch


class UnpairedCollator:
    """Collates labelled answers as TRL does, with their reference where it was computed before."""

    def __init__(self, pad_id: int) -> None:
        self._trl = unpaired_collator(pad_id)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch."""
        sums = ("ref_logps", "ref_KL_logps")
        plain = [row | {name: float(row[name][0]) for name in sums if name in row} for row in rows]
        batch: dict[str, Any] = self._trl(plain)
        for start in ("", "KL_"):
            if f"{start}completion_mask" in batch:
                mask = batch[f"{start}completion_mask"]
                _leave_context_out(mask, rows, f"{start}completion", 0)
        return batch


def _leave_context_out(
    mask: torch.Tensor, rows: list[dict[str, Any]], answer: str, first: int
) -> None:
    """Take the tokens that are not learned out of TRL's completion mask, in place.

    Args:
        mask: (batch, length).
        rows: The rows.
        answer: Which of their answers: ``chosen``, ``rejected``, ``completion``, ``KL_completion``.
        first: Where in the batch the rows begin.
    """
    for index, row in enumerate(rows, first):
        begin = len(row["prompt_ids"])
        kept = learned(row, answer)
        mask[index, begin : begin + len(kept)] = torch.tensor(kept, dtype=mask.dtype)


class WithPartners(torch.utils.data.Dataset[dict[str, Any]]):
    """Labelled answers, each with the answer of the row before it in its batch, as TRL pairs them.

    Args:
        rows: In the order of training.
        size: Rows in a batch.
    """

    def __init__(self, rows: Any, size: int) -> None:
        self.rows = rows
        self.size = size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        first = index - index % self.size
        last = min(first + self.size, len(self.rows)) - 1
        partner = self.rows[last if index == first else index - 1]
        row: dict[str, Any] = self.rows[index]
        names = ("completion_ids", "completion_labels")
        return row | {f"KL_{name}": partner[name] for name in names if name in partner}


class PreparedDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows that a trainer's own preparation leaves as they are."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self.rows[index]
        return row

    def map(self, *_: Any, **__: Any) -> PreparedDataset:
        """Nothing is left to prepare."""
        return self
