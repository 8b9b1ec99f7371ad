"""Will it fit: what a plan adds up to, and what it reads of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plans import job, sizes
from support.rows import TEMPLATES

from axtune.checkpoint import locate
from axtune.errors import DataError
from axtune.plan.architecture import Architecture, read_architecture
from axtune.plan.estimate import (
    PlanInputs,
    answering,
    answers,
    as_quantized,
    askings,
    free_memory,
    from_length,
    make_plan,
    questions,
    seconds,
)
from axtune.plan.gpus import find_card
from axtune.plan.memory import CPU, GPU
from axtune.weights.quantized_base import quantize

recipe_changes = st.fixed_dictionaries(
    {},
    optional={
        "precision": st.sampled_from(["auto", "fp16", "fp32"]),
        "quantization": st.just({"load_in_4bit": True}),
        "attention": st.sampled_from(["sdpa", "eager"]),
    },
)


@given(
    changes=recipe_changes,
    task=st.sampled_from(["sft", "dpo", "kto", "orpo"]),
    shared=st.booleans(),
    checkpointing=st.booleans(),
    length=st.integers(64, 4000),
    more=st.integers(0, 4000),
    batch=st.integers(1, 8),
    larger=st.integers(0, 8),
    device=st.sampled_from([GPU, CPU]),
)
def test_longer_or_more_never_takes_less(
    light: Architecture,
    changes: dict[str, Any],
    task: Any,
    shared: bool,
    checkpointing: bool,
    length: int,
    more: int,
    batch: int,
    larger: int,
    device: Any,
) -> None:
    if task != "sft":
        shared = shared and changes.get("attention") != "eager"
        changes = {**changes, "preference": {"shared_prefix": shared}}

    def peak(tokens: int, samples: int) -> float:
        training = {
            "per_device_train_batch_size": samples,
            "per_device_eval_batch_size": samples,
            "gradient_checkpointing": checkpointing,
        }
        data = {"train": "x", "max_length": 16_384, "eval": 0.1}
        known = PlanInputs("x", light, sizes(40, *[tokens] * 20, prompt=32 if task != "sft" else 0))
        return make_plan(
            job(task=task, training=training, data=data, **changes), known, device
        ).peak

    assert peak(length, batch) <= peak(length + more, batch) <= peak(length + more, batch + larger)


def test_each_saving_saves(light: Architecture) -> None:
    known = PlanInputs("x", light, sizes(*[2000] * 32))
    large = {"gradient_checkpointing": False, "per_device_train_batch_size": 4}
    again = {**large, "gradient_checkpointing": True}
    one = {**again, "per_device_train_batch_size": 1}
    eight = {**one, "optim": "paged_adamw_8bit"}
    four_bit = {"quantization": {"load_in_4bit": True}}
    jobs = [
        job(training=large),
        job(training=again),
        job(training=one),
        job(training=eight),
        job(training=eight, lora={"r": 4}),
        job(training=eight, lora={"r": 4}, **four_bit),
    ]
    peaks = [make_plan(each, known, GPU).longest.total for each in jobs]
    assert peaks == sorted(set(peaks), reverse=True)


def test_a_cpu_is_the_host(light: Architecture) -> None:
    """What a card would offload lies there already; a 16-bit table is mapped, not loaded."""
    known = PlanInputs("x", light, sizes(*[2000] * 32))
    plain, offloading = job(precision="bf16"), job(precision="bf16", offload=["embeddings"])
    on_cpu, too = (make_plan(each, known, CPU).longest for each in (plain, offloading))
    on_gpu, less = (make_plan(each, known, GPU).longest for each in (plain, offloading))
    table = 2 * light.table
    assert on_cpu == too
    assert on_gpu.weights - on_cpu.weights == table
    assert on_gpu.weights - less.weights == 2 * table


def test_a_plan_for_one_length_needs_no_data() -> None:
    found = locate.find("tiny-ax-4.0", weights=False)
    for task, tokens in (("sft", 100), ("kto", 100), ("dpo", 149), ("orpo", 149)):
        recipe = job(task=task, training={"per_device_train_batch_size": 1})
        plan = make_plan(recipe, from_length(recipe, found, 100), GPU)
        assert plan.batches.longest.tokens == plan.batches.mean.tokens == tokens
    with pytest.raises(DataError):
        make_plan(job(), PlanInputs("x", read_architecture(found.config, "x"), sizes(9000)), GPU)


def test_free_memory_is_a_number_of_this_machine() -> None:
    free = free_memory()
    assert free is None or 1e8 < free < 1e14


@pytest.mark.parametrize("task", ["sft", "dpo", "kto"])
def test_a_plan_reads_the_data_as_training_does(tmp_path: Path, task: str) -> None:
    """The lengths that a plan reads are those that `prepare` writes for the run's own check."""
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.data.dataset import prepare
    from axtune.plan.estimate import from_data

    file = TEMPLATES / ("chat.jsonl" if task == "sft" else "preference.jsonl")
    data = {"train": [{"path": str(file), "weight": 2}], "max_length": 4096}
    recipe = job(task=task, data=data)
    found = locate.find("tiny-ax-4.0", weights=False)
    tokenizer = load_tokenizer(found)
    planned = from_data(recipe, found, tokenizer).sizes
    written = prepare(recipe, tokenizer, tmp_path, lambda fault: None)
    assert written.sizes is not None
    for one, other in zip(planned.columns(), written.sizes.columns(), strict=True):
        assert sorted(one.tolist()) == sorted(other.tolist())
    assert int(planned.tokens.sum()) == written.account.tokens
    assert int(planned.learned.sum()) == written.account.labelled_tokens


def test_a_base_that_is_quantised_already_is_planned_in_4_bit(tmp_path: Path) -> None:
    quantize("tiny-ax-4.0", tmp_path / "nf4")
    recipe = job(model=str(tmp_path / "nf4"))
    checkpoint = locate.find(recipe.model, weights=False)
    assert recipe.quantization is None
    known = from_length(recipe, checkpoint, 64)
    quantized = make_plan(as_quantized(recipe, checkpoint), known, GPU)
    plain = make_plan(recipe, known, GPU)
    assert quantized.longest.weights < plain.longest.weights
    original = locate.find("tiny-ax-4.0", weights=False)
    assert as_quantized(recipe, original) == recipe


def planned(light: Architecture, held_out: int = 40, **changes: Any) -> Any:
    known = PlanInputs("m", light, sizes(*[512] * 200), sizes(*[256] * held_out))
    return make_plan(job(**changes), known, GPU)


def test_the_time_that_questions_add_is_in_the_plan(light: Architecture) -> None:
    card = find_card("RTX 4090")
    data = {"train": "a", "eval": "b", "max_length": 8192}
    training = {"num_train_epochs": 2, "gradient_accumulation_steps": 2}  # of 8: 25 steps
    silent = planned(light, data=data, training=training)
    assert answering(silent, card) is None
    assert questions(silent) is None
    plans = {
        every: planned(light, data=data, training=training, evaluate={"every": every, "limit": 30})
        for every in ("end", "epoch", 10)
    }
    assert {every: askings(plan) for every, plan in plans.items()} == {
        "end": 1, "epoch": 2, 10: 3
    }  # fmt: skip
    first = {every: askings(planned(light, data=data, training=training | {"eval_on_start": True},
                                    evaluate={"every": every})) for every in plans}  # fmt: skip
    assert first == {"end": 2, "epoch": 3, 10: 4}
    assert {questions(plan) for plan in plans.values()} == {30}
    once = answering(plans["end"], card)
    assert once
    assert answering(plans["epoch"], card) == pytest.approx(2 * once)
    whole, without = (seconds(plan, card) for plan in (plans["end"], silent))
    assert whole
    assert without
    assert whole == pytest.approx(without + once)


def test_questions_are_asked_at_the_end_of_every_epoch_however_samples_are_packed(
    light: Architecture,
) -> None:
    known = PlanInputs("m", light, sizes(*[20] * 24), share=0.75)

    def times(**training: Any) -> int:
        given = {"gradient_accumulation_steps": 16, "per_device_train_batch_size": 1, **training}
        data = {"train": "a", "eval": 0.25, "packing": True}
        return askings(make_plan(job(data=data, training=given, evaluate={}), known, GPU))

    assert (times(), times(num_train_epochs=1.5), times(num_train_epochs=0.1)) == (3, 2, 1)
    assert (times(max_steps=1), times(max_steps=7)) == (1, 4)  # two steps an epoch


def test_an_evaluation_before_the_first_step_takes_time_as_well(light: Architecture) -> None:
    card, data = find_card("RTX 4090"), {"train": "a", "eval": "b", "max_length": 8192}
    for strategy in ({}, {"eval_strategy": "steps", "eval_steps": 10}):
        plain, first = (
            seconds(planned(light, data=data, training=strategy | further), card)
            for further in ({}, {"eval_on_start": True})
        )
        assert plain
        assert first
        assert first > plain


def test_how_many_questions_there_are_is_told_where_it_is_known(light: Architecture) -> None:
    data = {"train": "a", "eval": "b", "max_length": 8192}
    assert questions(planned(light, data=data, evaluate={"limit": None})) == 40
    assert questions(planned(light, data=data, evaluate={"data": "q", "limit": 500})) == 500
    assert questions(planned(light, data=data, evaluate={"data": "q", "limit": None})) is None
    known = PlanInputs("m", light, sizes(*[512] * 200), share=0.9)
    halves = job(data={"train": "a", "eval": 0.1, "max_length": 8192}, evaluate={})
    assert questions(make_plan(halves, known, GPU)) == 20


def test_an_answer_waits_for_the_weights_once_a_token(light: Architecture) -> None:
    data = {"train": "a", "eval": "b", "max_length": 8192}
    plan = planned(light, data=data, evaluate={"max_new_tokens": 100})
    slow, fast = find_card("RTX 4090"), find_card("A100 80GB")
    one = answers(plan, slow, 1, 256)
    assert one
    # 14.5 GB of 16-bit weights at 70% of 1,008 GB/s, 100 times; an overhead for each layer.
    assert 100 * 14.5 / (0.7 * 1008) < one < 1.5 * 100 * (14.5 / (0.7 * 1008) + 0.032)
    few, many = answers(plan, slow, 16, 16 * 256), answers(plan, slow, 256, 256 * 256)
    assert few
    assert many
    assert few < 1.5 * one  # they are answered together
    assert many > 3 * few
    assert (answers(plan, fast, 256, 256 * 256) or 0) < many
    assert answers(plan, find_card("24GB"), 16, 16 * 256) is None  # of no known rate
    assert answers(plan, slow, 0, 0) is None
