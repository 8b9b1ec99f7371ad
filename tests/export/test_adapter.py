"""Adapters for vLLM's --enable-lora: the run's own numbers, or a refusal with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from support.adapters import adapter_for, in_float32, logits, run_with, sharded_checkpoint
from support.tiny import LIBRARY_WARNINGS

from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.record import Record
from axtune.errors import AxtuneError
from axtune.export.export import export

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


def test_an_adapter_goes_out_as_it_is(base: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_for(base, tmp_path / "adapter", use_rslora=True)
    run = run_with(adapter, base, tmp_path / "run")
    out = tmp_path / "mine"
    exported = export(run, out, to="adapter")
    name = "adapter_model.safetensors"
    assert (out / name).read_bytes() == (adapter / name).read_bytes()
    assert not (out / "tokenizer.json").exists()  # the served base's is the right one
    assert exported.command is not None
    assert f"--enable-lora --max-lora-rank 8 --lora-modules mine={out}" in exported.command
    assert "--max-model-len 512" in exported.command
    assert exported.command in (out / "SERVING.md").read_text()


def test_ranks_and_scales_of_an_adapter_become_uniform(base: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_for(
        base,
        tmp_path / "adapter",
        rank_pattern={"q_proj": 9},
        alpha_pattern={"down_proj": 5},
    )
    export(adapter, tmp_path / "out", to="adapter")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (9, 9)
    assert not config["rank_pattern"]
    assert not config["alpha_pattern"]
    expected, ours = (
        logits(PeftModel.from_pretrained(in_float32(base.folder), str(folder)))
        for folder in (adapter, tmp_path / "out")
    )
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "cannot load an adapter with DoRA"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save \(lm_head\)"),
        ({"trainable_token_indices": [3]}, "trained model.embed_tokens"),
        ({"target_modules": ["q_proj", "lm_head"]}, "trained lm_head.lora_A"),
        ({"target_modules": ["q_proj"], "lora_bias": True}, "trained .*lora_B.bias"),
    ],
)
def test_an_adapter_that_vllm_cannot_load_is_refused(
    options: dict[str, Any], message: str, base: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter", **options)
    with pytest.raises(AxtuneError, match=message) as caught:
        export(adapter, tmp_path / "out", to="adapter")
    assert "axtune export" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_of_a_run_over_4_bit_it_names_the_base_in_4_bit_and_the_weakness(
    base: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    run = run_with(adapter, base, tmp_path / "my run", {"load_in_4bit": True})
    exported = export(run, tmp_path / "out", to="adapter")
    text = (tmp_path / "out/SERVING.md").read_text()
    of_base = f"axtune export {base.folder} --to vllm --bits 4 --calibrate FILE --out BASE"
    for said in (of_base, "vllm#50059", f"axtune export '{run}' --to vllm --bits 4 --out DIR"):
        assert said in text
        assert said in " ".join(exported.notes)
    plain = run_with(adapter, base, tmp_path / "plain")
    export(plain, tmp_path / "other", to="adapter")
    assert "vllm#50059" not in (tmp_path / "other/SERVING.md").read_text()


def of_documents(run: Path) -> Path:
    """The same run, as if it had learned documents."""
    file = run / "recipe.yaml"
    file.write_text(file.read_text().replace("task: sft", "task: cpt"))
    return run


def test_where_documents_were_learned_a_server_is_told_where_they_end(
    base: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    run = of_documents(run_with(adapter, base, tmp_path / "run"))
    out = tmp_path / "my adapter"
    exported = export(run, out, to="adapter")
    assert json.loads((out / "generation_config.json").read_text()) == {
        **base.generation_config, "eos_token_id": [27, 0],
    }  # fmt: skip
    record = Record.read(out)
    assert record is not None
    assert record.facts == {"adapter": {"stop_token_ids": [27, 0]}}
    assert exported.command is not None
    assert exported.command.endswith(f" --generation-config '{out}'")
    assert exported.command in (out / "SERVING.md").read_text()
    assert "stop_token_ids: [0]" in (out / "SERVING.md").read_text()


def test_without_the_base_it_says_what_requests_take(base: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    run = of_documents(run_with(adapter, base, tmp_path / "run"))
    export(run, tmp_path / "out", to="adapter", base="nobody/knows")
    text = (tmp_path / "out/SERVING.md").read_text()
    assert "<|endoftext|> as stop_token_ids" in text
    assert "--generation-config" not in text
    assert not (tmp_path / "out/generation_config.json").exists()
