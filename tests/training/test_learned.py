"""A run that moved no weight is refused, whatever it trains; every other one is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.adapters import in_float32
from support.tiny import LIBRARY_WARNINGS, checkpoint, recipe

from axtune.checkpoint.locate import Checkpoint
from axtune.errors import AxtuneError
from axtune.run import train
from axtune.training.learned import Beginning

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(tmp_path_factory.mktemp("base") / "m")


def adapted(base: Checkpoint, **options: Any) -> PeftModel:
    config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], **options}
    torch.manual_seed(0)
    model = get_peft_model(in_float32(base.folder), LoraConfig(task_type="CAUSAL_LM", **config))
    assert isinstance(model, PeftModel)
    return model


def move(model: PeftModel, part: str, by: float) -> None:
    """Add a number to what is trained and has a part in its name."""
    with torch.no_grad():
        moved = [p for name, p in model.named_parameters() if part in name and p.requires_grad]
        assert moved
        for parameter in moved:
            parameter.add_(by)


def refused(beginning: Beginning) -> bool:
    try:
        beginning.require_learned()
    except AxtuneError as error:
        return "has learned nothing" in error.found
    return False


@pytest.mark.parametrize("init", [True, "pissa", "olora"])
def test_what_has_not_moved(base: Checkpoint, init: Any) -> None:
    model = adapted(base, init_lora_weights=init)
    beginning = Beginning(model)
    assert refused(beginning)
    move(model, "lora_B", 1e-20)
    assert refused(beginning)
    move(model, "lora_B", 1e-8)
    assert not refused(beginning)


def test_a_alone_moves_nothing_as_long_as_b_is_0(base: Checkpoint) -> None:
    model = adapted(base)
    beginning = Beginning(model)
    move(model, "lora_A", 1e-3)
    assert refused(beginning)


def test_of_an_adapter_that_is_trained_further_it_is_what_was_added(base: Checkpoint) -> None:
    model = adapted(base)
    move(model, "lora_B", 0.1)
    beginning = Beginning(model)
    assert refused(beginning)
    move(model, "lora_A", 1e-6)
    assert not refused(beginning)


def test_a_scale_of_0_adds_nothing(base: Checkpoint) -> None:
    model = adapted(base, alpha_pattern={".*": 0})
    beginning = Beginning(model)
    move(model, "lora_B", 0.1)
    assert refused(beginning)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"use_dora": True}, "magnitude"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, ".bias"),
        ({"trainable_token_indices": [3, 4]}, "trainable_tokens"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "lora_embedding_A"),
    ],
    ids=str,
)
def test_what_is_trained_beside_the_pairs_counts(
    base: Checkpoint, options: dict[str, Any], part: str
) -> None:
    model = adapted(base, **options)
    beginning = Beginning(model)
    assert refused(beginning)
    move(model, part, 1e-4)
    assert not refused(beginning)


@pytest.mark.parametrize("rank", [1, 4])
def test_it_is_the_norm_of_the_difference(base: Checkpoint, rank: int) -> None:
    model = adapted(base, r=rank, target_modules=["q_proj"])
    layers: dict[str, Any] = {
        name: module for name, module in model.named_modules() if hasattr(module, "lora_A")
        and "default" in module.lora_A
    }  # fmt: skip
    delta: Callable[[Any], torch.Tensor] = lambda layer: layer.get_delta_weight("default").clone()  # noqa: E731
    move(model, "lora_B", 0.3)
    beginning = Beginning(model)
    before = {name: delta(layer) for name, layer in layers.items()}
    move(model, "lora_B", 0.01)
    move(model, "lora_A", -0.02)
    for name, layer in layers.items():
        expected = torch.linalg.norm(delta(layer) - before[name]).item()
        assert beginning._added(name, layer) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_a_run_that_learned_nothing_fails_and_writes_no_adapter(tmp_path: Path) -> None:
    still = {"optim": "sgd", "learning_rate": 1e-10, "max_grad_norm": 1e-8}
    with pytest.raises(AxtuneError, match="has learned nothing"):
        train(recipe(tmp_path, training=still))
    run = tmp_path / "run"
    assert json.loads((run / "manifest.json").read_text(encoding="utf-8"))["status"] == "failed"
    assert not (run / "adapter").exists()
