"""A base quantised once: the bits of loading, the runs of loading, and the original as the base."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.adapters import adapter_for, logits, run_with, sharded_checkpoint, tensors_of
from support.killed import files_of_at_most, fill_the_disk, states_when_killed
from support.tiny import LIBRARY_WARNINGS, checkpoint, recipe, with_weights
from transformers import AutoModelForCausalLM, PreTrainedModel

from axtune.checkpoint import locate
from axtune.checkpoint.locate import TOKENIZER_FILES, Checkpoint
from axtune.checkpoint.run_dir import Run, claim, read_metrics
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.cli import main
from axtune.errors import AxtuneError, CheckpointError, RecipeError
from axtune.export.export import export
from axtune.model.cpu_bf16 import avoid_broken_kernels
from axtune.model.load import Precision, load_model, measure
from axtune.model.trained import load_trained
from axtune.run import train
from axtune.training.initial_adapter import start_adapter
from axtune.training.progress import Report
from axtune.verify.verify import verify
from axtune.weights.merge import merge
from axtune.weights.quantized_base import Quantized, quantize
from axtune.weights.safetensors_file import header_bytes, read_checkpoint

pytestmark = LIBRARY_WARNINGS

# As recipes/sft_qlora.yaml has it.
QLORA = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}


def loaded(
    found: Checkpoint, precision: Precision, quantization: dict[str, Any] | None = None
) -> PreTrainedModel:
    return load_model(found, load_tokenizer(found), precision=precision, quantization=quantization)


def differing(one: PreTrainedModel, two: PreTrainedModel) -> list[str]:
    """Names of what two models hold and is not the same to the bit: weights, scales, states."""
    ours, theirs = one.state_dict(), two.state_dict()
    assert ours.keys() == theirs.keys()
    return [
        name
        for name in ours
        if ours[name].dtype != theirs[name].dtype or not torch.equal(ours[name], theirs[name])
    ]


# --- the bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("model", ["tiny-ax-4.0", "tiny-ax-3.1"])
def test_the_folder_holds_the_bits_that_loading_makes(
    model: str, precision: Precision, tmp_path: Path
) -> None:
    base = locate.find(model)
    written = quantize(model, tmp_path / "nf4")
    folder = locate.find(str(tmp_path / "nf4"))
    ours, reference = loaded(folder, precision), loaded(base, precision, QLORA)
    assert differing(ours, reference) == []
    assert torch.equal(logits(ours), logits(reference))
    assert not torch.equal(logits(ours), logits(loaded(base, precision)))  # and 4 bit shows
    names = [name for name in reference.state_dict() if "quant_state" in name]
    assert len(names) == written.layers == 7 * base.config["num_hidden_layers"]
    assert ours.name_or_path == model

    reference.save_pretrained(tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    made = dict(folder.config)
    assert made.pop("quantization_config") == config["quantization_config"]
    assert made == base.config
    theirs = {t.name: t.shape for t in read_checkpoint(tmp_path / "theirs")["model.safetensors"]}
    mine = {t.name: t.shape for t in read_checkpoint(folder.folder)["model.safetensors"]}
    # The state's JSON names the dtype of the run.
    assert mine.keys() == theirs.keys()
    assert [n for n in mine if "quant_state" not in n and mine[n] != theirs[n]] == []
    size = sum(t.nbytes for t in read_checkpoint(folder.folder)["model.safetensors"])
    assert written.nbytes == size < written.original_nbytes


@pytest.mark.parametrize(
    ("options", "section"),
    [
        ({"double_quant": False}, {"bnb_4bit_use_double_quant": False}),
        ({"quant_type": "fp4"}, {"bnb_4bit_quant_type": "fp4"}),
        ({"precision": "fp16"}, {"bnb_4bit_compute_dtype": "float16"}),
    ],
    ids=lambda value: "-".join(value),
)
def test_other_settings_are_those_of_loading_too(
    options: dict[str, Any], section: dict[str, Any], tmp_path: Path
) -> None:
    base = checkpoint(tmp_path / "base", "3.1")
    quantize(base.name, tmp_path / "nf4", **options)
    precision = options.get("precision", "bf16")
    folder = locate.find(str(tmp_path / "nf4"))
    reference = loaded(base, precision, QLORA | section)
    assert differing(loaded(folder, precision), reference) == []


def test_a_large_tensor_is_quantised_as_a_whole(tmp_path: Path) -> None:
    """Several blocks, each of several chunks, and so many scales that their mean is threaded."""
    like = locate.find("tiny-ax-4.0", weights=False).folder
    shape = {"hidden_size": 1088, "intermediate_size": 4160, "num_hidden_layers": 1}
    base = with_weights(like, tmp_path / "base", **shape, num_attention_heads=17)
    quantize(base.name, tmp_path / "nf4", max_shard_size="2MB")
    folder = locate.find(str(tmp_path / "nf4"))
    assert len(list(folder.folder.glob("model-*.safetensors"))) > 3
    assert differing(loaded(folder, "bf16"), loaded(base, "bf16", QLORA)) == []


def test_weights_in_float32_are_rounded_first_as_loading_does(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    torch.manual_seed(1)
    weights = {name: torch.randn(t.shape) * 0.02 for name, t in tensors_of(base.folder).items()}
    save_file(weights, base.folder / "model.safetensors", metadata={"format": "pt"})
    quantize(base.name, tmp_path / "nf4")
    folder = locate.find(str(tmp_path / "nf4"))
    assert folder.config["torch_dtype"] == "bfloat16"
    assert differing(loaded(folder, "bf16"), loaded(base, "bf16", QLORA)) == []
    with pytest.raises(
        RecipeError, match=r"precision: fp32, but .* holds what a run in bf16 loads"
    ):
        loaded(folder, "fp32")


def test_the_other_files_are_the_bases_and_transformers_loads_the_folder(tmp_path: Path) -> None:
    base = sharded_checkpoint(tmp_path / "base")
    (base.folder / "LICENSE").write_text("Apache-2.0")
    quantize(base.name, tmp_path / "nf4", max_shard_size="200KB")
    out = tmp_path / "nf4"
    for name in (*TOKENIZER_FILES, "generation_config.json", "LICENSE"):
        assert (out / name).is_file() == (base.folder / name).is_file()
        if (base.folder / name).is_file():
            assert (out / name).read_bytes() == (base.folder / name).read_bytes()
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    avoid_broken_kernels(model)
    assert torch.equal(logits(model), logits(loaded(base, "bf16", QLORA)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "nf4"]


# --- training ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nf4(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    return quantize("tiny-ax-4.0", tmp_path_factory.mktemp("quantised") / "nf4")


@pytest.fixture(scope="module")
def runs(nf4: Quantized, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """The same job twice: quantised while loading, and from the folder."""
    here = tmp_path_factory.mktemp("runs")
    job: dict[str, Any] = {"training": {"learning_rate": 0.02}, "lora": {"r": 8}}
    return (
        train(recipe(here, output_dir=str(here / "loading"), quantization=QLORA, **job)),
        train(recipe(here, output_dir=str(here / "folder"), model=str(nf4.folder), **job)),
    )


@pytest.mark.slow
def test_training_from_the_folder_is_training_that_quantises(
    runs: tuple[Run, Run], nf4: Quantized
) -> None:
    events = [
        [
            {key: value for key, value in event.items() if key in ("step", "loss", "grad_norm")}
            for event in read_metrics(run.path / "metrics.jsonl")
        ]
        for run in runs
    ]
    assert events[0] == events[1]
    assert len({event["loss"] for event in events[0] if "loss" in event}) >= 4
    adapters = [load_file(run.adapter / "adapter_model.safetensors") for run in runs]
    assert [name for name in adapters[0] if not torch.equal(*(a[name] for a in adapters))] == []

    loading, folder = runs
    assert folder.recipe.model == str(nf4.folder)
    assert folder.recipe.quantization == loading.recipe.quantization == QLORA
    base = dict(folder.manifest["base"])
    assert base.pop("quantized")["name"] == str(nf4.folder)
    assert base == loading.manifest["base"]
    config = json.loads((folder.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-ax-4.0"
    assert "tiny-ax-4.0" in (folder.adapter / "README.md").read_text()


@pytest.mark.slow
def test_merge_export_and_verify_find_the_original(
    runs: tuple[Run, Run], nf4: Quantized, tmp_path: Path
) -> None:
    loading, folder = runs
    originals = tensors_of(locate.find("tiny-ax-4.0").folder)
    for into in ("16bit", "nf4"):
        merge([loading.path], None, tmp_path / f"{into}-1", into=into)
        merge([folder.path], None, tmp_path / f"{into}-2", into=into)
        merge([folder.path], str(nf4.folder), tmp_path / f"{into}-3", into=into)
        merged = [tensors_of(tmp_path / f"{into}-{n}") for n in (1, 2, 3)]
        assert merged[0].keys() == originals.keys()
        for name, tensor in merged[0].items():
            assert all(torch.equal(tensor, other[name]) for other in merged[1:])
        assert any(not torch.equal(merged[0][name], originals[name]) for name in originals)
    certificate = verify(tmp_path / "16bit-2", adapter=folder.path)
    assert certificate.passed
    assert {"16-bit base + adapter", "nf4 base + adapter"} <= {c.name for c in certificate.checks}
    assert verify(tmp_path / "16bit-2", adapter=folder.path, against=str(nf4.folder)).passed
    export(folder.path, tmp_path / "vllm", to="vllm")
    notes = export(folder.path, tmp_path / "lora", to="adapter").notes
    assert "axtune export tiny-ax-4.0 --to vllm" in notes[0]
    with pytest.raises(CheckpointError, match="is quantised") as error:
        export(str(nf4.folder), tmp_path / "no")
    assert "tiny-ax-4.0" in error.value.remedy
    assert verify(nf4.folder).passed  # its files are what they must be; logits are skipped


@pytest.mark.slow
def test_the_report_counts_the_layers_in_4_bit_once(runs: tuple[Run, Run], nf4: Quantized) -> None:
    folder = locate.find(str(nf4.folder))
    adapted = PeftModel.from_pretrained(loaded(folder, "fp32"), str(runs[1].adapter))
    assert measure(adapted).quantized_layers == nf4.layers == 28


@pytest.mark.slow
def test_a_run_goes_on_whether_its_recipe_repeats_the_settings_or_not(
    runs: tuple[Run, Run], tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(runs[1].path, copy)
    given = runs[1].recipe.model_dump()
    again = {**given, "output_dir": str(copy), "resume": True}
    for steps, section in ((6, None), (7, QLORA), (8, runs[1].recipe.quantization)):
        again["training"] = {**given["training"], "max_steps": steps}
        resumed = train(type(runs[1].recipe).model_validate({**again, "quantization": section}))
        assert resumed.manifest["counts"]["steps"] == steps
        assert resumed.recipe.quantization == QLORA
    with pytest.raises(AxtuneError, match="already holds a run"):
        claim(recipe(tmp_path, output_dir=str(copy)))


@pytest.mark.slow
def test_a_run_starts_from_a_run_over_the_original_or_over_the_folder(
    runs: tuple[Run, Run], nf4: Quantized, tmp_path: Path
) -> None:
    folder, original = locate.find(str(nf4.folder)), locate.find("tiny-ax-4.0")
    for found, section in ((folder, None), (original, QLORA)):
        for run in runs:
            job = recipe(tmp_path, task="dpo", model=found.name, start_from=str(run.path))
            model = loaded(found, "fp32", section)
            adapter = start_adapter(model, job, found, Report(enabled=False))
            assert adapter.model.peft_config["default"].r == 8
    other = checkpoint(tmp_path / "other")
    with pytest.raises(AxtuneError, match=r"was trained on tiny-ax-4\.0"):
        start_adapter(loaded(other, "fp32"), job, other, Report(enabled=False))


@pytest.mark.slow
def test_answers_come_from_the_folder_that_was_trained_on(
    runs: tuple[Run, Run], nf4: Quantized, tmp_path: Path
) -> None:
    said: list[str] = []
    ours, theirs = (load_trained(str(run.path), said.append)[0] for run in reversed(runs))
    assert torch.equal(logits(ours), logits(theirs))
    assert said == []
    file = nf4.folder / "model.safetensors"
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + b" ")  # inside the JSON of a state
        load_trained(str(runs[1].path), said.append)
    except CheckpointError:
        pass  # the library may not read it
    finally:
        file.write_bytes(content)
    assert any("have changed since" in line for line in said)


@pytest.mark.slow
def test_an_original_that_is_gone_or_changed_is_asked_for(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    quantize(base.name, tmp_path / "nf4")
    run = train(recipe(tmp_path, model=str(tmp_path / "nf4"), training={"max_steps": 1}))
    moved = base.folder.rename(tmp_path / "moved")
    for source in (run.path, run.adapter):
        with pytest.raises(
            CheckpointError, match=f"made from {base.name}.*no such folder"
        ) as error:
            merge([source], None, tmp_path / "out")
        assert "--base" in error.value.remedy
    with pytest.raises(CheckpointError, match=f"made from {base.name}"):
        merge([run.path], str(tmp_path / "nf4"), tmp_path / "out")
    merge([run.path], str(moved), tmp_path / "out")
    assert tensors_of(tmp_path / "out").keys() == tensors_of(moved).keys()

    weights = tensors_of(moved)
    weights["model.norm.weight"] += 1
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    moved.rename(base.folder)
    with pytest.raises(AxtuneError, match=r"another base: model\.safetensors of"):
        merge([run.path], None, tmp_path / "other")


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"bnb_4bit_quant_type": "fp4"}, r"bnb_4bit_quant_type: fp4, but .* was made with nf4"),
        ({"bnb_4bit_use_double_quant": False}, r"double_quant: False, but .* made with True"),
        ({"bnb_4bit_compute_dtype": "float32"}, r"compute_dtype: float32, but .* with bfloat16"),
        ({"llm_int8_skip_modules": ["q_proj"]}, r"skip_modules: \['q_proj'\], but .* with None"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_recipe_with_other_settings_is_refused(
    section: dict[str, Any], message: str, nf4: Quantized, tmp_path: Path
) -> None:
    job = recipe(tmp_path, model=str(nf4.folder), quantization=QLORA | section)
    with pytest.raises(RecipeError, match=message) as error:
        train(job)
    assert "set model=tiny-ax-4.0" in str(error.value)
    assert not Path(job.output_dir).exists()


def test_a_precision_that_would_round_otherwise_is_refused(nf4: Quantized, tmp_path: Path) -> None:
    found = locate.find(str(nf4.folder))
    with pytest.raises(RecipeError, match=r"precision: fp16, but .* a run in bf16 or fp32 loads"):
        loaded(found, "fp16")
    assert differing(loaded(found, "fp32", QLORA), loaded(found, "fp32")) == []
    quantize("tiny-ax-4.0", tmp_path / "half", precision="fp16")
    with pytest.raises(RecipeError, match=r"precision: bf16, but .* a run in fp16 loads"):
        loaded(locate.find(str(tmp_path / "half")), "bf16")


def remove_shard(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[1].unlink()


def shorten_shard(folder: Path) -> None:
    file = sorted(folder.glob("*.safetensors"))[2]
    os.truncate(file, file.stat().st_size - 1)


def remove_tensor(folder: Path) -> None:
    weights = tensors_of(folder)
    del weights["model.layers.1.mlp.up_proj.weight"]
    in_one_file(folder, weights)


def break_number(folder: Path) -> None:
    weights = tensors_of(folder)
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    in_one_file(folder, weights)


def break_norm(folder: Path) -> None:
    weights = tensors_of(folder)
    weights["model.norm.weight"] /= 0
    in_one_file(folder, weights)


def in_one_file(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def widen(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 192}))


def call_quantised(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq"}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_shard, "lacks model-00002-of"),
        (shorten_shard, "bytes, and its header declares"),
        (remove_tensor, r"lacks 1 tensors, model\.layers\.1\.mlp\.up_proj"),
        (widen, r"has the shape \[128, 64\]; config\.json wants \[192, 64\]"),
        (break_number, r"layers\.1\.mlp\.up_proj\.weight holds numbers that are not finite in bf"),
        (break_norm, r"model\.norm\.weight holds numbers that are not finite in bfloat16"),
        (call_quantised, r"is quantised already \(awq\); expected 16-bit"),
    ],
)  # fmt: skip
def test_a_base_that_cannot_be_quantised_is_refused(
    damage: Any, message: str, tmp_path: Path
) -> None:
    base = sharded_checkpoint(tmp_path / "base")
    damage(base.folder)
    with pytest.raises(AxtuneError, match=message):
        quantize(base.name, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_numbers_too_large_for_fp16_are_refused(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    weights = tensors_of(base.folder)
    weights["model.norm.weight"] *= 1e6
    save_file(weights, base.folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AxtuneError, match=r"model\.norm\.weight .* not finite in float16"):
        quantize(base.name, tmp_path / "out", precision="fp16")
    quantize(base.name, tmp_path / "out")


def test_a_quantised_folder_an_existing_one_and_a_wrong_size_are_refused(
    nf4: Quantized, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"quantised already \(bitsandbytes\)"):
        quantize(str(nf4.folder), tmp_path / "out")
    with pytest.raises(AxtuneError, match="exists already"):
        quantize("tiny-ax-4.0", nf4.folder)
    with pytest.raises(AxtuneError, match="5 is not a file size"):
        quantize("tiny-ax-4.0", tmp_path / "out", max_shard_size="5")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_or_fills_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
        with pytest.raises(AxtuneError, match=r"needs [\d,]+ bytes and its disk has 1,000,000"):
            quantize("tiny-ax-4.0", tmp_path / "out")
    fill_the_disk(monkeypatch)
    with pytest.raises(AxtuneError, match="filled up; nothing was left behind"):
        quantize("tiny-ax-4.0", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_become_so_large_leaves_nothing(tmp_path: Path) -> None:
    limited = files_of_at_most(100_000)
    with limited, pytest.raises(AxtuneError, match="would be larger than files may be here"):
        quantize("tiny-ax-4.0", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_killed_while_writing_the_folder_is_absent_or_whole(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    quantize(base.name, tmp_path / "whole")
    states = states_when_killed(
        "from axtune.weights.quantized_base import quantize",
        "quantize(words[0], out)",
        tmp_path / "out",
        tmp_path / "whole",
        base.name,
        every=9,
    )
    assert len(states) > 10
    assert set(states[:-1]) == {"absent"}
    assert states[-1] in ("absent", "whole")  # its last flush comes after the folder has its name


# --- the command ------------------------------------------------------------------------------


def test_the_command_says_what_it_wrote_and_how_to_use_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "nf4"
    with pytest.raises(SystemExit) as end:
        main(["quantize", "tiny-ax-4.0", "--out", str(out), "--no-double-quant"])
    assert not end.value.code
    text = capsys.readouterr().out
    assert f"{out}: 28 linear layers in 4 bit, 6 MB → 3 MB" in text
    assert f"model={out}" in text
    record = json.loads((out / "axtune.json").read_text())
    assert record["name"] == "tiny-ax-4.0"
    assert record["quantization"] == QLORA | {"bnb_4bit_use_double_quant": False}
    with pytest.raises(SystemExit) as end:
        main(["quantize", "tiny-ax-4.0", "--out", str(out)])
    assert end.value.code == 1
    assert "exists already" in capsys.readouterr().err


# Peak resident memory in KiB before and after a large base, once everything has been imported.
PEAKS = """
import resource, sys
from axtune.weights.quantized_base import quantize
small, large, out = sys.argv[1:]
quantize(small, out + "-small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
quantize(large, out)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_base(tmp_path: Path) -> None:
    """A base of 300 MB in one file, its largest tensors of 32 MB: zeros that take no disk."""
    small = checkpoint(tmp_path / "small")
    shape = {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16}
    base = tmp_path / "base"
    shutil.copytree(small.folder, base)
    config = {**small.config, **shape, "num_key_value_heads": 16}
    (base / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        from axtune.model.shapes import skeleton

        model = skeleton(locate.find(str(base)))
    places, end = [], 0
    for name, tensor in model.state_dict().items():
        places.append((name, torch.bfloat16, tuple(tensor.shape), end))
        end += 2 * tensor.numel()
    header = header_bytes(places)
    (base / "model.safetensors").write_bytes(header)
    os.truncate(base / "model.safetensors", len(header) + end)
    assert end > 290_000_000
    paths = [small.name, str(base), str(tmp_path / "out")]
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEAKS, *paths],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    before, after = map(int, output.split())
    assert after - before < 100_000


def test_an_adapter_trained_on_the_original_merges_with_the_folder_as_base(
    tmp_path: Path,
) -> None:
    base = sharded_checkpoint(tmp_path / "base")
    adapter = adapter_for(base, tmp_path / "adapter")
    run = run_with(adapter, base, tmp_path / "run", QLORA)
    quantize(base.name, tmp_path / "nf4")
    merge([run], None, tmp_path / "one")
    for number, source in enumerate((run, adapter)):
        merge([source], str(tmp_path / "nf4"), tmp_path / f"two-{number}")
        ours, theirs = tensors_of(tmp_path / f"two-{number}"), tensors_of(tmp_path / "one")
        assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
