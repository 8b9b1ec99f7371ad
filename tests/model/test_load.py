from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import LIBRARY_WARNINGS, checkpoint

from axtune.checkpoint import locate
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.errors import (
    AxtuneError,
    CheckpointError,
    MissingPackageError,
    RecipeError,
)
from axtune.model.load import choose_precision, faster_on_this_cpu, load_model, measure
from axtune.model.trained import stops_of

pytestmark = LIBRARY_WARNINGS

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}

needs_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what a CPU can do")


@needs_cpu
def test_a_cpu_trains_in_bf16_and_refuses_fp16():
    assert choose_precision("auto") == "fp32"
    assert choose_precision("fp32") == "fp32"
    with pytest.raises(AxtuneError, match="precision=auto"):
        choose_precision("fp16")


def test_a_cpu_that_emulates_bf16_is_told_what_is_faster(monkeypatch):
    four_bit = {"bnb_4bit_compute_dtype": "bfloat16"}
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert faster_on_this_cpu(None, "fp32") == []
    assert faster_on_this_cpu(four_bit, "bf16") == [
        "precision=fp32", "quantization.bnb_4bit_compute_dtype=float32"
    ]  # fmt: skip
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert faster_on_this_cpu(four_bit, "bf16") == []


@pytest.mark.parametrize("layout", ["4.0", "3.1"])
def test_weights_load_in_the_precision_asked_for_and_stop_at_the_end_of_turn(tmp_path, layout):
    found = checkpoint(tmp_path / "base", layout)
    before = {file.name: file.read_bytes() for file in found.folder.iterdir()}
    tokenizer = load_tokenizer(found)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        model = load_model(found, tokenizer, precision=precision)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert found.config["eos_token_id"] == 0  # the trap is there
    assert model.config.eos_token_id == model.generation_config.eos_token_id == 27
    assert model.config.pad_token_id == model.generation_config.pad_token_id == 1
    assert model.name_or_path == found.name
    assert {file.name: file.read_bytes() for file in found.folder.iterdir()} == before


def test_a_folder_that_learned_documents_stops_at_their_end_too(tmp_path):
    found = checkpoint(tmp_path / "base")
    file = found.folder / "generation_config.json"
    file.write_text('{"eos_token_id": [27, 0], "pad_token_id": 1}')
    again = locate.find(str(found.folder))
    model = load_model(again, load_tokenizer(again), precision="fp32")
    assert stops_of(model) == {27, 0}
    file.write_text('{"eos_token_id": [0]}')  # no end of a turn: as little worth as config.json's
    again = locate.find(str(found.folder))
    assert stops_of(load_model(again, load_tokenizer(again), precision="fp32")) == {27}


def test_a_missing_tensor_is_an_error_not_a_random_layer(tmp_path):
    found = checkpoint(tmp_path / "base")
    weights = load_file(found.folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, found.folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 .*layers\.1\.mlp\.up_proj"):
        load_model(found, load_tokenizer(found), precision="bf16")


def test_weights_of_another_shape_are_a_sentence(tmp_path):
    found = checkpoint(tmp_path / "base")
    config = {**found.config, "intermediate_size": 192}
    (found.folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match=r"the shape \[128, 64\]; config.json wants \[192, 64\]"
    ):
        load_model(found, load_tokenizer(found), precision="bf16")


def test_four_bit_layers_are_really_four_bit(tmp_path):
    from bitsandbytes.nn import Linear4bit

    found = checkpoint(tmp_path / "base")
    tokenizer = load_tokenizer(found)
    plain = load_model(found, tokenizer, precision="bf16")
    model = load_model(found, tokenizer, precision="bf16", quantization=NF4)
    linear = [m for m in model.modules() if isinstance(m, Linear4bit)]
    assert len(linear) == 2 * 7  # q, k, v, o, gate, up, down of both layers
    assert linear[0].weight.dtype == torch.uint8
    assert linear[0].weight.quant_state.quant_type == "nf4"
    assert model.lm_head.weight.dtype == torch.bfloat16
    size = measure(model)
    assert size.quantized_layers == 14
    assert size.total == measure(plain).total
    ids = torch.arange(40, 56)[None]
    logits, reference = model(ids).logits.float(), plain(ids).logits.float()
    assert not torch.equal(logits, reference)
    assert torch.nn.functional.cosine_similarity(logits, reference, dim=-1).min() > 0.95


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bnb_4bit_compute_dtype", "bfloat17"),
        ("bnb_4bit_quant_type", "nf5"),
        ("bnb_4bit_quant_storage", "pickle"),
        ("bnb_4bit_use_double_quant", "perhaps"),
    ],
)
def test_a_wrong_quantization_value_names_its_key(tmp_path, key, value):
    found = checkpoint(tmp_path / "base")
    with pytest.raises(RecipeError, match=rf"quantization\.{key}: "):
        load_model(found, load_tokenizer(found), precision="bf16", quantization={**NF4, key: value})


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="it is installed")
def test_flash_attention_without_its_package_says_how_to_get_it(tmp_path):
    found = checkpoint(tmp_path / "base")
    with pytest.raises(MissingPackageError, match="pip install flash-attn"):
        load_model(found, load_tokenizer(found), precision="bf16", attention="flash_attention_2")


@needs_cpu
def test_flex_attention_wants_a_gpu(tmp_path):
    found = checkpoint(tmp_path / "m")
    with pytest.raises(AxtuneError, match="flex_attention needs a GPU"):
        load_model(found, load_tokenizer(found), precision="bf16", attention="flex_attention")


def test_attention_kernels_agree(tmp_path):
    found = checkpoint(tmp_path / "base")
    tokenizer = load_tokenizer(found)
    ids = torch.arange(40, 56)[None]
    sdpa = load_model(found, tokenizer, precision="fp32")
    eager = load_model(found, tokenizer, precision="fp32", attention="eager")
    assert (sdpa.config._attn_implementation, eager.config._attn_implementation) == (
        "sdpa",
        "eager",
    )
    torch.testing.assert_close(sdpa(ids).logits, eager(ids).logits, rtol=1e-4, atol=1e-5)


MEMORY_FREED = """
import re, sys
from pathlib import Path
import torch
from axtune.checkpoint.locate import find
from axtune.checkpoint import locate
from axtune.model.trained import stops_of
from axtune.model.load import load_model
from axtune.checkpoint.tokenizer import load_tokenizer

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

base = find(sys.argv[1])
load_model(base, load_tokenizer(base), precision="fp32")
torch.ones(7 << 20)  # 28 MB, freed at once: glibc would keep all that is smaller from now on
tensors = [torch.ones(1 << 20) for _ in range(40)]
before = resident()
del tensors[::2]
print(before - resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's allocator")
def test_memory_between_tensors_that_stay_is_given_back(tmp_path):
    words = [sys.executable, "-c", MEMORY_FREED, str(checkpoint(tmp_path / "base").folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0.9 * 20 * (4 << 20)
