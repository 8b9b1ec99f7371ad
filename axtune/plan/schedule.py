"""What the steps of a run hold, from the lengths of its samples: the longest, the mean, how many.

The longest step is the worst that shuffling can bring about, not the one that this seed will draw:
a run must not fail in its second epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from axtune.config.objective import Objective
from axtune.config.recipe import Recipe, preference_of
from axtune.data.statistics import Sizes
from axtune.errors import Fault, RecipeError
from axtune.plan.memory import Micro

# transformers' own defaults, where a recipe is silent.
_BATCH = {
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "gradient_accumulation_steps": 1,
}


@dataclass(frozen=True)
class Batching:
    """How a recipe lays samples out in steps.

    Attributes:
        objective: Of the task.
        batch: Samples of a forward pass.
        accumulation: Forward passes of a step.
        eval_batch: Samples of a forward pass of an evaluation.
        max_length: The longest sample.
        packing: Whether samples share sequences without padding.
        shared_prefix: Whether a pair's prompt is computed once.
        epochs: Passes over the data.
        max_steps: Steps of the run, whatever the epochs say; 0 leaves it to them.
    """

    objective: Objective
    batch: int
    accumulation: int
    eval_batch: int
    max_length: int
    packing: bool
    shared_prefix: bool
    epochs: float
    max_steps: int


@dataclass(frozen=True)
class Batches:
    """What a run goes through.

    Attributes:
        samples: Of an epoch.
        tokens: Of an epoch; a pair's prompt counts as often as it is computed.
        longest: The largest forward pass that may come.
        mean: The average one.
        passes: Forward passes with gradients in a step, on average.
        steps: Optimiser steps of the run.
        epochs: Passes over the data that the run begins.
    """

    samples: int
    tokens: int
    longest: Micro
    mean: Micro
    passes: float
    steps: int
    epochs: int


def batching_of(recipe: Recipe) -> Batching:
    """How a recipe lays samples out.

    Raises:
        RecipeError: When a number of its training section is not one that can be counted with.
    """
    training, preference = recipe.training, preference_of(recipe)
    sizes = {name: _count(training, name, otherwise) for name, otherwise in _BATCH.items()}
    objective = recipe.objective
    return Batching(
        objective=objective,
        batch=sizes["per_device_train_batch_size"],
        accumulation=sizes["gradient_accumulation_steps"],
        eval_batch=sizes["per_device_eval_batch_size"],
        max_length=recipe.data.max_length,
        packing=objective.packs and recipe.data.packing,
        shared_prefix=objective.shares_prefixes and preference.shared_prefix,
        epochs=float(training.get("num_train_epochs") or 3.0),
        max_steps=max(0, int(training.get("max_steps") or 0)),
    )


def training_batches(batching: Batching, sizes: Sizes, share: float = 1.0) -> Batches:
    """What training goes through.

    Args:
        batching: Of the recipe.
        sizes: Of the samples; at least one.
        share: Of them that is trained on; the rest is held out.
    """
    samples = max(1, round(len(sizes) * share))
    if batching.packing:
        longest, mean, packs, a_step = _packed(batching, sizes)
        passes, epoch = float(a_step), math.ceil(packs * share)
        steps = math.ceil(epoch / a_step)
    else:
        longest, mean = _padded(batching, sizes, batching.batch)
        epoch = math.ceil(samples / batching.batch)
        steps = math.ceil(epoch / batching.accumulation)
        passes = epoch / steps
    return Batches(
        samples=samples,
        tokens=round(mean.tokens * epoch),
        longest=longest,
        mean=mean,
        passes=passes,
        steps=batching.max_steps or math.ceil(steps * batching.epochs),
        epochs=math.ceil(batching.max_steps / steps if batching.max_steps else batching.epochs),
    )


def evaluation_batches(batching: Batching, sizes: Sizes) -> tuple[Micro, Micro, int]:
    """What an evaluation goes through: its largest forward pass, the mean one, how many."""
    longest, mean = _padded(batching, sizes, batching.eval_batch)
    return longest, mean, math.ceil(len(sizes) / batching.eval_batch)


def _padded(batching: Batching, sizes: Sizes, batch: int) -> tuple[Micro, Micro]:
    """The longest and the mean forward pass of `batch` samples each."""
    batch = min(batch, len(sizes))
    if batching.shared_prefix:
        return _shared(sizes, batch)
    if batching.packing:
        return _side_by_side(sizes, batch)
    rows = batching.objective.answers * batch
    first, second = _of_longest(sizes.lengths, batch)
    top, top_square = int(sizes.lengths.max()), float(sizes.lengths.max()) ** 2
    # Rows of one length need no padding, and attention no mask.
    uneven = rows > 1 and (rows > batch or bool(sizes.lengths.min() < top))
    learned = np.sort(sizes.learned)[::-1][:batch].sum(), sizes.learned.mean() * batch

    def micro(length: float, square: float, labelled: float) -> Micro:
        return Micro(
            tokens=rows * length,
            labelled=float(labelled),
            scored=float(labelled) if batching.objective.own_head else rows * length,
            cells=rows * square if uneven else 0.0,
            squares=rows * square,
            samples=batch,
        )

    return micro(top, top_square, learned[0]), micro(first, second, learned[1])


def _shared(sizes: Sizes, batch: int) -> tuple[Micro, Micro]:
    """Pairs behind shared prompts: `model.shared_prefix` lays each out in tokens - 1 positions."""
    length = sizes.lengths.astype(np.float64)
    answer = length - sizes.prompts  # the longer one, which bounds the rejected
    columns = {
        "tokens": sizes.tokens - 1.0,
        "labelled": sizes.learned.astype(np.float64),
        "scored": sizes.learned.astype(np.float64),
        "cells": answer * length,
        "branch": length,
        "joined": sizes.tokens - 1.0,
        # Causal over prompt and chosen answer; all of prompt and answer for the rejected one.
        "squares": length**2 + 2 * answer * length,
    }
    return _largest_and_mean(columns, batch)


def _side_by_side(sizes: Sizes, batch: int) -> tuple[Micro, Micro]:
    """Samples of a packed run's evaluation: one sequence of `batch` samples, without padding."""
    columns = {
        "tokens": sizes.lengths.astype(np.float64),
        "labelled": sizes.learned.astype(np.float64),
        "scored": sizes.learned.astype(np.float64),
        "squares": sizes.lengths.astype(np.float64) ** 2,
        "joined": sizes.lengths * float(batch > 1),
    }
    return _largest_and_mean(columns, batch)


def _largest_and_mean(columns: dict[str, NDArray[Any]], batch: int) -> tuple[Micro, Micro]:
    """Sums over `batch` samples: the largest that may come, of each column, and the mean."""
    worst = {name: float(np.sort(column)[-batch:].sum()) for name, column in columns.items()}
    mean = {name: float(column.mean()) * batch for name, column in columns.items()}
    return Micro(samples=batch, **worst), Micro(samples=batch, **mean)


def _packed(batching: Batching, sizes: Sizes) -> tuple[Micro, Micro, float, int]:
    """Packs of whole samples: the fullest and the mean one, how many an epoch, how many a step.

    What `axtune.data.packing.arrange` comes to where packs are full, without laying out a single
    one: a plan tries many recipes.
    """
    samples = min(batching.batch * batching.accumulation, len(sizes))
    total, top = float(sizes.lengths.sum()), int(sizes.lengths.max())
    largest = batching.batch * batching.max_length
    a_step = max(1, math.ceil(total / len(sizes) * samples / largest))
    packs = math.ceil(len(sizes) * a_step / samples)
    # A sample that is longer than a pack would be is one by itself.
    alone = sizes.lengths > total / packs
    capacity = total / packs
    if (rest := packs - int(alone.sum())) > 0:
        capacity = float(sizes.lengths[~alone].sum()) / rest
    fullest = min(max(top, math.ceil(capacity)), largest, int(total))
    share = sizes.learned.sum() / total
    squares = float((sizes.lengths.astype(np.float64) ** 2).sum())
    labelled = max(float(sizes.learned.max()), share * fullest)
    longest = Micro(
        tokens=fullest,
        labelled=labelled,
        scored=labelled,
        squares=float(top) * fullest,
        joined=fullest,
        samples=len(sizes) / packs,
    )
    mean = Micro(
        tokens=total / packs,
        labelled=share * total / packs,
        scored=share * total / packs,
        squares=squares / packs,
        joined=total / packs,
        samples=len(sizes) / packs,
    )
    return longest, mean, packs, a_step


def _of_longest(lengths: NDArray[np.int64], count: int) -> tuple[float, float]:
    """Mean and mean square of the longest of `count` samples drawn at random.

    The i-th of n sorted lengths is the longest with probability (i^count - (i - 1)^count) / n^count
    where samples are drawn with replacement; without, the difference is of order count / n.
    """
    ordered = np.sort(lengths).astype(np.float64)
    ranks = np.arange(len(ordered) + 1) / len(ordered)
    weights = np.diff(ranks**count)
    return float(weights @ ordered), float(weights @ ordered**2)


def _count(training: dict[str, Any], name: str, otherwise: int) -> int:
    value = training.get(name, otherwise)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        message = (
            f"training.{name}: {value!r} cannot be counted with; expected a whole number above 0."
        )
        raise RecipeError(
            "The recipe cannot be planned.", [Fault("recipe", 0, "bad-value", message)]
        )
    return value
