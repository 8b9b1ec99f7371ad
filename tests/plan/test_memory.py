"""The formulas of memory, against known figures and what autograd keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.live_memory import LivePeak
from support.plans import RECIPES
from support.tiny import LIBRARY_WARNINGS
from transformers import AutoConfig, AutoModelForCausalLM

from axtune.config import loader
from axtune.config.objective import objective_of
from axtune.model import tiles
from axtune.plan import memory
from axtune.plan.architecture import Architecture, read_architecture, trained_by
from axtune.plan.estimate import job_of
from axtune.plan.memory import CPU, GPU, Job, Micro


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


# A sixteenth of A.X's widths, so that matrices and activations are in their proportions.
SHAPES = {
    "qwen2": {"hidden_size": 224, "intermediate_size": 1184, "num_attention_heads": 7,
              "num_key_value_heads": 1},
    "llama": {"hidden_size": 256, "intermediate_size": 680, "num_attention_heads": 8,
              "num_key_value_heads": 8},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tokens", [128, 512])
@pytest.mark.parametrize("lora", [{}, {"lora_dropout": 0.1}, {"use_dora": True}], ids=str)
@LIBRARY_WARNINGS
def test_what_a_checkpointed_step_takes(
    kind: str, precision: str, tokens: int, lora: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan of all but the head, against the tensors that are really alive."""
    monkeypatch.setattr(memory, "TILE", 128)
    shape = {"vocab_size": 128, "tie_word_embeddings": False, "model_type": kind, **SHAPES[kind]}
    torch.manual_seed(0)
    config = AutoConfig.for_model(**shape, num_hidden_layers=3)
    lora = {"r": 4, "target_modules": "all-linear", **lora}
    model = get_peft_model(
        AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16 if precision == "bf16" else torch.float32
        ),
        LoraConfig(**lora, task_type="CAUSAL_LM"),
    )
    model.enable_input_require_grads()
    model.train()
    base = model.get_base_model()
    base.activation_checkpointing_enable({"use_reentrant": False})
    tiles.install(base)
    with LivePeak(model) as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            ids = torch.zeros(1, tokens, dtype=torch.long)
            states = base.model(input_ids=ids, use_cache=False).last_hidden_state
        loss = states[0, -1].float().sum()
        del states
        live.peak = live.now  # the forward pass takes less
        loss.backward()
    architecture = read_architecture({**shape, "num_hidden_layers": 3}, kind)
    trained = trained_by(architecture, lora)
    job = Job(objective_of("sft"), CPU, architecture, trained, 4 if precision == "fp32" else 2)
    said = memory.training(job, Micro(tokens, 1, 1))
    gradients = 4 * trained.parameters
    wanted = said.saved + said.recompute + said.workspace - CPU.library + gradients
    assert wanted == pytest.approx(live.peak, rel=0.2)


# As A.X 4.0's would be if it were Qwen2.5-72B's with A.X's vocabulary.
LARGE = {
    "model_type": "qwen2", "hidden_size": 8192, "intermediate_size": 29_568,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
    "vocab_size": 102_400, "tie_word_embeddings": False,
}  # fmt: skip


def large(**changes: Any) -> Job:
    architecture = read_architecture(LARGE, "large")
    linear = architecture.linear_parameters
    trained = trained_by(architecture, {"r": 16, "target_modules": "all-linear"})
    four_bit = {"quantized": linear, "four_bit": memory.four_bit_bytes(double=True), "compute": 2}
    return Job(objective_of("sft"), memory.GPU, architecture, trained, 2, **(four_bit | changes))


def test_shares_add_up_to_the_whole_but_for_the_scales() -> None:
    one, four = (
        memory.training(large(processes=count, sharded=True), Micro(2048, 2048, 2048))
        for count in (1, 4)
    )
    scales = (memory.four_bit_bytes(double=True) - 0.5) * large().quantized
    assert 4 * (four.weights - scales) == pytest.approx(one.weights - scales)
    assert 4 * four.optimizer == one.optimizer
    assert one.adapter / 2 < four.adapter < one.adapter  # gradients are whole until a step's end
    assert four.saved == one.saved  # each process has samples of its own
    assert four.workspace > one.workspace  # a layer is whole while it computes
    assert four.total < 24e9 < one.total < 80e9


def test_copies_save_no_memory() -> None:
    micro = Micro(2048, 2048, 2048)
    assert memory.training(large(processes=4), micro) == memory.training(large(), micro)


def test_what_goes_between_the_processes() -> None:
    trained = 4.0 * large().trained.parameters
    assert memory.exchanged(large(), passes=4) == 0
    assert memory.exchanged(large(processes=4), passes=4) == 2 * trained * 3 / 4
    once, twice = (
        memory.exchanged(large(processes=4, sharded=True), passes=passes) for passes in (1, 2)
    )
    # The whole base, once forward and once backward, for each micro-batch; gradients once a step.
    assert twice - once == pytest.approx(2 * 3 / 4 * 37.7e9, rel=0.05)
    assert 2 * once - twice == pytest.approx(trained * 3 / 4)
