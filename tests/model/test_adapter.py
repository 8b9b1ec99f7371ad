from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.adapters import adapter_for, in_float32, logits
from support.tiny import LIBRARY_WARNINGS, checkpoint

from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.errors import AxtuneError, RecipeError
from axtune.model.adapter import add_adapter, load_adapter, lora_config, save_raw, tensors_of
from axtune.model.load import load_model, measure

pytestmark = LIBRARY_WARNINGS

IDS = torch.arange(40, 72)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    found = checkpoint(tmp_path_factory.mktemp("base") / "m")
    tokenizer = load_tokenizer(found)

    def load(precision="fp32", **options):
        return load_model(found, tokenizer, precision=precision, **options)

    return load


def train_a_little(model):
    """Move every trained weight, as training does."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)


def test_defaults_are_rank_16_on_every_linear_layer_but_the_head(base):
    model = add_adapter(base(), {}, seed=0).model
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.task_type) == (16, 32, "CAUSAL_LM")
    adapted = {name.split(".")[-2] for name, _ in model.named_modules() if name.endswith("lora_A")}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    # r (in + out) of each layer: q, o 64+64; k, v 64+32; gate, up, down 64+128.
    assert measure(model).trainable == 2 * 16 * (2 * 128 + 2 * 96 + 3 * 192)


def test_names_of_peft_pass_through():
    config = lora_config(
        {"r": 4, "use_dora": True, "use_rslora": True, "target_modules": ["q_proj"]}
    )
    assert (config.r, config.use_dora, config.use_rslora) == (4, True, True)
    assert config.target_modules == {"q_proj"}


@pytest.mark.parametrize("quantization", [None, {"load_in_4bit": True}])
def test_adapter_weights_are_float32_over_a_16_bit_or_4_bit_base(base, quantization):
    model = add_adapter(base("bf16", quantization=quantization), {}, seed=0).model
    trained = {p.dtype for p in model.parameters() if p.requires_grad}
    assert trained == {torch.float32}


def test_the_seed_decides_the_adapter(base):
    def weights(seed):
        model = add_adapter(base(), {"r": 4}, seed=seed).model
        return torch.cat([p.flatten() for p in model.parameters() if p.requires_grad])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"r": "many"}, "lora.r"),
        ({"r": 0}, "lora.r"),
        ({"lora_dropout": [1]}, "lora.lora_dropout"),
        ({"bias": "some"}, "lora.bias"),
        ({"target_modules": ["nope_proj"]}, "lora.target_modules"),
        ({"target_modules": ["lm_head"]}, "lora.target_modules"),
        ({"target_modules": ["q_proj", "nope_proj"]}, "lora.target_modules: nope_proj fits no"),
        ({"modules_to_save": ["norm", "nope"]}, "lora.modules_to_save: nope fits no layer"),
        ({"rank_pattern": {"q_prj": 2}}, "lora.rank_pattern: q_prj .*did you mean q_proj"),
        ({"target_parameters": ["mlp.weight"]}, "lora.target_parameters: .* cannot be merged"),
        ({"layer_replication": [[0, 2]]}, "lora.layer_replication: .* cannot be merged"),
        ({"init_lora_weights": "eva"}, "lora.init_lora_weights"),
        ({"init_lora_weights": "magic"}, "lora.init_lora_weights"),
        ({"rank_patern": {}}, "lora.rank_patern"),
    ],
)
def test_a_wrong_value_names_its_key(base, values, key):
    with pytest.raises(RecipeError, match=rf"{key}: " if " " not in key else key):
        add_adapter(base(), values, seed=0)


def test_pissa_over_a_4_bit_base_is_refused(base):
    model = base("bf16", quantization={"load_in_4bit": True})
    with pytest.raises(RecipeError, match="4-bit base does not keep"):
        add_adapter(model, {"init_lora_weights": "pissa"}, seed=0)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_4", "use_rslora": True},
        {"init_lora_weights": "pissa", "use_dora": True},
        {
            "init_lora_weights": "olora",
            "rank_pattern": {"q_proj": 2},
            "alpha_pattern": {"v_proj": 3},
        },
        {"init_lora_weights": "pissa", "use_rslora": True, "rank_pattern": {"q_proj": 2}},
        {"modules_to_save": ["lm_head"]},
    ],
    ids=str,
)
def test_a_saved_adapter_on_the_original_base_is_the_trained_model(base, tmp_path, values):
    adapter = add_adapter(base(), {"r": 4, "lora_alpha": 8, **values}, seed=0)
    original = base()(IDS).logits
    train_a_little(adapter.model)
    trained = adapter.model.eval()(IDS).logits
    assert (trained - original).abs().max() > 0.01  # the adapter does something

    adapter.save(tmp_path)

    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["init_lora_weights"] is True
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = PeftModel.from_pretrained(base(), str(tmp_path)).eval()
    torch.testing.assert_close(loaded(IDS).logits, trained, rtol=1e-4, atol=1e-4)


def test_a_raw_pissa_adapter_would_not_fit_the_original_base(base, tmp_path):
    adapter = add_adapter(base(), {"r": 4, "init_lora_weights": "pissa"}, seed=0)
    train_a_little(adapter.model)
    trained = adapter.model.eval()(IDS).logits
    save_raw(adapter.model, tmp_path, tensors_of(adapter.model))
    file = tmp_path / "adapter_config.json"
    config = json.loads(file.read_text()) | {"init_lora_weights": True}
    file.write_text(json.dumps(config))
    loaded = PeftModel.from_pretrained(base(), str(tmp_path)).eval()
    assert (loaded(IDS).logits - trained).abs().max() > 0.01


def test_an_adapter_names_its_base_as_the_user_did_and_nothing_else_of_the_machine(base, tmp_path):
    model = base()
    model.name_or_path = "skt/A.X-4.0-Light"
    add_adapter(model, {}, seed=0).save(tmp_path)
    text = (tmp_path / "adapter_config.json").read_text()
    assert json.loads(text)["base_model_name_or_path"] == "skt/A.X-4.0-Light"
    assert str(tmp_path.parent) not in text
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert all(".lora_" in key for key in set(file.keys()))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda file: file.unlink(), "lacks adapter_model.safetensors"),
        (lambda file: file.write_bytes(b"junk"), "is not a safetensors file"),
        (lambda file: file.write_bytes(file.read_bytes()[:-8]), "is not a safetensors file"),
    ],
    ids=["absent", "junk", "cut"],
)
def test_an_adapter_without_its_weights_is_refused_and_asked_of_nobody(
    base, tmp_path, monkeypatch, break_it, message
):
    made = add_adapter(base(), {"r": 2}, seed=0)
    made.save(tmp_path)
    assert load_adapter(base(), tmp_path).peft_config["default"].r == 2
    break_it(tmp_path / "adapter_model.safetensors")

    def connect(*_):
        raise AssertionError("a local folder is no name of the Hub")

    monkeypatch.setattr("socket.socket.connect", connect)
    with pytest.raises(AxtuneError, match=message):
        load_adapter(base(), tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head", "embed_tokens"]},
        {"trainable_token_indices": {"embed_tokens": [3, 5]}},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["lm_head"], "rank_pattern": {"lm_head": 2}},
        {"layers_to_transform": [1]},
    ],
    ids=str,
)
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_what_peft_saves_is_loaded_as_peft_loads_it(tmp_path, options, low_cpu_mem_usage):
    found = checkpoint(tmp_path / "m")
    folder = adapter_for(found, tmp_path / "adapter", **options)
    expected = PeftModel.from_pretrained(in_float32(found.folder), str(folder))
    loaded = load_adapter(in_float32(found.folder), folder, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(logits(loaded), logits(expected))


def trained(base, folder: Path) -> Path:
    adapter = add_adapter(base(), {"r": 4, "lora_alpha": 8}, seed=0)
    train_a_little(adapter.model)
    adapter.save(folder)
    return folder


def rename(folder: Path, change) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({change(name): tensor for name, tensor in load_file(file).items()}, file)


@pytest.mark.parametrize(
    "change",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda name: name.replace(".weight", ".default.weight"),
        lambda name: name.replace("base_model.model.model.", "base_model.model."),
    ],
    ids=["ddp", "compiled", "compiled inside", "named", "decoder"],
)
def test_an_adapter_saved_from_a_wrapper_is_the_same_adapter(base, tmp_path, change):
    adapter = trained(base, tmp_path)
    expected = logits(load_adapter(base(), adapter))
    assert not torch.equal(expected, logits(base()))
    rename(adapter, change)
    assert torch.equal(logits(load_adapter(base(), adapter)), expected)


def test_tensors_without_a_place_and_places_without_a_tensor_are_refused(base, tmp_path):
    adapter = trained(base, tmp_path)
    rename(adapter, lambda name: name.replace("base_model.model.", "base_model.net."))
    with pytest.raises(AxtuneError, match=r"holds base_model\.net\..* has no place for"):
        load_adapter(base(), adapter)
    rename(adapter, lambda name: name.replace("base_model.net.", "base_model.model."))
    file = adapter / "adapter_model.safetensors"
    less = {name: tensor for name, tensor in load_file(file).items() if "1.mlp.up" not in name}
    save_file(less, file)
    with pytest.raises(AxtuneError, match=r"lacks 2 of the tensors that adapter_config"):
        load_adapter(base(), adapter)


def test_numbers_that_are_not_finite_are_not_loaded(base, tmp_path):
    adapter = trained(base, tmp_path)
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name][0, :3] = float("nan")
    save_file(tensors, file)
    with pytest.raises(AxtuneError, match=rf"{name} holds numbers that are not finite \(3\)"):
        load_adapter(base(), adapter)


@pytest.mark.parametrize("name", ["pissa", "olora", "corda", "loftq", "lora_ga"])
def test_a_raw_adapter_whose_initialisation_moved_the_base_is_refused(base, tmp_path, name):
    adapter = trained(base, tmp_path)
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "init_lora_weights": name}))
    with pytest.raises(AxtuneError, match=f"initialised with {name}"):
        load_adapter(base(), adapter)
