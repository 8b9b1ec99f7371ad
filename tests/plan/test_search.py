"""Edits that make a run fit: they do what they say, and none is needless."""

from __future__ import annotations

import pytest
from support.plans import RECIPES, sizes

from axtune.config import loader
from axtune.plan import search
from axtune.plan.architecture import Architecture
from axtune.plan.estimate import (
    PlanInputs,
    make_plan,
)
from axtune.plan.gpus import SIZES, find_card
from axtune.plan.memory import GPU
from axtune.plan.schedule import batching_of
from axtune.plan.search import Search

CASES: list[tuple[str, list[str]]] = [
    ("sft_lora", []),
    ("sft_qlora", ["training.per_device_train_batch_size=8"]),
    ("sft_lora", ["training.gradient_checkpointing=false", "data.truncate=true"]),
    ("dpo_lora", ["training.per_device_eval_batch_size=4"]),
    ("dpo_lora", ["training.per_device_train_batch_size=6"]),
    ("dpo_qlora", ["preference.shared_prefix=false"]),
    ("kto_lora", []),
    ("orpo_lora", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words"), CASES, ids=lambda case: str(case))
def test_the_edits_make_it_fit(light: Architecture, name: str, words: list[str]) -> None:
    """Applied through the loader, they do; and they change no effective batch."""
    file = RECIPES / f"{name}.yaml"
    recipe = loader.load(file, words)
    prompt = 0 if recipe.task == "sft" else 300
    known = PlanInputs("x", light, sizes(*range(400, 3800, 100), 4000, 4096, prompt=prompt))
    search = Search(recipe, known, GPU)
    for size in SIZES:
        room = find_card(f"{size}GB").usable
        found = search.fit(room)
        if found is None:
            assert size == 8
            continue
        assert (search.plan.peak <= room) == (found.words == ())
        again = make_plan(loader.load(file, [*words, *found.words]), known, GPU)
        assert again.peak == found.plan.peak <= room
        assert again.left_out == found.left_out
        now, before = batching_of(again.recipe), batching_of(recipe)
        assert now.batch * now.accumulation == before.batch * before.accumulation
        lengths = [word for word in found.words if word.startswith("data.")]
        for word in () if lengths else found.words:  # none of them is needless
            if word.startswith(("training.optim", "training.gradient_checkpointing")):
                fewer = [*words, *(other for other in found.words if other != word)]
                assert make_plan(loader.load(file, fewer), known, GPU).peak > room


def test_packs_are_made_shorter_before_anything_goes_to_the_host(light: Architecture) -> None:
    known = PlanInputs("x", light, sizes(*[2048] * 64))
    file = RECIPES / "sft_qlora.yaml"
    search, room = Search(loader.load(file), known, GPU), find_card("8GB").usable
    assert search.plan.peak > room
    found = search.fit(room)
    assert found is not None
    assert found.words == ("data.max_length=2048",)
    again = make_plan(loader.load(file, found.words), known, GPU)
    assert again.peak == found.plan.peak <= room
    assert again.batches.samples == search.plan.batches.samples == 64
    whole = Search(loader.load(file, found.words), known, GPU)
    assert all("data.max_length=2048" not in words for words, _ in whole._by_cost)


def test_shorter_samples_are_the_last_resort(light: Architecture) -> None:
    known = PlanInputs("x", light, sizes(*range(500, 16_000, 500)))
    recipe = loader.load(RECIPES / "sft_qlora.yaml", ["data.max_length=16384"])
    found = Search(recipe, known, GPU).fit(find_card("6GB").usable)
    assert found is not None
    assert found.words[-1] == "data.on_error=skip"
    limit = int(found.words[-2].removeprefix("data.max_length="))
    assert found.left_out == sum(length > limit for length in range(500, 16_000, 500)) > 0
    nothing = Search(recipe, PlanInputs("x", light, sizes(16_000)), GPU)
    assert nothing.fit(find_card("6GB").usable) is None  # the only sample would be left out
    assert nothing.fit(1e9) is None
    assert "No key" in search.advice(nothing, 1e9)
    room = find_card("6GB").usable
    assert f"data.max_length={limit}" in search.advice(Search(recipe, known, GPU), room)
