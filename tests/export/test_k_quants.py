"""K-quants: llama.cpp's quantiser with our importance matrix, and what it makes serves."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import gguf
import numpy as np
import pytest
import torch
from export.test_gguf import (
    NAMES,
    encode,
    expected_tensors,
    greedy,
    prompts,
    running,
    tensors,
    values,
    write_weights,
)
from support.adapters import adapter_for, in_float32, run_with, sharded_checkpoint
from support.rows import read_jsonl, write_jsonl
from support.tiny import LIBRARY_WARNINGS, recipe, with_weights
from support.tool_pairs import CITIES, TOOLS, call
from transformers import AutoConfig, AutoModelForCausalLM

from axtune.checkpoint import locate
from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.record import Record, differences
from axtune.checkpoint.tokenizer import Tool, load_tokenizer
from axtune.data.native_calls import form_of
from axtune.errors import AxtuneError, MissingPackageError
from axtune.export import k_quants
from axtune.export.calibration import RoundingOptions, draw, uncounted
from axtune.export.export import export
from axtune.export.gguf import gguf_file
from axtune.plan.architecture import read_architecture
from axtune.plan.serving import LIGHTS, KQuant, weight_bytes
from axtune.run import train
from axtune.weights.merge import plan
from axtune.weights.output_tensor import OutputTensor

llama_cpp = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed; scripts/setup_llama_cpp.sh builds it"
)
pytestmark = LIBRARY_WARNINGS

LAYOUTS = ("4.0", "3.1")
KINDS: tuple[KQuant, ...] = get_args(KQuant)
FAST = RoundingOptions(fast=True)


def wide(folder: Path, layout: str) -> Checkpoint:
    """A random checkpoint whose rows K-quants can pack, and whose inputs differ in how large they
    are, as those of trained models do."""
    like = locate.find(f"tiny-ax-{layout}", weights=False).folder
    with_weights(like, folder, hidden_size=256, intermediate_size=512, num_attention_heads=4)
    state = dict(tensors(folder))
    torch.manual_seed(1)
    for name, tensor in state.items():
        if name.endswith("layernorm.weight"):
            state[name] = torch.exp(1.5 * torch.randn(tensor.shape)).to(tensor.dtype) / 3
        elif name.endswith(("up_proj.weight", "v_proj.weight")):
            spread = torch.exp(torch.randn(len(tensor), 1))
            state[name] = (tensor.float() * spread).to(tensor.dtype)
        elif name == "lm_head.weight":
            state[name] = tensor * 6  # logits that differ by some nats
        elif name == "model.embed_tokens.weight":
            state[name] = tensor * 20
    write_weights(folder, state)
    return locate.find(str(folder))


@pytest.fixture(scope="module", params=LAYOUTS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return wide(tmp_path_factory.mktemp("wide") / "model", request.param)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("narrow") / "model")


def tool_rows(file: Path, cities: Sequence[str]) -> str:
    """Questions that are answered with a call, its result, and an answer to that."""
    made = [
        {
            "messages": [
                {"role": "user", "content": f"{city} {what} 알려 줘"},
                call(name, city),
                {"role": "tool", "content": json.dumps({"도시": city, "값": number})},
                {"role": "assistant", "content": f"{city}은 {number}입니다."},
            ],
            "tools": TOOLS,
        }
        for number, city in enumerate(cities)
        for what, name in (("날씨", "get_weather"), ("시각", "get_time"))
    ]
    return str(write_jsonl(file, made))


@pytest.fixture
def options(tmp_path: Path) -> RoundingOptions:
    return RoundingOptions(calibrate=(tool_rows(tmp_path / "rows.jsonl", CITIES[:8]),))


def divergence(folder: Path, base: Checkpoint, sequences: Sequence[list[int]]) -> float:
    """KL a token of a file's predictions against the 16-bit ones, in nats."""
    model = in_float32(base.folder)
    found = []
    with running(folder) as llama, torch.no_grad():
        for ids in sequences:
            wanted = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
            _, logits = greedy(llama, ids, 0)
            got = torch.log_softmax(torch.from_numpy(logits), dim=-1)
            found.append((wanted.exp() * (wanted - got)).sum(dim=-1))
    return float(torch.cat(found).mean())


def test_the_matrix_loses_less(base: Checkpoint, options: RoundingOptions, tmp_path: Path) -> None:
    held_out = tool_rows(tmp_path / "held_out.jsonl", CITIES[8:])
    sequences = draw(load_tokenizer(base), None, [held_out], rows=4).sequences
    lost = {}
    llama = base.config["model_type"] == "llama"
    for kind in ("q4_k_m",) if llama else KINDS:  # the layout changes little for the others
        for name, how in (("without", FAST), ("with", options)):
            out = tmp_path / f"{kind} {name}"
            export(base.folder, out, to="gguf", dtype=kind, k_quant=how)
            lost[kind, name] = divergence(out, base, sequences)
    assert 0.03 < lost["q4_k_m", "without"] < 0.2
    assert lost["q4_k_m", "with"] < 0.75 * lost["q4_k_m", "without"]
    if llama:
        return
    for kind in ("q5_k_m", "q6_k"):
        assert lost[kind, "with"] < lost[kind, "without"]
    assert lost["q6_k", "with"] < lost["q5_k_m", "with"] < lost["q4_k_m", "with"]


def test_importance_is_the_mean_of_the_squares_of_inputs(
    base: Checkpoint, options: RoundingOptions, tmp_path: Path
) -> None:
    """Against hooks in the whole model."""
    rows = draw(load_tokenizer(base), None, options.calibrate, rows=3)
    found = k_quants.importance(plan([], str(base.folder)), rows, uncounted, tmp_path)
    model = in_float32(base.folder)
    seen: dict[str, Any] = {}

    def add(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen[name] = seen.get(name, 0) + inputs[0][0].square().sum(dim=0)

        return hook

    for name, module in model.named_modules():
        *path, last = name.split(".")
        if path[:2] == ["model", "layers"] and isinstance(module, torch.nn.Linear):
            ours = f"blk.{path[2]}.{NAMES[f'{path[-1]}.{last}']}.weight"
            module.register_forward_pre_hook(add(ours))
    with torch.no_grad():
        for ids in rows.sequences:
            model(torch.tensor([ids]))
    assert found.keys() == seen.keys()
    for name, total in seen.items():
        mean = (total / rows.tokens).numpy()
        np.testing.assert_allclose(found[name].numpy(), mean, rtol=1e-3, atol=2e-6 * mean.mean())


def test_inputs_that_no_row_uses_count_a_little(tmp_path: Path, options: RoundingOptions) -> None:
    """Blocks that count nothing are rounded to zeros."""
    base = wide(tmp_path / "model", "4.0")
    state = dict(tensors(base.folder))
    state["model.layers.0.input_layernorm.weight"][:] = 0
    state["model.layers.1.input_layernorm.weight"][:128] = 0
    write_weights(base.folder, state)
    export(base.folder, tmp_path / "out", to="gguf", dtype="q4_k_m", k_quant=options)
    held = held_numbers(tmp_path / "out")
    for name, columns in (("blk.0.attn_q.weight", 256), ("blk.1.attn_q.weight", 128)):
        original = expected_tensors(state, base.config)[name][:, :columns]
        error = np.abs(held[name][:, :columns] - original).mean() / np.abs(original).mean()
        assert error < 0.15


def held_numbers(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What the tensors of a file say, by the package gguf."""
    reader = gguf.GGUFReader(folder / f"{folder.name}.gguf")
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_the_16_bit_one_but_for_its_numbers(
    kind: KQuant, base: Checkpoint, options: RoundingOptions, tmp_path: Path
) -> None:
    plain, packed = tmp_path / "1" / "same", tmp_path / "2" / "same"
    export(base.folder, plain, to="gguf")
    exported = export(base.folder, packed, to="gguf", dtype=kind, k_quant=options)
    ours, theirs = (gguf.GGUFReader(folder / "same.gguf") for folder in (packed, plain))
    wanted = {"q4_k_m": "Q4_K_M", "q5_k_m": "Q5_K_M", "q6_k": "Q6_K"}[kind]
    assert values(ours) == {
        **values(theirs), "general.file_type": gguf.LlamaFileType[f"MOSTLY_{wanted}"]
    }  # fmt: skip
    types = {tensor.name: tensor.tensor_type.name for tensor in ours.tensors}
    most = wanted.removesuffix("_M")
    assert types["blk.0.attn_q.weight"] == types["token_embd.weight"] == most
    assert types["output.weight"] == "Q6_K"
    assert {types["blk.0.attn_norm.weight"], types["output_norm.weight"]} == {"F32"}
    assert exported.nbytes == (packed / "same.gguf").stat().st_size
    assert [note for note in exported.notes if "instead of" in note] == []
    held, original = held_numbers(packed), held_numbers(plain)
    for name, numbers in original.items():
        error = np.linalg.norm(held[name] - numbers) / np.linalg.norm(numbers)
        assert error < {"Q4_K": 0.12, "Q5_K": 0.06, "Q6_K": 0.03, "F32": 1e-9}[types[name]], name


def test_llama_cpp_says_what_the_packed_weights_say(
    base: Checkpoint, options: RoundingOptions, tmp_path: Path
) -> None:
    """Against transformers with the very numbers that the file holds, and with the 16-bit ones.

    llama.cpp rounds what it multiplies with to 8 bit.
    """
    export(base.folder, tmp_path / "out", to="gguf", dtype="q4_k_m", k_quant=options)
    model, unrounded = in_float32(base.folder), in_float32(base.folder)
    state = model.state_dict()
    held = held_numbers(tmp_path / "out")
    for name, tensor in state.items():
        # Where the file has each row: q and k of a Llama are interleaved there.
        rows = torch.arange(len(tensor)).float().view(-1, *[1] * (tensor.ndim - 1))
        ((ours, order),) = expected_tensors({name: rows}, base.config).items()
        tensor[torch.from_numpy(order).long().ravel()] = torch.from_numpy(np.array(held[ours]))
    said, packed, plain = [], [], []
    with running(tmp_path / "out") as llama, torch.no_grad():
        for prompt in prompts(load_tokenizer(base)):
            said.append(greedy(llama, prompt, 0)[1])
            packed.append(model(torch.tensor([prompt])).logits[0].numpy())
            plain.append(unrounded(torch.tensor([prompt])).logits[0].numpy())
    size = np.linalg.norm(np.concatenate(plain))
    from_packed, from_plain = (
        np.linalg.norm(np.concatenate(said) - np.concatenate(each)) / size
        for each in (packed, plain)
    )
    assert from_packed < 0.1
    assert from_packed < 0.5 * from_plain < 0.15


def test_a_run_is_rounded_by_its_own_rows(narrow: Checkpoint, tmp_path: Path) -> None:
    run = run_with(adapter_for(narrow, tmp_path / "adapter"), narrow, tmp_path / "run")
    for name in ("one", "two"):
        exported = export(run, tmp_path / name / "served", to="gguf", dtype="q4_k_m")
    out = exported.folder
    assert differences(out) == []
    record = Record.read(out)
    assert record is not None
    facts = record.facts["gguf"]
    assert facts["type"] == "q4_k_m"
    assert facts["calibration"]["files"] == ["rows.jsonl"]
    assert facts["calibration"]["rows"] == 16
    assert len(facts["adapters"]) == 1
    assert facts["versions"]["llama-cpp-python"]
    one, two = (tmp_path / name / "served/served.gguf" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert sorted(file.name for file in out.iterdir()) == [
        "Modelfile", "README.md", "SERVING.md", "axtune-files.json", "served.gguf"
    ]  # fmt: skip
    assert exported.room is not None
    assert exported.room in (out / "SERVING.md").read_text()


def test_the_card_says_how_it_was_rounded(
    narrow: Checkpoint, options: RoundingOptions, tmp_path: Path
) -> None:
    export(narrow.folder, tmp_path / "with", to="gguf", dtype="q4_k_m", k_quant=options)
    card = (tmp_path / "with/README.md").read_text()
    assert "in llama.cpp's Q4_K_M, rounded with an importance matrix that was calibrated" in card
    assert "on 16 rows (" in card
    export(narrow.folder, tmp_path / "without", to="gguf", dtype="q6_k", k_quant=FAST)
    card = (tmp_path / "without/README.md").read_text()
    assert "Q6_K, rounded without an importance matrix" in card
    export(narrow.folder, tmp_path / "eight", to="gguf", dtype="q8_0")
    assert "in 8 bit (q8_0)" in (tmp_path / "eight/README.md").read_text()
    export(narrow.folder, tmp_path / "plain", to="gguf")
    assert "## Weights" not in (tmp_path / "plain/README.md").read_text()


def test_it_ends_turns_and_documents(narrow: Checkpoint, tmp_path: Path) -> None:
    """As the folders of a run that learned documents do: llama.cpp knows <|endoftext|> itself."""
    tokenizer = load_tokenizer(narrow)
    export(narrow.folder, tmp_path / "out", to="gguf", dtype="q4_k_m", k_quant=FAST)
    llama = llama_cpp.Llama(str(tmp_path / "out/out.gguf"), vocab_only=True, verbose=False)
    vocabulary = llama_cpp.llama_model_get_vocab(llama.model)
    ends = [
        token for token in range(llama.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocabulary, token)
    ]
    assert ends == sorted(tokenizer.stop_ids) == [0, 27]
    llama.close()


def test_tensors_that_fall_back_are_named(narrow: Checkpoint, tmp_path: Path) -> None:
    """Rows of 64, and of 128 in down projections: no K-quant packs them."""
    exported = export(narrow.folder, tmp_path / "out", to="gguf", dtype="q4_k_m", k_quant=FAST)
    notes = [note for note in exported.notes if "instead of" in note]
    told = " ".join(notes)
    assert "2 of ffn_gate.weight" in told
    assert "in q5_0 instead of q4_k" in told
    assert "in q8_0 instead of q6_k" in told
    assert "rows of 128 are no multiple of 256" in told
    reader = gguf.GGUFReader(tmp_path / "out/out.gguf")
    matrices = [tensor for tensor in reader.tensors if len(tensor.shape) > 1]
    counts = [int(n or 1) for n in re.findall(r"(\d*)(?: of )?[a-z_]+\.weight", told)]
    assert sum(counts) == len(matrices)
    model = read_architecture(narrow.config, "narrow")
    tensor_bytes = sum(tensor.n_bytes for tensor in reader.tensors)
    assert tensor_bytes == weight_bytes("q4_k_m", model)


def test_rows_that_no_block_divides_stay_in_16_bit(tmp_path: Path) -> None:
    like = locate.find("tiny-ax-4.0", weights=False).folder
    odd = with_weights(like, tmp_path / "odd", intermediate_size=72)
    exported = export(odd.folder, tmp_path / "out", to="gguf", dtype="q5_k_m", k_quant=FAST)
    assert any(
        "2 of ffn_down.weight in f16 instead of q5_k" in note and "rows of 72" in note
        for note in exported.notes
    )


def light(config: dict[str, Any], folder: Path) -> Path:
    """The file of a full model before it is rounded: a true header, and holes for numbers."""
    tiny = {"qwen2": "tiny-ax-4.0", "llama": "tiny-ax-3.1"}[config["model_type"]]
    planned = plan([], tiny)
    config = {**planned.config, **config}
    for key in ("head_dim", "layer_types"):
        config.pop(key, None)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    pieces = [
        OutputTensor(name, torch.bfloat16, tuple(tensor.shape), None)
        for name, tensor in model.state_dict().items()
    ]
    planned = dataclasses.replace(planned, config=config, shards={"all": pieces})
    file = gguf_file(planned, load_tokenizer(tiny), "light", None)
    path = folder / file.path
    with path.open("wb") as stream:
        stream.write(file.header)
        stream.truncate(file.size)
    return path


@pytest.mark.parametrize(
    ("name", "size"), [("skt/A.X-4.0-Light", 4.43e9), ("skt/A.X-3.1-Light", 4.71e9)]
)
def test_the_sizes_of_the_lights(name: str, size: float, tmp_path: Path) -> None:
    """llama.cpp's own dry run, which reads the header alone, says what the plan says."""
    config = LIGHTS[name]
    source = light(config, tmp_path)
    model = read_architecture(config, name)
    lines: list[str] = []
    log = llama_cpp.llama_log_callback(lambda level, text, data: lines.append(text.decode()))
    llama_cpp.llama_log_set(log, ctypes.c_void_p())
    try:
        for kind in KINDS:
            how = llama_cpp.llama_model_quantize_default_params()
            how.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
            how.dry_run = True
            lines.clear()
            target = str(tmp_path / "none").encode()
            failed = llama_cpp.llama_model_quantize(str(source).encode(), target, ctypes.byref(how))
            assert failed == 0
            found = re.search(r"quant size += +([\d.]+) MiB", "".join(lines))
            assert found
            assert weight_bytes(kind, model) / 2**20 == pytest.approx(float(found[1]), abs=0.01)
    finally:
        llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p())
    assert weight_bytes("q4_k_m", model) == pytest.approx(size, rel=0.01)


_SILENT = llama_cpp.llama_log_callback(lambda level, text, data: None)


def test_checkpoints_of_two_dtypes_are_rounded_once(
    narrow: Checkpoint, options: RoundingOptions, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(narrow.folder, mixed)
    state = dict(tensors(mixed))
    # Beyond what bfloat16 tells apart; old checkpoints also hold what is computed.
    state["lm_head.weight"] = state["lm_head.weight"].float() * (1 + 1e-3)
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
    write_weights(mixed, state)
    export(mixed, tmp_path / "out", to="gguf", dtype="q6_k", k_quant=options)
    kind = gguf.GGMLQuantizationType.Q8_0
    wanted = gguf.quants.quantize(state["lm_head.weight"].numpy(), kind)
    (head,) = (
        tensor for tensor in gguf.GGUFReader(tmp_path / "out/out.gguf").tensors
        if tensor.name == "output.weight"
    )  # fmt: skip
    assert head.data.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("tensor", "value", "message"),
    [
        ("model.layers.1.mlp.up_proj.weight", torch.inf, "not finite"),
        ("model.layers.1.mlp.up_proj.weight", 3e38, r"out of model\.layers\.1 is not finite"),
    ],
)
def test_numbers_that_are_not_finite_are_named(
    tensor: str,
    value: float,
    message: str,
    narrow: Checkpoint,
    options: RoundingOptions,
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(narrow.folder, broken)
    state = dict(tensors(broken))
    state[tensor][:] = value
    write_weights(broken, state)
    with pytest.raises(AxtuneError, match=message):
        export(broken, tmp_path / "out", to="gguf", dtype="q4_k_m", k_quant=options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "rows.jsonl"]


def test_what_does_not_go_together_is_refused(narrow: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(AxtuneError, match="no rows of its own") as caught:
        export(narrow.folder, out, to="gguf", dtype="q4_k_m")
    assert "--calibrate FILE" in caught.value.remedy
    assert "--fast" in caught.value.remedy
    with pytest.raises(AxtuneError, match="q5_k_m is for GGUF files, not for vllm"):
        export(narrow.folder, out, to="vllm", dtype="q5_k_m")
    with pytest.raises(AxtuneError, match="Only K-quants are rounded by rows, and q8_0 is none"):
        export(narrow.folder, out, to="gguf", dtype="q8_0", k_quant=FAST)
    (tmp_path / "empty.jsonl").write_text("")
    empty = RoundingOptions(calibrate=(str(tmp_path / "empty.jsonl"),))
    with pytest.raises(AxtuneError, match="no row to calibrate on"):
        export(narrow.folder, out, to="gguf", dtype="q4_k_m", k_quant=empty)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.jsonl"]


def test_without_llama_cpp_it_says_how_to_get_it(
    narrow: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(k_quants.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="llama-cpp-python") as caught:
        export(narrow.folder, tmp_path / "out", to="gguf", dtype="q4_k_m", k_quant=FAST)
    assert "pip install 'axtune[gguf]'" in caught.value.remedy
    export(narrow.folder, tmp_path / "out", to="gguf", dtype="q8_0")


def test_room_for_both_files_is_asked_for_before(
    narrow: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(narrow.folder, tmp_path / "both/plain", to="gguf")
    export(narrow.folder, tmp_path / "both/packed", to="gguf", dtype="q4_k_m", k_quant=FAST)
    both = sum(file.stat().st_size for file in (tmp_path / "both").rglob("*.gguf"))
    told = _needed(narrow, tmp_path, monkeypatch)
    assert both <= told <= both + (2 << 20)
    assert [path.name for path in tmp_path.iterdir()] == ["both"]


def _needed(base: Checkpoint, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    with pytest.raises(AxtuneError, match="and its disk has 0 free") as caught:
        export(base.folder, folder / "out", to="gguf", dtype="q4_k_m", k_quant=FAST)
    found = re.search(r"needs ([\d,]+) bytes", caught.value.found)
    assert found
    return int(found[1].replace(",", ""))


def program(monkeypatch: pytest.MonkeyPatch, file: Path, text: str) -> None:
    """Another program in the place of the quantiser."""
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(k_quants, "_PROGRAM", file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os, sys; print('GGML_ASSERT', file=sys.stderr, flush=True); os.abort()",
         "quantiser was ended by SIGABRT; the last that it said: GGML_ASSERT"),
        ("import sys; print('bad magic\\n\\n', file=sys.stderr); sys.exit(1)",
         "quantiser failed; the last that it said: bad magic"),
        ("raise SystemExit(1)", "quantiser failed; the last that it said: nothing"),
    ],
)  # fmt: skip
def test_what_ends_the_quantiser_does_not_end_us(
    text: str,
    message: str,
    narrow: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program(monkeypatch, tmp_path / "program.py", text)
    with pytest.raises(AxtuneError, match=message):
        export(narrow.folder, tmp_path / "out", to="gguf", dtype="q4_k_m", k_quant=FAST)
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]


def test_a_full_disk_is_told_from_a_failure(
    narrow: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, tmp_path / "program.py", "raise SystemExit(1)")
    sync = os.fsync

    def full(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "rounded.gguf":
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(AxtuneError, match=r"The disk of .* filled up; what was done is kept"):
            export(narrow.folder, tmp_path / "out", to="gguf", dtype="q4_k_m", k_quant=FAST)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.partial", "program.py"]
    monkeypatch.undo()
    export(narrow.folder, tmp_path / "out", to="gguf", dtype="q4_k_m", k_quant=FAST)
    assert differences(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("what", "calls", "at"),
    [("rows through layers", 20, "It was at layer 2 of 2."), ("tensors in q4_k_m", 1, "")],
)
def test_an_interrupted_export_goes_on_and_ends_the_quantiser(
    what: str,
    calls: int,
    at: str,
    narrow: Checkpoint,
    options: RoundingOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Kept(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *words: Any, **how: Any) -> None:
            started.append(self)
            super().__init__(*words, **how)

    counts: dict[str, list[int]] = {}
    left = calls

    @contextmanager
    def counting(counted: str, total: int) -> Iterator[Callable[[], None]]:
        counts[counted] = [total, 0]

        def count() -> None:
            nonlocal left
            counts[counted][1] += 1
            left -= counted == what
            if left == 0:
                raise KeyboardInterrupt

        yield count

    wanted, out = tmp_path / "wanted/out", tmp_path / "out"
    export(narrow.folder, wanted, to="gguf", dtype="q4_k_m", k_quant=options)
    monkeypatch.setattr(subprocess, "Popen", Kept)
    how = dataclasses.replace(options, counting=counting)
    with pytest.raises(KeyboardInterrupt) as caught:
        export(narrow.folder, out, to="gguf", dtype="q4_k_m", k_quant=how)
    assert [process.returncode is not None for process in started] == [True] * len(started)
    assert len(started) == (what == "tensors in q4_k_m")
    kept = f"What was done is kept in {tmp_path / '.out.partial'}; the same command goes on."
    assert caught.value.__notes__ == [*[at] * bool(at), kept]
    counts.clear()
    left = -1
    export(narrow.folder, out, to="gguf", dtype="q4_k_m", k_quant=how)
    assert [total == done for total, done in counts.values()] == [True] * len(counts)
    again = {"rows through layers, from layer 2 of 2", "tensors in q4_k_m"}
    assert counts.keys() == (again if at else {"tensors in q4_k_m"})
    assert counts.get("rows through layers, from layer 2 of 2", [16])[0] == 16
    assert {file.name for file in out.iterdir()} == {file.name for file in wanted.iterdir()}
    for name in ("out.gguf", "axtune-files.json"):
        assert (out / name).read_bytes() == (wanted / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_calls_that_were_learned_are_made(layout: str, tmp_path: Path) -> None:
    """Tools in, calls out, of an adapter that knows its rows by heart."""
    tool_rows(tmp_path / "rows.jsonl", CITIES[:2])
    training = {
        "max_steps": 40,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-2,
    }
    model = f"tiny-ax-{layout}"
    run = train(recipe(tmp_path, model=model, data={"max_length": 1024}, training=training)).path
    asked = [row["messages"] for row in read_jsonl(tmp_path / "rows.jsonl")]
    wanted = [made[1]["tool_calls"][0]["function"] for made in asked]
    for kind in KINDS:
        export(run, tmp_path / kind, to="gguf", dtype=kind)
        with running(tmp_path / kind) as llama:
            assert [called(llama, model, messages[:1]) for messages in asked] == wanted


def called(llama: Any, model: str, messages: list[dict[str, Any]]) -> dict[str, str] | None:
    """The call that a file makes of a question, as a server hands it on."""
    tokenizer = load_tokenizer(model)
    tools = [Tool(each["function"]) for each in TOOLS]
    prompt = tokenizer.render(messages, tools, add_generation_prompt=True)
    answer, _ = greedy(llama, encode(llama, prompt), 64)
    assert answer[-1] == tokenizer.end_of_turn_id
    found = form_of(tokenizer.family).parse(tokenizer.decode(answer[:-1])).tool_calls
    return found[0]["function"] if len(found) == 1 else None
