"""`axtune quantize`, `merge` and `export`: what they wrote is said, with how to use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.adapters import adapter_for, sharded_checkpoint
from support.commands import axtune_in_process
from support.tiny import LIBRARY_WARNINGS, write_rows

from axtune.checkpoint.locate import Checkpoint

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def adapter(base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter_for(base, tmp_path_factory.mktemp("adapter") / "adapter")


def test_quantize_says_what_it_wrote_and_how_to_use_it(base: Checkpoint, tmp_path: Path) -> None:
    words = ["quantize", str(base.folder), "--out", str(tmp_path / "nf4")]
    done = axtune_in_process(*words, "--quant-type", "fp4", "--no-double-quant")
    assert done.status == 0
    assert f"{tmp_path / 'nf4'}: 14 linear layers in 4 bit, " in done.out
    assert f"model={tmp_path / 'nf4'}" in done.out
    written = json.loads((tmp_path / "nf4" / "axtune.json").read_text())["quantization"]
    assert written["bnb_4bit_quant_type"] == "fp4"
    assert not written["bnb_4bit_use_double_quant"]
    again = axtune_in_process(*words)
    assert (again.status, again.out) == (1, "")
    assert "exists already" in again.err


def test_merge_adds_adapters_with_their_weights(
    base: Checkpoint, adapter: Path, tmp_path: Path
) -> None:
    words = ["merge", str(adapter), str(adapter), "--base", str(base.folder)]
    done = axtune_in_process(
        *words, "--weight", "0.5", "--weight", "0.5", "--out", str(tmp_path / "both")
    )
    assert done.status == 0
    assert f"{tmp_path / 'both'}: " in done.out
    assert "14 changed" in done.out
    refused = axtune_in_process(*words, "--weight", "0.5", "--out", str(tmp_path / "one"))
    assert refused.status == 1
    assert not (tmp_path / "one").exists()


def test_export_says_the_command_that_serves(
    base: Checkpoint, adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "served"
    done = axtune_in_process(
        "export", str(adapter), "--base", str(base.folder), "--to", "vllm", "--out", str(out)
    )
    assert done.status == 0
    assert f"{out}: 1 MB\n" in done.out
    assert f"vllm serve {out}" in done.out


@pytest.mark.parametrize("command", ["quantize", "merge", "export"])
def test_a_folder_to_write_is_needed(command: str, base: Checkpoint) -> None:
    done = axtune_in_process(command, str(base.folder))
    assert done.status == 2
    assert "--out" in done.err


def test_export_in_4_bit_says_its_size_its_line_and_its_room(
    base: Checkpoint, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 4)
    words = ["export", str(base.folder), "--to", "vllm", "--bits", "4", "--group", "32"]
    done = axtune_in_process(*words, "--calibrate", str(rows), "--out", str(tmp_path / "out"))
    assert done.status == 0, done.err
    assert "layers in 4 bit computed in" in done.out
    assert f"{tmp_path / 'out'}: 1 MB" in done.out
    assert f"vllm serve {tmp_path / 'out'} --served-model-name out" in done.out
    assert "room: 8 GB 512 tokens, by arithmetic" in done.out
    assert "calibrating on 4 rows (" in done.out
    verify = f"verify: axtune verify {tmp_path / 'out'} --against {base.folder} --data FILE"
    assert verify in done.out
    config = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    assert config["config_groups"]["group_0"]["weights"]["group_size"] == 32


def test_export_in_k_quants_says_what_falls_back(base: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="scripts/setup_llama_cpp.sh builds llama-cpp-python")
    rows = write_rows(tmp_path / "rows.jsonl", 4)
    words = ["export", str(base.folder), "--to", "gguf", "--dtype", "q5_k_m", "--rows", "3"]
    done = axtune_in_process(*words, "--calibrate", str(rows), "--out", str(tmp_path / "out"))
    assert done.status == 0, done.err
    assert "rows through layers computed in" in done.out
    assert "tensors in q5_k_m computed in" in done.out
    assert "in q5_1 instead of q5_k" in done.out
    assert f"llama-server --jinja -m {tmp_path / 'out/out.gguf'}" in done.out
    assert "room: 8 GB 512 tokens, by arithmetic" in done.out
    facts = json.loads((tmp_path / "out/axtune-files.json").read_text())["facts"]["gguf"]
    assert facts["calibration"]["rows"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fast"], "Give --bits 4, or --dtype q4_k_m, as well."),
        (["--to", "gguf", "--dtype", "q8_0", "--seed", "1"], "or --dtype q4_k_m, as well."),
        (["--to", "gguf", "--dtype", "q4_k_m", "--group", "64"], "Give --bits 4 as well."),
        (["--to", "gguf", "--dtype", "q4_k_m", "--fast", "--rows", "3"], "without any rows."),
        (["--to", "gguf", "--dtype", "q4_k_m", "--bits", "4"], "without --bits."),
        (["--to", "hf", "--dtype", "q6_k"], "Give --to gguf as well."),
        (["--group", "64"], "Give --bits 4 as well."),
        (["--bits", "4", "--fast", "--rows", "3"], "--fast rounds without any rows."),
        (["--bits", "4", "--to", "hf"], "Give --to vllm"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    base: Checkpoint, words: list[str], message: str, tmp_path: Path
) -> None:
    to = [] if "--to" in words else ["--to", "vllm"]
    out = ["--out", str(tmp_path / "out")]
    done = axtune_in_process("export", str(base.folder), *to, *words, *out)
    assert (done.status, done.out) == (1, "")
    assert message in done.err
    assert not (tmp_path / "out").exists()
