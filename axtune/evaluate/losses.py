"""Held-out loss and perplexity of a loaded model, by source.

The loss of a source is the mean over all of its labelled tokens, and its perplexity the exponential
of that. A trainer's ``eval_loss`` is of the same tokens, but is the mean of the means of its
batches, so that a token of a long row weighs less there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from axtune.checkpoint.atomic import write_text
from axtune.data.samples import IGNORED, Sample
from axtune.evaluate.answers import writing
from axtune.evaluate.intervals import LOSS, PERPLEXITY, measure
from axtune.evaluate.results import Measured
from axtune.plan.memory import HEAD_ROWS

LOSSES = "losses.json"
BATCH_TOKENS = 4096  # of a batch, padding included


class SampleLoss(NamedTuple):
    """What a model thinks of a sample's labelled tokens.

    Attributes:
        nats: Their negative log-likelihood, summed.
        tokens: How many there are.
    """

    nats: float
    tokens: int


def sample_losses(
    model: Any,
    samples: Sequence[Sample],
    *,
    batch_tokens: int = BATCH_TOKENS,
    on_batch: Callable[[int], None] | None = None,
) -> list[SampleLoss]:
    """The loss of each sample, summed in float32.

    Args:
        model: A causal language model of transformers, with adapters or without.
        samples: In any order.
        batch_tokens: Of a batch, padding included; a longer sample is a batch of its own.
        on_batch: Called after each batch with how many samples it had.

    Returns:
        In the order of `samples`. What comes first in a sample has nothing before it, and is never
        counted.
    """
    losses: list[SampleLoss] = [SampleLoss(0.0, 0)] * len(samples)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in _batches(samples, batch_tokens):
                found = _batch_losses(model, [samples[index] for index in batch])
                for index, loss in zip(batch, found, strict=True):
                    losses[index] = loss
                if on_batch:
                    on_batch(len(batch))
    finally:
        model.train(training)
    return losses


def measure_losses(
    sources: Sequence[str],
    after: Sequence[SampleLoss],
    before: Sequence[SampleLoss] | None = None,
    rows: Sequence[Hashable] | None = None,
) -> list[Measured]:
    """Loss and perplexity of each source; of several, also of all together.

    Args:
        sources: Of each sample, where it is from.
        after: Of each sample.
        before: Of the other model; it must have been asked the same tokens.
        rows: Which each sample is of, several of a document that was cut; None: each of its own.

    Returns:
        ``loss`` and ``perplexity`` of each source, as they first come. Samples without labelled
        tokens are not counted, and a source of such alone is left out.
    """
    counted = [index for index, loss in enumerate(after) if loss.tokens]
    found = list(dict.fromkeys(sources[index] for index in counted))
    measured = []
    for category in ["all", *found] if len(found) != 1 else found:
        chosen = [index for index in counted if category in ("all", sources[index])]
        if not chosen:
            continue
        now = [after[index] for index in chosen]
        then = [before[index] for index in chosen] if before is not None else None
        of = [rows[index] for index in chosen] if rows is not None else None
        measured += [
            measure("loss", category, LOSS, now, then, of),
            measure("perplexity", category, PERPLEXITY, now, then, of),
        ]
    return measured


def read_losses(file: Path) -> dict[str, list[SampleLoss]]:
    """Losses that were kept, by what they are of; none where the file is absent or damaged."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["sha256"] == _digest(values["losses"]):
            return {
                key: [SampleLoss(*one) for one in each] for key, each in values["losses"].items()
            }
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return {}


def write_losses(file: Path, losses: Mapping[str, Sequence[SampleLoss]]) -> None:
    """Keep losses; computing them again gives the same.

    Raises:
        AxtuneError: When they cannot be written.
    """
    text = json.dumps({"losses": losses, "sha256": _digest(losses)})
    with writing(file):
        write_text(file, text + "\n")


def _digest(losses: Mapping[str, Sequence[SampleLoss]]) -> str:
    return hashlib.sha256(json.dumps(losses, sort_keys=True).encode()).hexdigest()


def _batches(samples: Sequence[Sample], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of samples of like length, the longest first: what does not fit fails at once."""
    batch: list[int] = []
    longest = 0
    for index in sorted(range(len(samples)), key=lambda one: -samples[one].length):
        if batch and (len(batch) + 1) * longest > batch_tokens:
            yield batch
            batch = []
        longest = longest if batch else samples[index].length
        batch.append(index)
    if batch:
        yield batch


def _batch_losses(model: Any, samples: Sequence[Sample]) -> list[SampleLoss]:
    longest = max(sample.length for sample in samples)
    ids = torch.zeros(len(samples), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, sample in enumerate(samples):
        ids[row, : sample.length] = torch.tensor(sample.input_ids)
        labels[row, : sample.length] = torch.tensor(sample.labels)
    # No mask: padding is on the right, where no token looks.
    hidden = model.get_decoder()(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
    targets = labels[:, 1:].to(hidden.device)  # what position i has to say
    learned = targets != IGNORED
    token_losses = _token_losses(model, hidden[:, :-1][learned], targets[learned])
    rows = learned.nonzero()[:, 0]
    nats = token_losses.new_zeros(len(samples)).index_add_(0, rows, token_losses)
    return list(map(SampleLoss, nats.tolist(), learned.sum(dim=1).tolist()))


def _token_losses(model: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each position, whose logits are never in memory all at once.

    Args:
        hidden: (positions, width).
        targets: (positions,).

    Returns:
        (positions,), float32.
    """
    head = model.get_output_embeddings()  # called as a module, whatever stands in its place
    held = head.weight  # one in host memory is on the device for as long as somebody holds it
    losses = [
        torch.nn.functional.cross_entropy(head(states).float(), wanted, reduction="none")
        for states, wanted in zip(
            torch.split(hidden, HEAD_ROWS), torch.split(targets, HEAD_ROWS), strict=True
        )
    ]
    del held
    return torch.cat(losses)
