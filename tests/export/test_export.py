"""Exports: the same model in the layout, dtype and files that another program wants."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.adapters import (
    adapter_for,
    in_float32,
    logits,
    run_with,
    sharded_checkpoint,
    tensors_of,
)
from support.killed import files_of_at_most
from support.tiny import LIBRARY_WARNINGS
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from axtune.checkpoint import locate
from axtune.checkpoint.locate import TOKENIZER_FILES, Checkpoint
from axtune.checkpoint.record import differences
from axtune.checkpoint.tokenizer import PROBES, load_tokenizer
from axtune.errors import AxtuneError, CheckpointError
from axtune.export import k_quants
from axtune.export.calibration import RoundingOptions
from axtune.export.export import export
from axtune.export.four_bit import FourBitOptions
from axtune.export.gguf import gguf_file
from axtune.weights.merge import merge
from axtune.weights.safetensors_file import read_checkpoint

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def base31(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base31") / "model", "3.1")


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def test_the_llama_layout_computes_the_same_to_the_last_bit(
    base: Checkpoint, tmp_path: Path
) -> None:
    export(str(base.folder), tmp_path / "out", to="vllm")
    model = in_float32(tmp_path / "out")
    assert type(model).__name__ == "LlamaForCausalLM"
    original = in_float32(base.folder)
    assert type(original).__name__ == "Qwen2ForCausalLM"
    assert torch.equal(logits(model), logits(original))
    prompt = torch.tensor([[25, 8, 2000, 27]])
    texts = [
        each.generate(prompt, max_new_tokens=20, do_sample=False, pad_token_id=1)
        for each in (model, original)
    ]
    assert torch.equal(*texts)
    ours, theirs = tensors_of(tmp_path / "out"), tensors_of(base.folder)
    assert {name for name in theirs if not torch.equal(ours[name], theirs[name])} == set()
    added = {f"model.layers.{layer}.self_attn.o_proj.bias" for layer in range(2)}
    assert ours.keys() - theirs.keys() == added
    assert not any(ours[name].any() for name in added)


def test_a_vllm_folder_says_what_an_engine_reads(base: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported = export(str(base.folder), out, to="vllm")
    config = config_of(out)
    assert config["model_type"] == "llama"
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["attention_bias"] is True
    assert config["eos_token_id"] == 27
    gone = {"layer_types", "max_window_layers", "sliding_window", "use_sliding_window"}
    assert not gone & config.keys()
    kept = base.config.keys() - gone - {"model_type", "architectures", "eos_token_id"}
    assert {key: config[key] for key in kept} == {
        key: base.config[key] for key in kept - {"pad_token_id"}
    } | ({"pad_token_id": 1} if "pad_token_id" in kept else {})
    tokenizer_config = json.loads((out / "tokenizer_config.json").read_text())
    original = json.loads((base.folder / "tokenizer_config.json").read_text())
    assert tokenizer_config == {**original, "tokenizer_class": "PreTrainedTokenizerFast"}
    for name in set(TOKENIZER_FILES) - {"tokenizer_config.json"}:
        if (base.folder / name).is_file():
            assert (out / name).read_bytes() == (base.folder / name).read_bytes()
    assert exported.notes == ("config.json ends a turn with 27 now, not 0.",)
    assert exported.command is not None
    assert exported.command in (out / "SERVING.md").read_text()
    assert exported.command == (
        f"vllm serve {out} --served-model-name out --max-model-len 512 "
        "--enable-auto-tool-choice --tool-call-parser hermes"
    )


@pytest.mark.parametrize("model", ["tiny-ax-4.0", "tiny-ax-3.1"])
def test_auto_classes_load_a_vllm_folder_right(model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(model, out, to="vllm")
    declared = load_tokenizer(model)
    auto = AutoTokenizer.from_pretrained(out)
    for probe in (*PROBES, "<|im_start|><|user|>2024년<|im_end|>"):
        assert auto.encode(probe, add_special_tokens=False) == declared.encode(probe)
    messages = [{"role": "user", "content": "안녕하세요, 1234원입니다."}]
    text = auto.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == declared.render(messages, None, add_generation_prompt=True)
    assert auto.eos_token_id == 27
    AutoModelForCausalLM.from_pretrained(out)


def test_an_hf_folder_keeps_its_layout_and_says_how_to_load_it(
    base: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    exported = export(str(base.folder), out, to="hf")
    assert exported.command is None
    assert config_of(out)["model_type"] == "qwen2"
    assert torch.equal(logits(in_float32(out)), logits(in_float32(base.folder)))
    for name in (*TOKENIZER_FILES, "generation_config.json", "model.safetensors.index.json"):
        if (base.folder / name).is_file():
            assert (out / name).read_bytes() == (base.folder / name).read_bytes()
    notes = (out / "README.md").read_text()
    assert 'PreTrainedTokenizerFast.from_pretrained("THIS_FOLDER")' in notes
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
    declared = load_tokenizer(base)
    for probe in PROBES:
        assert tokenizer.encode(probe, add_special_tokens=False) == declared.encode(probe)
    with pytest.raises(AxtuneError, match="exists already"):
        export(str(base.folder), out)


def test_a_llama_checkpoint_keeps_its_layout(base31: Checkpoint, tmp_path: Path) -> None:
    export(str(base31.folder), tmp_path / "out", to="vllm")
    assert torch.equal(logits(in_float32(tmp_path / "out")), logits(in_float32(base31.folder)))
    config = config_of(tmp_path / "out")
    assert {**config, "eos_token_id": 0} == {**base31.config, "pad_token_id": 1}
    assert tensors_of(tmp_path / "out").keys() == tensors_of(base31.folder).keys()


def test_a_run_is_merged_and_laid_out_in_one_pass(base: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_for(base, tmp_path / "adapter", use_dora=True)
    run = run_with(adapter, base, tmp_path / "run")
    merge([run], None, run / "merged")  # a checkpoint, though it lies in a run
    export(str(run / "merged"), tmp_path / "two", to="vllm")
    for name, source in (("one", run), ("from-adapter", adapter)):
        export(source, tmp_path / name, to="vllm", base=str(base.folder))
        ours, theirs = tensors_of(tmp_path / name), tensors_of(tmp_path / "two")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(logits(in_float32(tmp_path / "one")), logits(in_float32(base.folder)))


def test_dtype_and_shard_size(base: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(str(base.folder), out, dtype="float16", max_shard_size="50KB")
    files = read_checkpoint(out)
    assert len(files) > 3
    for tensors in files.values():
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors) <= 50_000
    assert config_of(out)["torch_dtype"] == "float16"
    originals = tensors_of(base.folder)
    for name, tensor in tensors_of(out).items():
        assert torch.equal(tensor, originals[name].float().half())
    export(str(base.folder), tmp_path / "one", max_shard_size="1GiB", dtype="float32")
    assert list(read_checkpoint(tmp_path / "one")) == ["model.safetensors"]
    assert torch.equal(logits(in_float32(tmp_path / "one")), logits(in_float32(base.folder)))
    with pytest.raises(AxtuneError, match="is not a file size"):
        export(str(base.folder), tmp_path / "none", max_shard_size="large")


def test_what_llama_cannot_hold_is_refused(base: Checkpoint, tmp_path: Path) -> None:
    config = json.loads((base.folder / "config.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    for file in base.folder.iterdir():
        (other / file.name).symlink_to(file)
    for change, message in (
        ({"use_sliding_window": True}, "sliding window"),
        ({"model_type": "mistral"}, "is a mistral model"),
    ):
        (other / "config.json").unlink()
        (other / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=message):
            export(str(other), tmp_path / "out", to="vllm")
    with pytest.raises(AxtuneError, match="splits every digit"):
        export(str(base.folder), tmp_path / "out", to="vllm", layout="own")
    with pytest.raises(AxtuneError, match="is not a run"):
        export(str(base.folder), tmp_path / "out", into="nf4")


def test_a_checkpoint_without_a_stop_gets_one(base: Checkpoint, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in base.folder.iterdir():
        if file.name != "generation_config.json":
            (other / file.name).symlink_to(file)
    export(str(other), tmp_path / "out", to="vllm")
    found = locate.find(str(tmp_path / "out")).generation_config
    assert found == {"eos_token_id": 27, "pad_token_id": 1}


# Files that may not become so large.


@pytest.mark.parametrize(
    ("how", "most", "kept"),
    [
        ({"to": "hf"}, 100_000, False),
        ({"to": "vllm"}, 2_000, False),
        ({"to": "gguf"}, 800_000, False),
        ({"to": "adapter"}, 2_000, False),
        ({"to": "vllm", "four_bit": FourBitOptions()}, 2_000, True),
        ({"to": "vllm", "four_bit": FourBitOptions(fast=True)}, 600_000, True),
        ({"to": "gguf", "dtype": "q4_k_m", "k_quant": RoundingOptions(rows=2)}, 2_000, True),
        ({"to": "gguf", "dtype": "q4_k_m", "k_quant": RoundingOptions(fast=True)}, 800_000, True),
    ],
)
def test_a_file_that_may_not_become_so_large_is_named(
    base: Checkpoint, how: dict[str, Any], most: int, kept: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if how.get("dtype") == "q4_k_m":
        pytest.importorskip("llama_cpp")
        if most < 10_000:  # of a header, which is made in the temporary folder
            made = gguf_file
            monkeypatch.setattr(k_quants, "gguf_file", lambda *it: unlimited(made, *it))
    run = run_with(adapter_for(base, tmp_path / "adapter"), base, tmp_path / "run")
    out = tmp_path / "made/out"
    with files_of_at_most(most), pytest.raises(AxtuneError) as caught:
        export(run, out, **how)
    assert caught.value.found.startswith(f"A file of {out} would be larger than files may be here")
    assert "ulimit -f" in caught.value.remedy
    assert [file.name for file in out.parent.iterdir()] == [".out.partial"] * kept
    export(run, out, **how)
    assert differences(out) == []


def unlimited(make: Callable[..., Any], *arguments: Any) -> Any:
    with files_of_at_most(1 << 30):
        return make(*arguments)


def test_a_header_that_the_temporary_folder_may_not_hold_is_named(
    base: Checkpoint, tmp_path: Path
) -> None:
    with files_of_at_most(2_000), pytest.raises(AxtuneError, match="temporary folder") as caught:
        export(base.folder, tmp_path / "out", to="gguf")
    assert "has no room for the header of a GGUF file" in caught.value.found
    assert list(tmp_path.iterdir()) == []
