"""What the ways of initialising a LoRA do to the base, held against PEFT itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from axtune.config.initialisation import initialisation


@pytest.mark.parametrize(
    "start", [True, False, "gaussian", "orthogonal", "pissa", "pissa_niter_2", "olora"]
)
def test_the_base_moves_where_the_table_says_so(start: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(16, 8))
    before = model[0].weight.detach().clone()
    get_peft_model(model, LoraConfig(r=2, target_modules=["0"], init_lora_weights=start))
    moved = not torch.equal(model[0].base_layer.weight, before)
    assert initialisation({"init_lora_weights": start}).moves_base is moved


def test_names_go_on_and_are_kept() -> None:
    found = initialisation({"init_lora_weights": "PiSSA_niter_4"})
    assert (found.name, found.moves_base, found.needs_preparation) == ("pissa_niter_4", True, False)


@pytest.mark.parametrize("start", ["corda", "loftq", "lora_ga", "eva"])
def test_some_want_a_pass_before_training(start: str) -> None:
    found = initialisation({"init_lora_weights": start})
    assert found.needs_preparation
    assert found.moves_base is (start != "eva")


def test_the_default_only_fills_the_adapter() -> None:
    found = initialisation({})
    assert (found.moves_base, found.needs_preparation) == (False, False)
