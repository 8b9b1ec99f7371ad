"""Steps, passes and their lengths, as transformers and packing make them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plans import job, sizes

from axtune.config.objective import objective_of
from axtune.data.packing import arrange
from axtune.errors import RecipeError
from axtune.plan.architecture import Architecture
from axtune.plan.schedule import Batching, batching_of, training_batches


def test_steps_are_counted_as_transformers_counts_them(light: Architecture) -> None:
    training = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "num_train_epochs": 2,
    }
    batches = training_batches(batching_of(job(training=training)), sizes(*range(10, 31)))
    assert (batches.samples, batches.steps) == (21, 6)  # 11 passes an epoch: 3 steps
    assert batches.longest.tokens == 60
    drawn = np.random.default_rng(0).integers(10, 31, (100_000, 2)).max(axis=1).mean()
    assert batches.mean.tokens == pytest.approx(2 * drawn, rel=0.01)
    stopped = training | {"max_steps": 5}
    assert training_batches(batching_of(job(training=stopped)), sizes(10)).steps == 5
    with pytest.raises(RecipeError, match="above 0"):
        batching_of(job(training={"gradient_accumulation_steps": 0}))


def packed_batching(batch: int, accumulation: int) -> Batching:
    return Batching(
        objective=objective_of("sft"), batch=batch, accumulation=accumulation, eval_batch=1,
        max_length=1000, packing=True, shared_prefix=False, epochs=3.0, max_steps=0,
    )  # fmt: skip


def test_packs_hold_whole_samples_and_spare_the_padding() -> None:
    lengths = sizes(*[100, 200, 300, 400, 1000] * 4)
    batches = training_batches(packed_batching(2, 4), lengths)
    # 8 samples of 400 tokens on average are two packs of 2 × 1000 at most, so of 1600.
    assert batches.passes == 2
    assert batches.longest.tokens == 1600
    assert (batches.longest.cells, batches.tokens) == (0, 8000)
    alone = training_batches(packed_batching(2, 1), lengths)
    assert alone.longest.tokens == 1000  # the longest sample's length


@given(
    st.lists(st.integers(20, 250), min_size=50, max_size=300),
    st.sampled_from([(1, 8), (4, 4), (2, 8)]),
)
def test_a_plan_of_packs_is_what_training_makes_of_them(
    lengths: list[int], batch: tuple[int, int]
) -> None:
    """Of samples that are small beside a pack, so that packs can be filled."""
    planned = training_batches(packed_batching(*batch), sizes(*lengths))
    made = arrange(np.array(lengths), batch_size=batch[0], accumulation=batch[1], max_length=1000)
    assert planned.passes in (made.per_step, made.per_step - 1)
    fuller = made.per_step / planned.passes  # where training needs a pass more, packs are smaller
    assert 0.85 * made.longest <= planned.longest.tokens <= 1.15 * fuller * made.longest
    mean = sum(lengths) / len(made.packs)
    assert 0.85 * mean <= planned.mean.tokens <= 1.15 * fuller * mean
