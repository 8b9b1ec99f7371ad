"""Exports in 4 bit: what engines read, rounded by the run's own rows, whole or gone on with."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.adapters import adapter_for, run_with, sharded_checkpoint, tensors_of
from support.reported import result
from support.tiny import LIBRARY_WARNINGS, write_rows

from axtune.checkpoint import locate
from axtune.checkpoint.locate import TOKENIZER_FILES, Checkpoint
from axtune.checkpoint.record import RECORD, Record, differences
from axtune.checkpoint.run_dir import EVALUATION
from axtune.errors import AxtuneError, CheckpointError
from axtune.export import four_bit, layer_pass
from axtune.export.export import export
from axtune.export.four_bit import FourBitOptions
from axtune.model import int4
from axtune.plan.architecture import read_architecture
from axtune.plan.serving import LIGHTS, weight_bytes
from axtune.verify.layerwise import Layerwise
from axtune.verify.verify import verify
from axtune.weights import folder
from axtune.weights.decoder import LINEAR
from axtune.weights.merge import merge

pytestmark = LIBRARY_WARNINGS

PROMPTS = [[25, 8, 2000, 27], [25, 8, 61, 2475, 384, 539, 27, 25, 10]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def run(base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return run_with(adapter_for(base, folder / "adapter"), base, folder / "run")


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    export(run, out, to="vllm", four_bit=FourBitOptions())
    return out


def test_an_engine_finds_the_format_and_all_else_as_it_was(
    base: Checkpoint, run: Path, exported: Path, tmp_path: Path
) -> None:
    export(run, tmp_path / "plain", to="vllm")
    plain, packed = tensors_of(tmp_path / "plain"), tensors_of(exported)
    config = json.loads((exported / "config.json").read_text())
    assert config.pop("quantization_config") == int4.quantization_config(64)
    assert config == json.loads((tmp_path / "plain/config.json").read_text())
    linear = {name for name in plain if LINEAR.fullmatch(name)}
    assert len(linear) == 14
    for name in plain.keys() - linear:
        assert torch.equal(packed[name], plain[name])
    parts = {f"{name.removesuffix('weight')}{part}" for name in linear
             for part in (int4.PACKED, int4.SCALE, int4.SHAPE)}  # fmt: skip
    assert packed.keys() == (plain.keys() - linear) | parts
    for name in TOKENIZER_FILES:
        if (base.folder / name).is_file() and name != "tokenizer_config.json":
            assert (exported / name).read_bytes() == (base.folder / name).read_bytes()
    index = json.loads((exported / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == packed.keys()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in packed.values())
    assert not [file.name for file in exported.iterdir() if file.name.startswith(".")]
    assert len({file.stat().st_mode for file in exported.iterdir()}) == 1  # the umask's
    assert differences(exported) == []


def test_it_answers_nearer_than_rounding_to_nearest(
    base: Checkpoint, run: Path, exported: Path, tmp_path: Path
) -> None:
    export(run, tmp_path / "fast", to="vllm", four_bit=FourBitOptions(fast=True))
    reference = Layerwise(base, run / "adapter").read(PROMPTS).logits
    far = [
        float((Layerwise(locate.find(str(folder))).read(PROMPTS).logits - reference).norm())
        for folder in (exported, tmp_path / "fast")
    ]
    assert far[0] < far[1]
    assert far[1] < float(reference.norm()) / 4


def test_the_record_says_how_it_was_made(run: Path, exported: Path, tmp_path: Path) -> None:
    record = Record.read(exported)
    assert record is not None
    made = record.facts["four_bit"]
    assert (made["method"], made["bits"], made["group"]) == ("gptq", 4, 64)
    assert made["calibration"]["files"] == ["rows.jsonl"]
    assert made["calibration"]["rows"] == 16
    assert len(made["adapters"]) == 1
    text = (exported / RECORD).read_text()
    assert str(run.parent) not in text  # it is handed on
    again = tmp_path / "again"
    export(run, again, to="vllm", four_bit=FourBitOptions())
    assert (again / RECORD).read_text() == text


def test_the_card_says_the_scheme_and_then_what_the_certificate_measured(
    run: Path, tmp_path: Path
) -> None:
    evaluated = Path(shutil.copytree(run, tmp_path / "run"))
    (evaluated / EVALUATION).mkdir()
    result(str(evaluated)).write(evaluated / EVALUATION)
    export(evaluated, tmp_path / "out", to="vllm", four_bit=FourBitOptions())
    file = tmp_path / "out/README.md"
    card = file.read_text()
    record = Record.read(tmp_path / "out")
    assert record is not None
    tokens = record.facts["four_bit"]["calibration"]["tokens"]
    assert f"by GPTQ, calibrated on 16 rows ({tokens:,} tokens); groups of 64 inputs" in card
    assert "which was not run yet" in card
    assert "rows.jsonl" not in card
    assert "## Evaluation before rounding" in card
    assert "by the adapter on its base in 16 bit, not by the weights of this folder" in card
    head = card.split("---")[1]
    assert "model-index" not in head  # the figures are not this model's
    assert "- gptq" in head
    verify(tmp_path / "out", adapter=evaluated)
    certified = file.read_text()
    assert "- 16-bit base + adapter (" in certified
    assert "nats a token" in certified
    assert "which was not run yet" not in certified
    before, _, rest = card.partition("<!-- axtune: certificate -->")
    assert certified.startswith(before)
    assert certified.endswith(rest.partition("<!-- axtune: end of certificate -->")[2])
    assert differences(tmp_path / "out") == []


def test_the_card_of_what_is_rounded_to_nearest(base: Checkpoint, tmp_path: Path) -> None:
    how = FourBitOptions(fast=True)
    export(str(base.folder), tmp_path / "out", to="vllm", four_bit=how)
    card = (tmp_path / "out/README.md").read_text()
    assert "rounded to nearest, without calibration; groups of 64" in card
    assert str(base.folder) not in card


def test_other_groups_and_rows(run: Path, tmp_path: Path) -> None:
    options = FourBitOptions(group=32, rows=3, seed=7)
    export(run, tmp_path / "out", to="vllm", four_bit=options)
    record = Record.read(tmp_path / "out")
    assert record is not None
    assert record.facts["four_bit"]["group"] == 32
    assert record.facts["four_bit"]["calibration"]["rows"] == 3
    assert record.facts["four_bit"]["calibration"]["seed"] == 7


def test_a_checkpoint_is_calibrated_on_files(base: Checkpoint, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 5)
    options = FourBitOptions(calibrate=(str(rows),))
    export(str(base.folder), tmp_path / "out", to="vllm", four_bit=options)
    record = Record.read(tmp_path / "out")
    assert record is not None
    assert record.facts["four_bit"]["calibration"]["rows"] == 5
    assert record.facts["four_bit"]["adapters"] == []


def test_weights_in_float32_get_scales_of_16_bit(base: Checkpoint, tmp_path: Path) -> None:
    export(str(base.folder), tmp_path / "wide", dtype="float32")
    export(str(tmp_path / "wide"), tmp_path / "out", to="vllm", four_bit=FourBitOptions(fast=True))
    assert {t.dtype for t in tensors_of(tmp_path / "out").values() if t.is_floating_point()} == {
        torch.bfloat16
    }


# Bad input.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"to": "hf"}, "--bits 4 is vLLM's format, not one for hf"),
        ({"to": "gguf"}, "--bits 4 is vLLM's format, not one for gguf"),
        ({"to": "vllm", "layout": "own"}, "An export in 4 bit is in Llama layout"),
        ({"to": "vllm", "max_shard_size": "5GB"}, "has a file for each layer"),
        ({"to": "vllm", "dtype": "float32"}, "scales of 16 bit"),
    ],
)
def test_what_4_bit_cannot_be_is_refused(
    run: Path, words: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(AxtuneError, match=message):
        export(run, tmp_path / "out", four_bit=FourBitOptions(), **words)
    assert list(tmp_path.iterdir()) == []


def test_without_rows_it_says_what_gives_some(base: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(AxtuneError, match="no rows of its own to calibrate on") as caught:
        export(str(base.folder), tmp_path / "out", to="vllm", four_bit=FourBitOptions())
    assert "--calibrate FILE" in caught.value.remedy
    assert "--fast" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_4_bit_already_is_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is in 4 bit for serving"):
        export(str(exported), tmp_path / "out", to="vllm", four_bit=FourBitOptions(fast=True))


def broken(base: Checkpoint, folder: Path, name: str, value: float) -> Path:
    merge([], str(base.folder), folder)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        if name in tensors:
            tensors[name].fill_(value)
            save_file(tensors, file, metadata={"format": "pt"})
    (folder / RECORD).unlink()
    return folder


def test_activations_that_overflow_are_named_by_their_layer(
    base: Checkpoint, tmp_path: Path
) -> None:
    wide = broken(base, tmp_path / "wide", "model.layers.1.mlp.up_proj.weight", 3e38)
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    options = FourBitOptions(calibrate=(str(rows),))
    with pytest.raises(AxtuneError, match=r"goes into model\.layers\.1\.mlp\.down_proj is not"):
        export(str(wide), tmp_path / "out", to="vllm", four_bit=options)
    assert {file.name for file in tmp_path.iterdir()} == {"wide", "rows.jsonl"}


@pytest.mark.parametrize("fast", [True, False])
def test_weights_that_are_not_finite_are_named(
    base: Checkpoint, fast: bool, tmp_path: Path
) -> None:
    name = "model.layers.0.self_attn.k_proj.weight"
    bad = broken(base, tmp_path / "bad", name, float("nan"))
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    options = FourBitOptions(fast=fast, calibrate=() if fast else (str(rows),))
    with pytest.raises(AxtuneError, match=name):
        export(str(bad), tmp_path / "out", to="vllm", four_bit=options)
    assert {file.name for file in tmp_path.iterdir()} == {"bad", "rows.jsonl"}


# Interrupted.


LINEAR_LAYERS = 7  # of a layer, each of them counted


def stopping_after(layers: int, error: BaseException) -> FourBitOptions:
    """Options under which a pass ends with an error within the layer behind so many."""
    left = layers * LINEAR_LAYERS + 1

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise error

    @contextmanager
    def counting(what: str, total: int) -> Iterator[Callable[[], None]]:
        yield count

    return FourBitOptions(counting=counting)


@pytest.mark.parametrize("fast", [True, False])
def test_an_interrupted_pass_goes_on_and_ends_the_same(
    run: Path, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = FourBitOptions(fast=fast)
    export(run, tmp_path / "whole", to="vllm", four_bit=options)
    stopped = replace(stopping_after(1, KeyboardInterrupt()), fast=fast)
    with pytest.raises(KeyboardInterrupt) as caught:
        export(run, tmp_path / "out", to="vllm", four_bit=stopped)
    assert caught.value.__notes__ == [
        "It was at layer 2 of 2.",
        f"What was done is kept in {tmp_path / '.out.partial'}; the same command goes on.",
    ]
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.partial").is_dir()
    done: list[int] = []
    for kind in (four_bit._Rounding, four_bit._ByRows):
        layer = kind.layer
        monkeypatch.setattr(
            kind, "layer", lambda self, index, count, layer=layer: done.append(index)
            or layer(self, index, count)
        )  # fmt: skip
    counted: list[tuple[str, int]] = []

    @contextmanager
    def counting(what: str, total: int) -> Iterator[Callable[[], None]]:
        counted.append((what, total))
        yield lambda: None

    export(run, tmp_path / "out", to="vllm", four_bit=replace(options, counting=counting))
    assert done == [1]
    assert counted == [("linear layers in 4 bit, from layer 2 of 2", LINEAR_LAYERS)]
    assert not (tmp_path / ".out.partial").exists()
    whole, resumed = (tmp_path / name for name in ("whole", "out"))
    assert {file.name for file in whole.iterdir()} == {file.name for file in resumed.iterdir()}
    for file in whole.iterdir():
        if file.name not in ("SERVING.md", "README.md"):  # they say the folder's name
            assert file.read_bytes() == (resumed / file.name).read_bytes(), file.name


def test_what_comes_behind_the_last_layer_goes_on_too(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests of large files take a while as well."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_record", stop)
        with pytest.raises(KeyboardInterrupt):
            export(run, tmp_path / "out", to="vllm", four_bit=FourBitOptions())
    monkeypatch.setattr(four_bit, "Decoder", stop)  # no layer is computed again
    export(run, tmp_path / "out", to="vllm", four_bit=FourBitOptions())
    assert differences(tmp_path / "out") == []
    assert not [file for file in (tmp_path / "out").iterdir() if file.name.startswith(".")]


def test_other_settings_begin_anew(run: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        export(run, tmp_path / "out", to="vllm", four_bit=stopping_after(1, KeyboardInterrupt()))
    export(run, tmp_path / "out", to="vllm", four_bit=FourBitOptions(group=32))
    record = Record.read(tmp_path / "out")
    assert record is not None
    assert record.facts["four_bit"]["group"] == 32
    packed = tensors_of(tmp_path / "out")
    assert {t.shape[1] for n, t in packed.items() if n.endswith("q_proj.weight_scale")} == {2}


def test_a_full_disk_keeps_what_is_done(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = layer_pass.write_tensors, []

    def fill(file: Path, tensors: Any, **metadata: str) -> None:
        if file.name.startswith("model-00002"):
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(file.name)
        write(file, tensors, **metadata)

    with monkeypatch.context() as patch:
        for module in (four_bit, layer_pass):
            patch.setattr(module, "write_tensors", fill)
        with pytest.raises(AxtuneError, match="filled up; what was done is kept") as caught:
            export(run, tmp_path / "out", to="vllm", four_bit=FourBitOptions())
    assert "the same command again" in caught.value.remedy
    assert written == ["model-00001-of-00003.safetensors", "states.safetensors"]
    export(run, tmp_path / "out", to="vllm", four_bit=FourBitOptions())
    assert differences(tmp_path / "out") == []


# Sizes.


@pytest.mark.parametrize(
    ("name", "most"), [("skt/A.X-4.0-Light", 4.85e9), ("skt/A.X-3.1-Light", 5.01e9)]
)
def test_the_size_of_a_full_export(name: str, most: float) -> None:
    config = LIGHTS[name]
    size = weight_bytes("w4a16", read_architecture(config, name))
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    if config["model_type"] == "qwen2":
        size += layers * 2 * hidden  # the zero bias of the Llama layout
    size += layers * 7 * 16  # weight_shape
    assert 4.8e9 < size <= most


def test_the_size_is_what_arithmetic_says(base: Checkpoint, exported: Path) -> None:
    size = weight_bytes("w4a16", read_architecture(base.config, "base"), group=64)
    size += 2 * 2 * 64 + 2 * 7 * 16
    assert sum(tensor.nbytes for tensor in tensors_of(exported).values()) == size
