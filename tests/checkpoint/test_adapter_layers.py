"""Which layers a LoRA's configuration means: as PEFT itself decides, on a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from support.adapters import in_float32
from support.tiny import LIBRARY_WARNINGS, checkpoint
from transformers import PreTrainedModel

from axtune.checkpoint.adapter_layers import (
    differing_tensors,
    modules_of,
    targeted,
    unmatched,
)
from axtune.checkpoint.saved_adapter import PREFIX

pytestmark = LIBRARY_WARNINGS

FOUR = ["q_proj", "k_proj", "o_proj", "down_proj"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("base") / "m").folder


@pytest.fixture(scope="module")
def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in in_float32(folder).state_dict().items()}


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": "all-linear"},
        {"target_modules": FOUR},
        {"target_modules": ["model.layers.0.self_attn.q_proj", "up_proj"]},
        {"target_modules": r".*\.layers\.1\..*_proj"},
        {"target_modules": FOUR, "exclude_modules": ["q_proj", "layers.0.mlp.down_proj"]},
        {"target_modules": FOUR, "exclude_modules": r".*\.0\..*"},
        {"target_modules": FOUR, "layers_to_transform": 1},
        {"target_modules": FOUR, "layers_to_transform": [0], "layers_pattern": "layers"},
        {"target_modules": FOUR, "modules_to_save": ["lm_head", "norm"]},
        {"target_modules": FOUR, "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj", "gate_proj"], "modules_to_save": ["mlp"]},
        {"target_modules": FOUR, "bias": "all"},
        {"target_modules": FOUR, "bias": "lora_only"},
        {"target_modules": FOUR, "lora_bias": True},
        {"target_modules": FOUR, "use_dora": True},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": FOUR, "trainable_token_indices": [3]},
    ],
    ids=str,
)
def test_it_means_what_peft_makes(
    folder: Path, shapes: dict[str, tuple[int, ...]], options: dict[str, Any]
) -> None:
    made = get_peft_model(in_float32(folder), LoraConfig(r=4, task_type="CAUSAL_LM", **options))
    names = {
        name.removeprefix(PREFIX)
        for name in get_peft_model_state_dict(made, save_embedding_layers=False)
    }
    assert differing_tensors(options, names, shapes) == ([], [])
    layers = {name.partition(".lora_")[0] for name in names if ".lora_" in name}
    assert layers == set(targeted(options, shapes))
    assert list(unmatched(options, modules_of(shapes))) == []
    # And the tensors of one layer more or less are noticed.
    one = sorted(layers)[0]
    fewer = {name for name in names if not name.startswith(f"{one}.lora_")}
    assert differing_tensors(options, fewer, shapes)[0]
    stranger = "model.layers.0.self_attn.v_proj.lora_A.weight"
    if stranger not in names:
        assert differing_tensors(options, {*names, stranger}, shapes) == ([], [stranger])


def test_embeddings_that_are_saved_beside_it_are_no_strangers(
    shapes: dict[str, tuple[int, ...]],
) -> None:
    options = {"target_modules": ["lm_head"]}
    names = {"lm_head.lora_A.weight", "lm_head.lora_B.weight"}
    whole = {"model.embed_tokens.weight", "lm_head.base_layer.weight"}
    assert differing_tensors(options, names | whole, shapes) == ([], [])


@pytest.mark.parametrize(
    ("options", "key", "said"),
    [
        ({"target_modules": ["q_proj", "nosuch"]}, "target_modules", "nosuch fits no layer"),
        ({"target_modules": ["q_porj"]}, "target_modules", "did you mean q_proj"),
        ({"target_modules": ["proj"]}, "target_modules", "proj fits no layer"),
        ({"target_modules": "x.*"}, "target_modules", "it has down_proj, embed_tokens, "),
        ({"exclude_modules": ["lmhead"]}, "exclude_modules", "did you mean lm_head"),
        ({"exclude_modules": r"lm\.head"}, "exclude_modules", "fits no layer"),
        ({"modules_to_save": ["lm_head", "scor"]}, "modules_to_save", "scor fits no layer"),
        ({"rank_pattern": {"q_prj": 3}}, "rank_pattern", "q_prj fits no layer"),
        ({"alpha_pattern": {"q_proj": 3, "zz": 1}}, "alpha_pattern", "zz fits no layer"),
        ({"layers_to_transform": [0, 2]}, "layers_to_transform", "no layer 2; expected 0 to 1."),
        ({"layers_to_transform": 1, "layers_pattern": ["h"]}, "layers_pattern", "h holds no"),
    ],
    ids=str,
)
def test_a_name_that_fits_nothing_is_told_with_near_ones(
    shapes: dict[str, tuple[int, ...]], options: dict[str, Any], key: str, said: str
) -> None:
    ((found, message),) = unmatched(options, modules_of(shapes))
    assert found == key
    assert said in message
    assert message.endswith((".", "?"))


def test_the_modules_of_names_are_the_models(folder: Path) -> None:
    model: PreTrainedModel = in_float32(folder)
    own = {name for name, module in model.named_modules() if any(True for _ in module.parameters())}
    assert set(modules_of(model.state_dict())) == own - {""}
