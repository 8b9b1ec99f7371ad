"""Will it fit: arithmetic against known figures, and edits that do what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from support.commands import axtune
from support.rows import ROOT, TEMPLATES, chat, write_jsonl
from support.tiny import LIBRARY_WARNINGS
from transformers import AutoConfig, AutoModelForCausalLM

from axtune.checkpoint import catalog
from axtune.config import loader
from axtune.config.objective import objective_of
from axtune.config.recipe import Recipe
from axtune.data.packing import arrange
from axtune.data.statistics import Sizes
from axtune.errors import AxtuneError, CheckpointError, DataError, RecipeError
from axtune.plan import memory, search
from axtune.plan.architecture import Architecture, read_architecture, trained_by
from axtune.plan.estimate import (
    PlanInputs,
    as_quantized,
    free_memory,
    from_length,
    job_of,
    make_plan,
)
from axtune.plan.gpus import CARDS, SIZES, find_card
from axtune.plan.memory import CPU, GPU, Job, Micro
from axtune.plan.schedule import Batching, batching_of, training_batches
from axtune.plan.search import Search
from axtune.weights.quantize import quantize

RECIPES = ROOT / "recipes"


def job(**changes: Any) -> Recipe:
    values = {
        "task": "sft",
        "model": "tiny-ax-4.0",
        "output_dir": "run",
        "data": {"train": "rows.jsonl", "max_length": 8192, "packing": False},
        **changes,
    }
    return Recipe.model_validate(values)


def sizes(*lengths: int, prompt: int = 0) -> Sizes:
    lengths_ = np.array(lengths, np.int64)
    answers = lengths_ - prompt
    tokens = lengths_ + (answers if prompt else 0)
    learned = answers * (2 if prompt else 1)
    return Sizes(lengths_, tokens, np.full_like(lengths_, prompt), learned)


@pytest.fixture(scope="session", params=["4.0", "3.1"])
def real_one(
    request: pytest.FixtureRequest, real_checkpoint: Callable[[str], Path]
) -> tuple[str, Architecture]:
    config = catalog.read_json(real_checkpoint(request.param) / "config.json")
    return request.param, read_architecture(config, request.param)


@pytest.fixture(scope="session")
def light(real_checkpoint: Callable[[str], Path]) -> Architecture:
    """A.X 4.0 Light's."""
    return read_architecture(catalog.read_json(real_checkpoint("4.0") / "config.json"), "4.0")


def test_known_figures_of_the_real_models(real_one: tuple[str, Architecture]) -> None:
    layout, architecture = real_one
    wanted = {
        "4.0": (7_259_624_960, 40_370_176, 14.52e9, 4.84e9, 200_704),
        "3.1": (7_264_800_768, 39_780_352, 14.53e9, 4.99e9, 262_144),
    }[layout]
    parameters, trained, plain, four_bit, states = wanted
    assert architecture.parameters == parameters
    assert trained_by(architecture, {}).parameters == trained
    short = Micro(tokens=1, labelled=1, scored=1)
    lora = job_of(loader.load(RECIPES / "sft_lora.yaml"), architecture, GPU)
    assert memory.training(lora, short).weights == pytest.approx(plain, rel=1e-3)
    qlora = job_of(loader.load(RECIPES / "sft_qlora.yaml"), architecture, GPU)
    assert memory.training(qlora, short).weights == pytest.approx(four_bit, rel=2e-3)
    saved = [memory.training(qlora, Micro(n, 1, 1)).saved / GPU.slack for n in (1000, 2000)]
    assert (saved[1] - saved[0]) / 1000 == pytest.approx(states)


@LIBRARY_WARNINGS
@pytest.mark.parametrize("model", ["tiny-ax-4.0", "tiny-ax-3.1"])
@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"r": 8, "target_modules": ["q_proj", "v_proj"]},
        {"target_modules": r".*mlp\.(up|down)_proj", "rank_pattern": {"up_proj": 4}},
        {"target_modules": "all-linear", "exclude_modules": ["o_proj"], "use_dora": True},
        {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [0, 2]},
        {"modules_to_save": ["lm_head"], "rank_pattern": {r"layers\.1\.self_attn\.k_proj": 2}},
        {"target_modules": ["embed_tokens", "gate_proj"]},
        {"target_modules": ["mlp.up_proj"], "modules_to_save": ["embed_tokens"], "lora_bias": True},
    ],
    ids=str,
)
def test_parameters_are_those_that_peft_trains(model: str, lora: dict[str, Any]) -> None:
    found = catalog.find(model)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(found.folder))
    values = {"target_modules": "all-linear", "r": 16, "lora_alpha": 32, **lora}
    with torch.device("meta"):
        adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **values))
    architecture = read_architecture(found.config, model)
    plain = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(found.folder).parameters())
    assert architecture.parameters == plain
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert trained_by(architecture, lora).parameters == trained


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("target", ["all-linear", ["q_proj", "v_proj"]], ids=str)
@LIBRARY_WARNINGS
def test_what_autograd_saves_of_a_layer(
    kind: str, precision: str, padded: bool, target: Any
) -> None:
    """Every term of the formula, against the storages that autograd really keeps."""
    shape = {
        "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4,
        "num_key_value_heads": 2 if kind == "qwen2" else 4, "vocab_size": 128,
        "tie_word_embeddings": False, "model_type": kind,
    }  # fmt: skip
    rows, length = 2, 48

    def kept(layers: int) -> int:
        config = AutoConfig.for_model(**shape, num_hidden_layers=layers)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        model = get_peft_model(
            AutoModelForCausalLM.from_config(config, dtype=dtype),
            LoraConfig(r=8, target_modules=target, task_type="CAUSAL_LM"),
        )
        model.enable_input_require_grads()
        frozen = {p.untyped_storage().data_ptr() for p in model.parameters()}
        found: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in frozen:
                found[storage.data_ptr()] = storage
            return tensor

        mask = torch.ones(rows, length, dtype=torch.long)
        if padded:
            mask[0, length // 2 :] = 0
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        ):
            ids = torch.zeros(rows, length, dtype=torch.long)
            output = model(input_ids=ids, attention_mask=mask, use_cache=False)
        assert output.logits.requires_grad
        return sum(storage.nbytes() for storage in found.values())

    architecture = read_architecture({**shape, "num_hidden_layers": 1}, kind)
    trained = trained_by(architecture, {"r": 8, "target_modules": target})
    plan = Job(objective_of("sft"), CPU, architecture, trained, 4 if precision == "fp32" else 2)
    cells = rows * length**2 if padded else 0
    said = memory._layer(plan, trained.ranks[0], Micro(rows * length, 1, 1, cells))
    casts = 2 * trained.lora if precision == "bf16" else 0  # once, not for each token
    assert said + casts == pytest.approx(kept(3) - kept(2), rel=0.02)


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
    st.lists(st.integers(20, 1000), min_size=50, max_size=300),
    st.sampled_from([(1, 8), (4, 4), (2, 8)]),
)
def test_a_plan_of_packs_is_what_training_makes_of_them(
    lengths: list[int], batch: tuple[int, int]
) -> None:
    planned = training_batches(packed_batching(*batch), sizes(*lengths))
    made = arrange(np.array(lengths), batch_size=batch[0], accumulation=batch[1], max_length=1000)
    assert planned.longest.tokens == pytest.approx(made.longest, rel=0.15)
    assert planned.passes == pytest.approx(made.per_step, abs=1)
    assert planned.mean.tokens == pytest.approx(sum(lengths) / len(made.packs), rel=0.15)


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
    found = Search(recipe, known, GPU).fit(find_card("8GB").usable)
    assert found is not None
    assert found.words[-1] == "data.on_error=skip"
    limit = int(found.words[-2].removeprefix("data.max_length="))
    assert found.left_out == sum(length > limit for length in range(500, 16_000, 500)) > 0
    nothing = Search(recipe, PlanInputs("x", light, sizes(16_000)), GPU)
    assert nothing.fit(find_card("8GB").usable) is None  # the only sample would be left out
    assert nothing.fit(1e9) is None
    assert "No key" in search.advice(nothing, 1e9)
    room = find_card("8GB").usable
    assert f"data.max_length={limit}" in search.advice(Search(recipe, known, GPU), room)


def test_a_plan_for_one_length_needs_no_data() -> None:
    found = catalog.find("tiny-ax-4.0", weights=False)
    for task, tokens in (("sft", 100), ("kto", 100), ("dpo", 149), ("orpo", 149)):
        recipe = job(task=task, training={"per_device_train_batch_size": 1})
        plan = make_plan(recipe, from_length(recipe, found, 100), GPU)
        assert plan.batches.longest.tokens == plan.batches.mean.tokens == tokens
    with pytest.raises(DataError):
        make_plan(job(), PlanInputs("x", read_architecture(found.config, "x"), sizes(9000)), GPU)


@pytest.mark.parametrize(
    ("text", "name", "size"),
    [
        ("RTX 3060 12GB", "RTX 3060 12GB", 12),
        ("rtx3060", "RTX 3060 12GB", 12),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", 24),
        ("4060 ti 16gb", "RTX 4060 Ti 16GB", 16),
        ("a100-80gb", "A100 80GB", 80),
        ("Tesla T4", "T4", 16),
        ("12GB", "12GB", 12),
        ("7.5 gb", "7.5GB", 7.5),
    ],
)
def test_cards_by_name_and_by_size(text: str, name: str, size: float) -> None:
    card = find_card(text)
    assert (card.name, card.gigabytes) == (name, size)
    assert 0.85 < card.usable / (size * 2**30) < 0.95


def test_an_unknown_card_says_the_nearest() -> None:
    with pytest.raises(AxtuneError, match=r"did you mean RTX 4090\?"):
        find_card("RTX 4099")
    with pytest.raises(AxtuneError, match="1 to 1024 GB"):
        find_card("0GB")
    assert all(find_card(card.name) == card for card in CARDS)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"model_type": "mixtral"}, "mixtral"), ({"hidden_size": None}, "hidden_size")],
)
def test_a_config_that_says_too_little(change: dict[str, Any], said: str) -> None:
    config = {**catalog.find("tiny-ax-4.0", weights=False).config, **change}
    with pytest.raises(CheckpointError, match=said):
        read_architecture(config, "x")


def test_free_memory_is_a_number_of_this_machine() -> None:
    free = free_memory()
    assert free is None or 1e8 < free < 1e14


def test_the_command_prints_a_plan(tmp_path: Path) -> None:
    words = ["plan", str(RECIPES / "sft_qlora.yaml"), "model=tiny-ax-4.0", "--gpu", "RTX 3060"]
    done = axtune(*words, "--gpu", "8GB")
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("longest step", "evaluation", "merge", "saved states", "80GB", "tokens/s", "yes"):
        assert said in done.stdout
    machine = json.loads(axtune(*words, "--json").stdout)
    assert list(machine) == [
        "model", "task", "parameters", "trained_parameters", "samples", "tokens", "longest_tokens",
        "mean_tokens", "steps", "refused_rows", "memory", "host", "cards",
    ]  # fmt: skip
    longest = machine["memory"]["longest_step"]
    parts = sum(longest[name] for name in ("weights", "adapter", "optimizer", "saved", "workspace"))
    assert longest["total"] == pytest.approx(parts + max(longest["recompute"], longest["head"]))
    assert [card["gigabytes"] for card in machine["cards"]] == [12, *SIZES]
    assert machine["cards"][0]["edits"] == []
    assert machine["cards"][0]["seconds"] > 0 < machine["steps"]


def test_the_command_on_wrong_words(tmp_path: Path) -> None:
    recipe = str(RECIPES / "sft_lora.yaml")
    done = axtune("plan", recipe, "model=tiny-ax-4.0", "--gpu", "RTX 3O60")
    assert done.returncode == 1
    assert "did you mean RTX 3060" in done.stderr
    done = axtune("plan", recipe, "modle=x")
    assert done.returncode == 1
    assert "did you mean model?" in done.stderr
    done = axtune("plan", recipe, "model=tiny-ax-4.0", "data.train=none.jsonl")
    assert done.returncode == 1
    assert "none.jsonl" in done.stderr
    rows = write_jsonl(tmp_path / "rows.jsonl", [chat("q", "a"), {}, chat("r", "b")])
    done = axtune("plan", recipe, "model=tiny-ax-4.0", f"data.train={rows}", "--json")
    assert json.loads(done.stdout)["refused_rows"] == 1


@pytest.mark.parametrize("task", ["sft", "dpo", "kto"])
def test_a_plan_reads_the_data_as_training_does(tmp_path: Path, task: str) -> None:
    """The lengths that a plan reads are those that `prepare` writes for the run's own check."""
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.data.dataset import prepare
    from axtune.plan.estimate import from_data

    file = TEMPLATES / ("chat.jsonl" if task == "sft" else "preference.jsonl")
    data = {"train": [{"path": str(file), "weight": 2}], "max_length": 4096}
    recipe = job(task=task, data=data)
    found = catalog.find("tiny-ax-4.0", weights=False)
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
    checkpoint = catalog.find(recipe.model, weights=False)
    assert recipe.quantization is None
    known = from_length(recipe, checkpoint, 64)
    quantized = make_plan(as_quantized(recipe, checkpoint), known, GPU)
    plain = make_plan(recipe, known, GPU)
    assert quantized.longest.weights < plain.longest.weights
    original = catalog.find("tiny-ax-4.0", weights=False)
    assert as_quantized(recipe, original) == recipe
