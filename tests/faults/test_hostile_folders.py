"""Folders from strangers: nothing of theirs runs, and each is refused in a sentence or read right.

Every folder is a small edit of a sound one and goes through the commands that open such folders,
with "y" on standard input. A command that raises anything but its own refusal fails the test.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from support.adapters import adapter_for
from support.commands import axtune_in_process
from support.hostile import (
    CODE,
    PICKLE,
    Edit,
    both,
    canary,
    directory,
    fifo,
    header,
    header_text,
    link,
    merged,
    numbers,
    tensors,
    without,
    written,
)
from support.tiny import LIBRARY_WARNINGS, RECIPES, checkpoint

pytestmark = LIBRARY_WARNINGS

MODEL, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
AUTO_MAP = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
EVIL = written("evil.py", CODE)


class Hostile(NamedTuple):
    """A folder.

    Attributes:
        name: What is hostile in it.
        edit: Makes it of a sound one.
        refusal: What the commands say; None where they must do their work as if it were not there.
        commands: Those that it is given to; all, where none is named.
    """

    name: str
    edit: Edit
    refusal: str | None
    commands: tuple[str, ...] = ()


def swap(one: str, other: str) -> Edit:
    return header(MODEL, lambda content: _swap(content, one, other))


def _swap(content, one, other):
    first, second = (next(key for key in content if each in key) for each in (one, other))
    content[first]["data_offsets"] = content[second]["data_offsets"]


def first(**values) -> Edit:
    """Of the first tensor in the header."""
    return header(
        MODEL, lambda content: next(v for k, v in content.items() if "layers" in k).update(values)
    )


def index_of(name: str) -> Edit:
    """An index that names a file for all tensors."""

    def edit(folder: Path) -> None:
        raw = (folder / MODEL).read_bytes()
        names = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        names.pop("__metadata__", None)
        shutil.copyfile(folder / MODEL, folder.parent / "outside.safetensors")
        (folder / "shard.safetensors").unlink(missing_ok=True)
        (folder / MODEL).rename(folder / "shard.safetensors")
        (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, name)}))

    return edit


# The commands that build the model, where merge and export stream what the folder holds.
BUILDING = ("quantize", "chat", "doctor")

NOT_SAFETENSORS = "not a safetensors file|cannot be loaded"
IN_FOLDER = "name of a .safetensors file in the same folder"
PACKED = {"load_in_4bit": True, "quant_method": "bitsandbytes"}

BASES = [
    Hostile("auto_map", both(merged("config.json", auto_map=AUTO_MAP), EVIL), "names code to run"),
    Hostile(
        "auto_map of an unknown model",
        both(merged("config.json", auto_map=AUTO_MAP, model_type="evil"), EVIL),
        "names code to run",
    ),
    Hostile(
        "auto_map of the tokenizer",
        both(merged("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}), EVIL),
        "names code to run",
    ),
    Hostile(
        "auto_map of generation",
        both(merged("generation_config.json", auto_map=AUTO_MAP), EVIL),
        "names code to run",
    ),
    Hostile(
        "auto_map inside",
        both(merged("config.json", text_config={"auto_map": AUTO_MAP}), EVIL),
        "names code to run",
    ),
    Hostile(
        "unknown model_type beside code",
        both(merged("config.json", model_type="evil"), written("configuration_evil.py", CODE)),
        "model_type evil|evil model|cannot build a model|cannot be loaded",
        BUILDING,
    ),
    Hostile("custom_generate", written("custom_generate/generate.py", CODE), None),
    Hostile(
        "code beside the weights",
        both(*(written(name, CODE) for name in ("modeling_qwen2.py", "__init__.py", "torch.py",
                                                "sitecustomize.py", "tokenization_qwen2.py"))),
        None,
    ),
    Hostile(
        "pickled weights alone",
        both(without(MODEL), written("pytorch_model.bin", PICKLE)),
        r"lacks \*.safetensors.*\n?.*pickle",
    ),
    Hostile("pickled weights beside", written("pytorch_model.bin", PICKLE), None),
    Hostile("a pickle by another name", written(MODEL, PICKLE), NOT_SAFETENSORS),
    Hostile("index out of the folder", index_of("../outside.safetensors"), IN_FOLDER),
    Hostile("index to an absolute path", index_of("/tmp/outside.safetensors"), IN_FOLDER),
    Hostile("index to a pickle", both(index_of("shard.bin"), written("shard.bin", PICKLE)),
            IN_FOLDER),
    Hostile("index to a device", index_of("/dev/zero"), IN_FOLDER),
    Hostile("index without a map", both(index_of("shard.safetensors"), written(INDEX, "{}")),
            "weight_map: it is missing"),
    Hostile("index that is a list", both(index_of("shard.safetensors"), written(INDEX, "[1]")),
            "is not a JSON object"),
    Hostile("index of nothing",
            both(index_of("shard.safetensors"), written(INDEX, '{"weight_map": {}}')),
            "lacks|cannot be loaded"),
    Hostile("two sets of weights", both(index_of("shard.safetensors"),
                                        lambda folder: (folder / MODEL).write_bytes(
                                            (folder / "shard.safetensors").read_bytes())),
            "two sets of weights"),
    Hostile("header of 2^63 bytes", header_text(MODEL, b"{}", 1 << 63), NOT_SAFETENSORS),
    Hostile("header longer than the file", header_text(MODEL, b"{}", 1 << 20), NOT_SAFETENSORS),
    Hostile("header of 120 MB", header_text(MODEL, b"{}" + b" " * 120_000_000), NOT_SAFETENSORS),
    Hostile("header nested deeply", header_text(MODEL, b'{"a":' * 50_000), NOT_SAFETENSORS),
    Hostile("header of a list", header_text(MODEL, b"[]"), NOT_SAFETENSORS),
    Hostile("header that is no text", header_text(MODEL, b"\xff\xfe" * 8), NOT_SAFETENSORS),
    Hostile("no header", written(MODEL, b""), NOT_SAFETENSORS),
    Hostile("pointer of Git LFS", written(MODEL, b"version https://git-lfs.github.com/spec/v1\n"),
            NOT_SAFETENSORS),
    Hostile("tensors upon another", swap("0.self_attn.q_proj.weight", "0.self_attn.o_proj.weight"),
            "disagree|cannot be loaded"),
    Hostile("offsets beyond the file", first(data_offsets=[1 << 50, 1 << 51]),
            "disagree|cannot be loaded"),
    Hostile("offsets backwards", first(data_offsets=[100, 0]), "disagree|cannot be loaded"),
    Hostile("a negative shape", first(shape=[-4, 16]), NOT_SAFETENSORS),
    Hostile("a shape that overflows", first(shape=[1 << 62, 1 << 62]), NOT_SAFETENSORS),
    Hostile("another shape of the same size", first(shape=[2, 2]), "disagree|cannot be loaded"),
    Hostile("a dtype of other width", first(dtype="F64"), "disagree|cannot be loaded"),
    Hostile("a dtype of nobody", first(dtype="EVIL"), "of the dtype EVIL|cannot be loaded"),
    Hostile("half a file", lambda folder: (folder / MODEL).write_bytes(
        (folder / MODEL).read_bytes()[:-1000]), "its header declares|cannot be loaded"),
    Hostile("more than a file", lambda folder: (folder / MODEL).write_bytes(
        (folder / MODEL).read_bytes() + PICKLE), "its header declares|cannot be loaded"),
    Hostile("a pipe for weights", fifo(MODEL), "lacks"),
    Hostile("a link to itself for weights", link(MODEL, MODEL), "lacks"),
    Hostile("a folder for weights", directory(MODEL), "lacks|cannot be loaded"),
    Hostile("a pipe for the config", fifo("config.json"), "lacks config.json"),
    Hostile("a pipe for generation", fifo("generation_config.json"), None),
    Hostile("NaN in a matrix", numbers(MODEL, "layers.1.mlp.up_proj", float("nan"), 3),
            r"up_proj.*not finite|tensors hold numbers that are not finite"),
    Hostile("infinity in a norm", numbers(MODEL, "model.norm", float("-inf")),
            r"model\.norm.*not finite|tensors hold numbers that are not finite"),
    Hostile("NaN in the embeddings", numbers(MODEL, "embed_tokens", float("nan"), 64),
            r"embed_tokens.*not finite|tensors hold numbers that are not finite"),
    Hostile("config that is a list", written("config.json", "[]"), "is not a JSON object"),
    Hostile("config nested deeply", written("config.json", '{"a":' * 50_000), "nested too deeply"),
    Hostile("config that is no text", written("config.json", b"\xff\xfe{"), "cannot be read"),
    Hostile("config of half letters", merged("config.json", note="\ud800"), "cannot be read"),
    Hostile("sizes in words", merged("config.json", hidden_size="64"), "hidden_size"),
    Hostile("no model_type", merged("config.json", model_type=None), "model_type"),
    Hostile("a billion layers", merged("config.json", num_hidden_layers=10**9),
            "num_hidden_layers"),
    Hostile("512 layers", merged("config.json", num_hidden_layers=512, layer_types=None),
            "lacks .*tensors", BUILDING),
    Hostile("a vocabulary of 16 million", merged("config.json", vocab_size=1 << 24),
            "has the shape|lacks .*tensors", BUILDING),
    Hostile("heads that do not divide", merged("config.json", num_attention_heads=7),
            "has the shape|cannot build", BUILDING),
    Hostile("no heads", merged("config.json", num_attention_heads=0), "num_attention_heads"),
    Hostile("rope of NaN", merged("config.json", rope_theta=float("nan")), "rope_theta"),
    Hostile("rope in words", merged("config.json", rope_scaling={"rope_type": 7}), "rope_scaling"),
    Hostile("kernels of the Hub", merged("config.json", attn_implementation="evil/kernels"),
            "names code to run"),
    Hostile("kernels of the Hub inside", merged("config.json",
                                                _attn_implementation="evil/kernels"),
            "names code to run"),
    Hostile("quantised by nobody", merged("config.json", quantization_config={"quant_method": "x"}),
            "is quantised"),
    Hostile("quantised with a strange record",
            both(merged("config.json", quantization_config=PACKED),
                 written("axtune.json", '{"name": ["a"], "digests": 1}')),
            "was not written by this version|is quantised"),
    Hostile("quantised from nowhere",
            both(merged("config.json", quantization_config=PACKED),
                 written("axtune.json", json.dumps(
                     {"name": "../../none", "commit": None, "digests": {}, "quantization": PACKED,
                      "precisions": ["bf16"], "device": "cpu", "versions": {}}))),
            "is quantised|../../none|lacks .* tensors"),
    Hostile("an end of turn in words", merged("generation_config.json", eos_token_id=["27"]),
            "eos_token_id"),
    Hostile("an adapter that names another base",
            both(merged("adapter_config.json", peft_type="LORA", r=4, lora_alpha=8,
                        base_model_name_or_path="/etc"), written(ADAPTER, PICKLE)),
            "holds an adapter|is an adapter"),
    Hostile("a card with Python in it",
            written("README.md", "---\nlicense: !!python/object/apply:os.system ['false']\n---\n"),
            None),
    Hostile("a folder for a licence", directory("LICENSE.d"), None),
    Hostile("a licence that is somebody's key", link("LICENSE", "../secret"), "LICENSE.*link"),
]  # fmt: skip

ADAPTERS = [
    Hostile("a pickle alone", both(without(ADAPTER), written("adapter_model.bin", PICKLE)),
            r"lacks adapter_model.safetensors.*\n?.*pickle"),
    Hostile("a pickle beside", written("adapter_model.bin", PICKLE), None),
    Hostile("a pickle by another name", written(ADAPTER, PICKLE), "not a safetensors file"),
    Hostile("training arguments", written("training_args.bin", PICKLE), None),
    Hostile("code to import for megatron",
            both(merged("adapter_config.json", megatron_config={"a": 1}, megatron_core="evil"),
                 EVIL), "uses megatron_config"),
    Hostile("code to import for its class",
            both(merged("adapter_config.json",
                        auto_mapping={"base_model_class": "M", "parent_library": "evil"}), EVIL),
            None),
    Hostile("auto_map", both(merged("adapter_config.json", auto_map=AUTO_MAP), EVIL),
            "names code to run"),
    Hostile("another method", merged("adapter_config.json", peft_type="LOHA"), "a LOHA adapter"),
    Hostile("no method", merged("adapter_config.json", peft_type=None), "a None adapter"),
    Hostile("a method in brackets", merged("adapter_config.json", peft_type=["LORA"]), "adapter;"),
    Hostile("a switch of tomorrow", merged("adapter_config.json", use_evil=True), "uses use_evil"),
    Hostile("rank 0", merged("adapter_config.json", r=0), "r: input"),
    Hostile("a rank in words", merged("adapter_config.json", r="4"), "r: input"),
    Hostile("a rank of a billion", merged("adapter_config.json", r=10**9), "r: input"),
    Hostile("another rank", merged("adapter_config.json", r=64), "does not fit"),
    Hostile("alpha of NaN", merged("adapter_config.json", lora_alpha=float("nan")), "lora_alpha"),
    Hostile("alpha of 1e400", merged("adapter_config.json", lora_alpha=float("inf")), "lora_alpha"),
    Hostile("modules by number", merged("adapter_config.json", target_modules=7), "target_modules"),
    Hostile("layers that are not there", merged("adapter_config.json", layers_to_transform=[99]),
            "does not fit|has no place|layers_to_transform", ("verify",)),
    Hostile("a pattern without an end",
            merged("adapter_config.json", rank_pattern={r"(.*.*)+x": 4}), "rank_pattern"),
    Hostile("half a pattern", merged("adapter_config.json", alpha_pattern={"(": 4}),
            "alpha_pattern"),
    Hostile("tokens out of range",
            merged("adapter_config.json", trainable_token_indices=[10**12]), "trainable_token"),
    Hostile("a base outside", merged("adapter_config.json", base_model_name_or_path="../../etc"),
            None),
    Hostile("PiSSA", merged("adapter_config.json", init_lora_weights="pissa"), "initialised with"),
    Hostile("LoRA-GA", merged("adapter_config.json", init_lora_weights="lora_ga"),
            "initialised with"),
    Hostile("LoRA-GA in capitals", merged("adapter_config.json", init_lora_weights="LoRA_GA"),
            "initialised with"),
    Hostile("a configuration that is a list", written("adapter_config.json", "[]"), "not a JSON"),
    Hostile("NaN", numbers(ADAPTER, "up_proj.lora_A", float("nan"), 5), r"not finite \(5\)"),
    Hostile("infinity", numbers(ADAPTER, "up_proj.lora_B", float("inf")), r"not finite \(1\)"),
    Hostile("no tensors", tensors(ADAPTER, lambda found: {}), "no tensors|lacks"),
    Hostile("half of the tensors",
            tensors(ADAPTER, lambda found: {k: v for k, v in found.items() if "lora_A" in k}),
            "one half of|lacks"),
    Hostile("tensors of nothing",
            tensors(ADAPTER, lambda found: {f"evil.{k}": v for k, v in found.items()}),
            "no place for"),
    Hostile("two adapters",
            tensors(ADAPTER, lambda found: {**found, **{f"module.{k}": v.clone() for k, v in
                                                        found.items()}}), "more than one adapter"),
    Hostile("whole numbers",
            tensors(ADAPTER, lambda found: {k: v.char() for k, v in found.items()}),
            "floating point"),
    Hostile("header of 2^63 bytes", header_text(ADAPTER, b"{}", 1 << 63), "not a safetensors"),
    Hostile("a pipe", fifo(ADAPTER), "lacks adapter_model"),
    Hostile("mlx", both(without(ADAPTER), written("adapters.safetensors", PICKLE),
                        merged("adapter_config.json", peft_type=None)), "mlx's format"),
]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("base") / "base").folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from axtune.checkpoint import locate

    return adapter_for(locate.find(str(base)), tmp_path_factory.mktemp("adapter") / "adapter")


def test_there_are_enough_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"base: {each.name}" for each in BASES] + [f"adapter: {e.name}" for e in ADAPTERS]
    assert len(set(names)) == len(names) >= 100
    with capsys.disabled():
        print(f"\n{len(names)} hostile folders: {len(BASES)} checkpoints, {len(ADAPTERS)} adapters")


@pytest.mark.parametrize("hostile", BASES, ids=lambda hostile: hostile.name)
def test_a_checkpoint_from_a_stranger(
    hostile: Hostile, base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    (tmp_path / "secret").write_text("key")
    hostile.edit(folder)
    name, out = str(folder), tmp_path / "out"
    check(
        hostile,
        [
            ("merge", str(adapter), "--base", name, "--out", str(out)),
            ("export", name, "--to", "vllm", "--out", str(out)),
            ("export", name, "--to", "gguf", "--out", str(out)),
            ("quantize", name, "--out", str(out)),
            ("chat", name, "--message", "안녕?", "--max-new-tokens", "1"),
            ("doctor", name),
            ("plan", str(RECIPES / "sft_lora.yaml"), f"model={name}", "--tokens", "64"),
        ],
        out,
        tmp_path,
        monkeypatch,
    )


@pytest.mark.parametrize("hostile", ADAPTERS, ids=lambda hostile: hostile.name)
def test_an_adapter_from_a_stranger(
    hostile: Hostile, base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(adapter, folder)
    hostile.edit(folder)
    name, out = str(folder), tmp_path / "out"
    check(
        hostile,
        [
            ("merge", name, "--base", str(base), "--out", str(out)),
            ("export", name, "--base", str(base), "--to", "adapter", "--out", str(out)),
            ("export", name, "--base", str(base), "--to", "hf", "--out", str(out)),
            ("verify", str(base), "--adapter", name, "--against", str(base)),
        ],
        out,
        tmp_path,
        monkeypatch,
    )


def check(
    hostile: Hostile,
    commands: list[tuple[str, ...]],
    out: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Give the folder to each command: nothing is executed, left half done or said in a traceback.

    Refused means: no command writes anything, and at least one says why.
    """
    monkeypatch.chdir(folder)
    said = []
    with canary(folder, monkeypatch):
        for words in commands:
            if hostile.commands and words[0] not in hostile.commands:
                continue
            answer = axtune_in_process(*words)
            assert "Traceback" not in answer.said
            if hostile.refusal is None:
                fine = answer.status == 0 or words[0] in ("verify", "doctor")
                assert fine, f"{words[0]}: {answer.said}"
                assert not out.exists() or not list(out.rglob("*.py"))
            else:
                assert not out.exists(), f"{words[0]} wrote a folder: {answer.said}"
                said.append(answer.said)
            left = {file.name for file in folder.iterdir()} - {
                "model", "adapter", "secret", "out", "outside.safetensors", "canary"
            }  # fmt: skip
            assert not left, f"{words[0]} left {left}"
            shutil.rmtree(out, ignore_errors=True)
    if hostile.refusal is not None:
        assert any(re.search(hostile.refusal, text) for text in said), said
