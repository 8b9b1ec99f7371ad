"""GGUF files: every number as it should be, and llama.cpp says the same words as transformers."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.adapters import adapter_for, in_float32, run_with, sharded_checkpoint
from support.rows import read_jsonl
from support.tiny import LIBRARY_WARNINGS, checkpoint, with_weights

from axtune.checkpoint import locate
from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.record import differences
from axtune.checkpoint.tokenizer import PROBES, AxTokenizer, Tool, load_tokenizer
from axtune.errors import AxtuneError, CheckpointError, MissingPackageError
from axtune.export.export import export
from axtune.weights import stream_writer
from axtune.weights.merge import merge

pytestmark = LIBRARY_WARNINGS

LAYOUTS = ("4.0", "3.1")
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "q8_0": "Q8_0"}
ADAPTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "lora": {"r": 4},
    "dora": {"use_dora": True},
    "trained embeddings": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "trained biases": {"bias": "all"},
}
TOOL = Tool(
    {
        "name": "get_weather",
        "description": "도시의 날씨",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
)


@pytest.fixture(scope="module", params=LAYOUTS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model", request.param)


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("qwen2") / "model")


def changed(base: Checkpoint, folder: Path, **config: Any) -> str:
    """The same checkpoint with other words in its config."""
    folder.mkdir()
    for file in base.folder.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**base.config, **config}))
    return str(folder)


def gguf_of(source: str | Path, out: Path, **options: Any) -> gguf.GGUFReader:
    export(source, out, to="gguf", **options)
    return gguf.GGUFReader(out / f"{out.name}.gguf")


def values(reader: gguf.GGUFReader) -> dict[str, Any]:
    return {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }


NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def expected_tensors(
    state: dict[str, torch.Tensor], config: dict[str, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    """A state dict in float32 under llama.cpp's names, with a llama's heads as its converter has
    them (conversion/llama.py, permute)."""
    found = {}
    for name, tensor in state.items():
        value = tensor.float().numpy()
        *path, kind = name.split(".")
        if path[:2] != ["model", "layers"]:
            names = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
            found[f"{names[path[-1]]}.{kind}"] = value
            continue
        module = ".".join(path[3:])
        if config["model_type"] == "llama" and path[-1] in ("q_proj", "k_proj"):
            heads = config[f"num_{'attention' if path[-1] == 'q_proj' else 'key_value'}_heads"]
            split = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
            value = split.swapaxes(1, 2).reshape(value.shape)
        found[f"blk.{path[2]}.{NAMES[module]}.{kind}"] = value
    return found


def assert_tensors(
    reader: gguf.GGUFReader, expected: dict[str, np.ndarray[Any, Any]], dtype: str
) -> None:
    assert {tensor.name for tensor in reader.tensors} == expected.keys()
    for tensor in reader.tensors:
        kind = gguf.GGMLQuantizationType[DTYPES[dtype] if len(tensor.shape) > 1 else "F32"]
        value = expected[tensor.name]
        assert tensor.tensor_type == kind, tensor.name
        assert tuple(tensor.shape) == value.shape[::-1], tensor.name
        assert tensor.data.tobytes() == gguf.quants.quantize(value, kind).tobytes(), tensor.name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_tensor_is_the_float32_result_rounded_once(
    kind: str, dtype: str, base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, model = base.folder, in_float32(base.folder)
    if kind != "none":
        source = adapter_for(base, tmp_path / "adapter", **ADAPTERS[kind])
        adapted: Any = PeftModel.from_pretrained(model, str(source))
        model = adapted.merge_and_unload()
    expected = expected_tensors(model.state_dict(), base.config)
    originals = expected_tensors(dict(tensors(base.folder)), base.config)
    same = [np.array_equal(expected[name], originals[name]) for name in originals]
    assert all(same) == (kind == "none")
    monkeypatch.setattr(stream_writer, "BLOCK_BYTES", 5_000)  # tensors come in several blocks, and
    monkeypatch.setattr(stream_writer, "_CHUNK", 1_000)  # those in several chunks, within heads
    options = {"base": str(base.folder)} if kind != "none" else {}
    reader = gguf_of(source, tmp_path / "out", dtype=dtype, **options)
    assert_tensors(reader, expected, dtype)


def test_the_default_is_the_checkpoints_own_dtype(qwen2: Checkpoint, tmp_path: Path) -> None:
    own = gguf_of(qwen2.folder, tmp_path / "own")
    assert_tensors(own, expected_tensors(dict(tensors(qwen2.folder)), qwen2.config), "bfloat16")
    export(qwen2.folder, tmp_path / "half", dtype="float16")
    half = gguf_of(tmp_path / "half", tmp_path / "half16")
    assert values(half)["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    state = dict(tensors(tmp_path / "half"))
    write_weights(tmp_path / "half", {**state, "lm_head.weight": state["lm_head.weight"].float()})
    with pytest.raises(AxtuneError, match="are float16 and float32") as caught:
        export(tmp_path / "half", tmp_path / "none", to="gguf")
    assert "--dtype bfloat16, float16, float32, q8_0" in caught.value.remedy
    export(tmp_path / "half", tmp_path / "said", to="gguf", dtype="float16")


def tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for file in sorted(folder.glob("*.safetensors")):
        yield from load_file(file).items()


def write_weights(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Other weights in the place of a checkpoint's."""
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_run_becomes_a_file_in_one_pass(qwen2: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_for(qwen2, tmp_path / "adapter", use_dora=True)
    run = run_with(adapter, qwen2, tmp_path / "run")
    merge([run], None, tmp_path / "merged")
    for source, out in ((run, "one"), (tmp_path / "merged", "two")):
        export(source, tmp_path / out / "served", to="gguf")
    one, two = (tmp_path / out / "served" / "served.gguf" for out in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_into_nf4_packs_the_weights_that_training_saw(qwen2: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    adapter = adapter_for(qwen2, tmp_path / "adapter")
    quantization = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    run = run_with(adapter, qwen2, tmp_path / "run", quantization)
    merge([run], None, tmp_path / "merged", into="nf4")
    files = []
    for source, out, into in ((run, "one", "nf4"), (tmp_path / "merged", "two", "16bit")):
        exported = export(source, tmp_path / out / "served", to="gguf", into=into)
        files.append((tmp_path / out / "served" / "served.gguf").read_bytes())
        assert not any("--into nf4" in note for note in exported.notes)
    assert files[0] == files[1]
    exported = export(run, tmp_path / "three", to="gguf", dtype="bfloat16")
    assert any("--into nf4" in note for note in exported.notes)
    assert (tmp_path / "three" / "three.gguf").read_bytes()[-50_000:] != files[0][-50_000:]


def test_what_a_file_says_of_its_model(base: Checkpoint, tmp_path: Path) -> None:
    found = values(gguf_of(base.folder, tmp_path / "mine"))
    arch, config = base.config["model_type"], base.config
    tokens = found.pop("tokenizer.ggml.tokens")
    types = found.pop("tokenizer.ggml.token_type")
    merges = found.pop("tokenizer.ggml.merges")
    eps = found.pop(f"{arch}.attention.layer_norm_rms_epsilon")
    tokenizer = load_tokenizer(base)
    assert eps == pytest.approx(config["rms_norm_eps"])
    assert found == {
        "general.architecture": arch,
        "general.type": "model",
        "general.name": "mine",
        "general.size_label": found["general.size_label"],
        "general.file_type": gguf.LlamaFileType.MOSTLY_BF16,
        "general.quantization_version": 2,
        f"{arch}.block_count": 2,
        f"{arch}.context_length": 512,
        f"{arch}.embedding_length": 64,
        f"{arch}.feed_forward_length": 128,
        f"{arch}.attention.head_count": 2,
        f"{arch}.attention.head_count_kv": 1,
        f"{arch}.attention.key_length": 32,
        f"{arch}.attention.value_length": 32,
        f"{arch}.rope.dimension_count": 32,
        f"{arch}.rope.freq_base": config["rope_theta"],
        f"{arch}.vocab_size": 3072,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "a.x-4.0",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 27,
        "tokenizer.ggml.eot_token_id": 27,
        "tokenizer.ggml.padding_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.mask_token_id": 4,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": tokenizer.chat_template,
    }
    declared = locate.read_json(base.folder / "tokenizer.json")
    assert tokens == [tokenizer.backend.id_to_token(index) for index in range(3072)]
    assert merges == [" ".join(pair) for pair in declared["model"]["merges"]]
    kinds = {token["id"]: token["special"] for token in declared["added_tokens"]}
    assert len(kinds) == 41
    assert types == [
        gguf.TokenType.NORMAL if index not in kinds
        else gguf.TokenType.CONTROL if kinds[index] else gguf.TokenType.USER_DEFINED
        for index in range(3072)
    ]  # fmt: skip


def test_names_and_licences_go_along(qwen2: Checkpoint, tmp_path: Path) -> None:
    """A snapshot of the Hub: its name, licence and licence file."""
    folder = tmp_path / "snapshots" / "abc"
    shutil.copytree(qwen2.folder, folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A.X\n")
    (folder / "LICENSE").write_text("the licence")
    found = values(gguf_of(folder, tmp_path / "mine"))
    assert found["general.license"] == "apache-2.0"
    assert found["general.base_model.count"] == 1
    assert "general.base_model.0.repo_url" in found
    assert (tmp_path / "mine" / "LICENSE").read_text() == "the licence"
    assert not any("base_model" in name for name in values(gguf_of(qwen2.folder, tmp_path / "x")))


def test_rows_without_tokens_are_padding(qwen2: Checkpoint, tmp_path: Path) -> None:
    model = in_float32(qwen2.folder)
    model.resize_token_embeddings(3080)
    padded = tmp_path / "padded"
    shutil.copytree(qwen2.folder, padded)
    write_weights(padded, {name: t.contiguous() for name, t in model.state_dict().items()})
    (padded / "config.json").write_text(json.dumps({**qwen2.config, "vocab_size": 3080}))
    found = values(gguf_of(padded, tmp_path / "out"))
    assert found["tokenizer.ggml.tokens"][3071:] == [
        load_tokenizer(qwen2).backend.id_to_token(3071), *(f"[PAD{n}]" for n in range(3072, 3080))
    ]  # fmt: skip
    assert set(found["tokenizer.ggml.token_type"][3072:]) == {gguf.TokenType.UNUSED}
    with running(tmp_path / "out") as llama:
        assert llama.n_vocab() == 3080


def test_the_folder_has_what_serving_needs(qwen2: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    exported = export(qwen2.folder, out, to="gguf")
    assert sorted(file.name for file in out.iterdir()) == [
        "Modelfile", "README.md", "SERVING.md", "axtune-files.json", "mine.gguf"
    ]  # fmt: skip
    assert differences(out) == []
    assert exported.nbytes == (out / "mine.gguf").stat().st_size
    line = "llama-server --jinja -m {} --alias mine -c 512"
    assert exported.command == line.format(out / "mine.gguf")
    serving = (out / "SERVING.md").read_text()
    assert line.format("mine.gguf") in serving
    assert "ollama create mine -f Modelfile" in serving
    assert (out / "Modelfile").read_text().startswith("FROM ./mine.gguf\n")
    assert ["Ollama, from 0.30, renders with" in note for note in exported.notes] == [True]
    assert exported.room == "8 GB 512 tokens, by arithmetic (axtune plan --serve says more)"
    assert exported.room in serving
    with pytest.raises(AxtuneError, match="exists already"):
        export(qwen2.folder, out, to="gguf")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_sliding_window": True, "sliding_window": 64}, "lacks: use_sliding_window"),
        ({"hidden_act": "gelu"}, "lacks: hidden_act gelu"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "lacks: rope_type dynamic"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 16}},
            "lacks: beta_fast",
        ),
        ({"head_dim": 64}, r"the shape \[64, 64\]; config.json wants \[128, 64\]"),
        ({"model_type": "mistral"}, "is a mistral model"),
        ({"quantization_config": {"quant_method": "awq"}}, "is quantised"),
        ({"num_hidden_layers": 1}, r"model.layers.1.* is there; config.json says 1 layer"),
    ],
)
def test_what_llama_cpp_cannot_compute_is_refused(
    config: dict[str, Any], message: str, qwen2: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        export(changed(qwen2, tmp_path / "other", **config), tmp_path / "out", to="gguf")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "NFC"}}, "a normalizer"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False,
                 "trim_offsets": True}]}},
            "the pre_tokenizer Sequence",
        ),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True,
                               "trim_offsets": True}},
            "the pre_tokenizer ByteLevel",
        ),
        ("ignore_merges", "ignore_merges"),
        ("lstrip", "lstrip of <|user|>"),
    ],
)  # fmt: skip
def test_another_tokenizer_is_refused(
    change: dict[str, Any] | str, message: str, qwen2: Checkpoint, tmp_path: Path
) -> None:
    other = Path(changed(qwen2, tmp_path / "other"))
    declared = locate.read_json(qwen2.folder / "tokenizer.json")
    if change == "ignore_merges":
        declared["model"]["ignore_merges"] = True
    elif change == "lstrip":
        declared["added_tokens"][8]["lstrip"] = True
    else:
        declared |= change
    (other / "tokenizer.json").unlink()
    (other / "tokenizer.json").write_text(json.dumps(declared))
    with pytest.raises(CheckpointError) as caught:
        export(other, tmp_path / "out", to="gguf")
    assert message in caught.value.found
    assert "a.x-4.0" in caught.value.found


def test_wrong_options_are_refused(qwen2: Checkpoint, tmp_path: Path) -> None:
    for options in ({"layout": "llama"}, {"max_shard_size": "5GB"}):
        with pytest.raises(AxtuneError, match="no layout and no shards"):
            export(qwen2.folder, tmp_path / "out", to="gguf", **options)
    with pytest.raises(AxtuneError, match="q8_0 is for GGUF files, not for hf"):
        export(qwen2.folder, tmp_path / "out", to="hf", dtype="q8_0")


def test_without_the_package_it_says_how_to_get_it(
    qwen2: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingPackageError, match="gguf") as caught:
        export(qwen2.folder, tmp_path / "out", to="gguf")
    assert "pip install" in caught.value.remedy


def test_numbers_that_do_not_fit_are_named(qwen2: Checkpoint, tmp_path: Path) -> None:
    large = tmp_path / "large"
    shutil.copytree(qwen2.folder, large)
    state = dict(tensors(qwen2.folder))
    state["model.layers.1.mlp.up_proj.weight"][3, 5] = 70_000
    write_weights(large, state)
    with pytest.raises(AxtuneError, match=r"blk.1.ffn_up.weight .* not finite in float16"):
        export(large, tmp_path / "out", to="gguf", dtype="float16")
    export(large, tmp_path / "packed", to="gguf", dtype="q8_0")
    state["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.inf
    write_weights(large, state)
    with pytest.raises(
        AxtuneError, match=r"up_proj\.weight in .* holds 1 numbers that are not finite"
    ):
        export(large, tmp_path / "out", to="gguf", dtype="q8_0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "packed"]


def test_numbers_too_small_for_a_block_become_zero(qwen2: Checkpoint, tmp_path: Path) -> None:
    small = tmp_path / "small"
    shutil.copytree(qwen2.folder, small)
    state = dict(tensors(qwen2.folder))
    state["model.layers.1.mlp.up_proj.weight"][3] = 1e-39
    write_weights(small, state)
    reader = gguf_of(small, tmp_path / "out", dtype="q8_0")
    (tensor,) = (tensor for tensor in reader.tensors if tensor.name == "blk.1.ffn_up.weight")
    assert not gguf.quants.dequantize(tensor.data, tensor.tensor_type)[3].any()


def test_too_little_room_is_told_before_writing(
    qwen2: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(AxtuneError, match=r"needs .* bytes and its disk has 1,000,000 free"):
        export(qwen2.folder, tmp_path / "out", to="gguf")
    assert list(tmp_path.iterdir()) == []


# With llama.cpp itself.


@contextmanager
def running(folder: Path, *, vocab_only: bool = False) -> Iterator[Any]:
    """The file of a folder in llama.cpp, with a cache that rounds nothing."""
    reason = "llama-cpp-python is not installed; scripts/setup_llama_cpp.sh builds it"
    llama_cpp = pytest.importorskip("llama_cpp", reason=reason)
    exact = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
    llama = llama_cpp.Llama(
        str(folder / f"{folder.name}.gguf"),
        n_ctx=512,
        n_threads=1,  # threads that wait for each other lose where other tests run beside them
        n_threads_batch=1,
        logits_all=True,
        vocab_only=vocab_only,
        verbose=False,
        **exact,
    )
    with closing(llama):
        yield llama


def encode(llama: Any, text: str) -> list[int]:
    """As llama-server encodes a prompt."""
    ids: list[int] = llama.tokenize(text.encode(), add_bos=True, special=True)
    return ids


def greedy(llama: Any, prompt: Sequence[int], count: int) -> tuple[list[int], Any]:
    """What it says, and its logits of the prompt, (tokens, vocabulary)."""
    llama.reset()
    llama.eval(prompt)
    logits = np.array(llama.scores[: len(prompt)])
    answer: list[int] = []
    while len(answer) < count and answer[-1:] != [27]:
        answer.append(int(np.argmax(llama.scores[llama.n_tokens - 1])))
        llama.eval(answer[-1:])
    return answer, logits


def prompts(tokenizer: AxTokenizer) -> list[list[int]]:
    """Digits, Korean, mixed text, and the native format with and without tools."""
    texts = [*PROBES, "57600원", "서울 2024 weather"]
    for content, tools in (("안녕하세요, 57600원이에요?", None), ("서울 날씨 알려 줘", [TOOL])):
        messages = [{"role": "system", "content": "오늘: 2026-03-09"}, user(content)]
        texts.append(tokenizer.render(messages, tools, add_generation_prompt=True))
    return [tokenizer.encode(text) for text in texts]


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assert_same_words(
    folder: Path, model: Any, tokenizer: AxTokenizer, bound: float, count: int = 24
) -> None:
    """llama.cpp's logits are within a share of their spread, and its greedy text is the same."""
    with running(folder) as llama, torch.no_grad():
        for prompt in prompts(tokenizer):
            ids = torch.tensor([prompt])
            expected = model(ids).logits[0].numpy()
            reply = model.generate(
                ids, max_new_tokens=count, do_sample=False, eos_token_id=27, pad_token_id=1
            )
            answer, logits = greedy(llama, prompt, count)
            assert np.abs(logits - expected).max() <= bound * expected.std()
            assert answer == reply[0, len(prompt) :].tolist()
            assert encode(llama, tokenizer.decode(prompt)) == prompt


# llama.cpp rounds what it multiplies with to the matrix's type as well; 2^-8 for bfloat16.
BOUNDS = {"float32": 1e-4, "float16": 0.01, "bfloat16": 0.06, "q8_0": 0.15}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_llama_cpp_says_what_transformers_says(layout: str, dtype: str, tmp_path: Path) -> None:
    """The embedded models, which have learnt to speak."""
    name = f"tiny-ax-{layout}"
    export(name, tmp_path / "out", to="gguf", dtype=dtype)
    model = in_float32(locate.find(name).folder)
    assert_same_words(tmp_path / "out", model, load_tokenizer(name), BOUNDS[dtype])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_llama_cpp_says_what_packed_weights_say(layout: str, tmp_path: Path) -> None:
    """Against transformers with the very numbers that a q8_0 file holds."""
    name = f"tiny-ax-{layout}"
    export(name, tmp_path / "out", to="gguf", dtype="q8_0")
    model = in_float32(locate.find(name).folder)
    kind = gguf.GGMLQuantizationType.Q8_0
    for parameter in model.parameters():
        if parameter.ndim > 1:
            packed = gguf.quants.quantize(parameter.detach().numpy(), kind)
            parameter.data = torch.from_numpy(gguf.quants.dequantize(packed, kind))
    with running(tmp_path / "out") as llama, torch.no_grad():
        for prompt in prompts(load_tokenizer(name)):
            expected = model(torch.tensor([prompt])).logits[0].numpy()
            _, logits = greedy(llama, prompt, 1)
            assert np.abs(logits - expected).max() <= BOUNDS["q8_0"] * expected.std()


@pytest.mark.parametrize("kind", ["dora", "trained embeddings"])
def test_llama_cpp_says_what_was_trained(kind: str, base: Checkpoint, tmp_path: Path) -> None:
    """A run merged on the way, against base and adapter in transformers; random weights."""
    adapter = adapter_for(base, tmp_path / "adapter", **ADAPTERS[kind])
    export(adapter, tmp_path / "out", to="gguf", base=str(base.folder), dtype="float32")
    model = PeftModel.from_pretrained(in_float32(base.folder), str(adapter))
    assert_same_words(tmp_path / "out", model, load_tokenizer(base), BOUNDS["float32"])


def test_llama_with_attention_biases(qwen2: Checkpoint, tmp_path: Path) -> None:
    """The folder that is made for vLLM: a llama that has a Qwen2's biases."""
    export(qwen2.folder, tmp_path / "vllm", to="vllm")
    found = values(gguf_of(tmp_path / "vllm", tmp_path / "out", dtype="float32"))
    assert found["general.architecture"] == "llama"
    model = in_float32(qwen2.folder)
    assert_same_words(tmp_path / "out", model, load_tokenizer(qwen2), BOUNDS["float32"])


def test_tied_embeddings(qwen2: Checkpoint, tmp_path: Path) -> None:
    tied = changed(qwen2, tmp_path / "tied", tie_word_embeddings=True)
    for file in Path(tied).glob("*.safetensors*"):
        file.unlink()
    state = dict(tensors(qwen2.folder))
    del state["lm_head.weight"]
    write_weights(Path(tied), state)
    reader = gguf_of(tied, tmp_path / "out", dtype="float32")
    assert "output.weight" not in {tensor.name for tensor in reader.tensors}
    assert_same_words(
        tmp_path / "out", in_float32(Path(tied)), load_tokenizer(tied), BOUNDS["float32"]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_yarn(layout: str, tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base", layout)
    state = dict(tensors(base.folder))
    sharp = {name: 8 * t for name, t in state.items() if "q_proj" in name or "k_proj" in name}
    write_weights(base.folder, state | sharp)  # positions matter to attention that is not flat
    scaling = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
    scaled = changed(base, tmp_path / "scaled", rope_scaling=scaling)
    found = values(gguf_of(scaled, tmp_path / "out", dtype="float32"))
    arch = base.config["model_type"]
    assert found[f"{arch}.rope.scaling.type"] == "yarn"
    assert found[f"{arch}.rope.scaling.factor"] == 8.0
    assert found[f"{arch}.rope.scaling.original_context_length"] == 64
    model = in_float32(Path(scaled))
    long = [list(itertools.islice(itertools.cycle(range(40, 3000, 7)), 300))]
    with torch.no_grad():
        expected = model(torch.tensor(long)).logits[0].numpy()
        plain = in_float32(base.folder)(torch.tensor(long)).logits[0].numpy()
    with running(tmp_path / "out") as llama:
        _, logits = greedy(llama, long[0], 1)
    assert np.abs(plain - expected).max() > 0.05 * expected.std()
    assert np.abs(logits - expected).max() <= 1e-3 * expected.std()


@pytest.fixture(scope="module", params=LAYOUTS)
def vocabulary(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, AxTokenizer]]:
    """llama.cpp's tokenizer from an embedded model, and the one that tokenizer.json declares."""
    out = tmp_path_factory.mktemp("vocabulary") / "out"
    export(f"tiny-ax-{request.param}", out, to="gguf")
    with running(out, vocab_only=True) as llama:
        yield llama, load_tokenizer(f"tiny-ax-{request.param}")


# Where the pieces of GPT-2's regex meet: contractions, digits of several scripts, spaces, marks.
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=6).filter(lambda text: "\0" not in text),
        st.sampled_from(
            ["57600", "  ", "\n\n", "'s", "'LL", "가나다", "각", "１２", "①½", "👩‍👧", "한\u200b글",
             "\u3000", "\xa0", "<|im_end|>", "<tool_call>", "</think>", "don't", "{\"a\": 1}"]
        ),
    ),
    max_size=8,
).map("".join)  # fmt: skip


@settings(max_examples=300)
@given(text=TEXTS)
def test_llama_cpp_cuts_text_the_same(text: str, vocabulary: tuple[Any, AxTokenizer]) -> None:
    llama, tokenizer = vocabulary
    assert encode(llama, text) == tokenizer.encode(text)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_llama_cpp_reads_the_recorded_prompts(
    layout: str, shared: Path, real_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """The real tokenizer on every recorded conversation: the ids that vLLM served."""
    if layout == "3.1":  # put together from published figures, which lack some
        original = real_checkpoint(layout)
        like = tmp_path / "like"
        shutil.copytree(original, like)
        config = locate.read_json(like / "config.json")
        (like / "config.json").write_text(json.dumps({"rms_norm_eps": 1e-5, **config}))
    else:
        like = real_checkpoint(layout)
    with_weights(like, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out", to="gguf")
    tokenizer = load_tokenizer(str(tmp_path / "model"))
    with running(tmp_path / "out", vocab_only=True) as llama:
        assert llama.n_vocab() == 102_400
        count = 0
        for row in read_jsonl(shared / "goldens" / "serve_prompts.jsonl"):
            for turn in row["serve"]:
                count += 1
                assert encode(llama, tokenizer.decode(turn["prompt_ids"])) == turn["prompt_ids"]
            for message in row["messages"]:
                text = message.get("content") or ""
                assert encode(llama, text) == tokenizer.encode(text)
        assert count == 738
        for probe in PROBES:
            assert encode(llama, probe) == tokenizer.encode(probe)
