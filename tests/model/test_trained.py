"""A run gives its answers with its adapter, in the precision it was trained in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from support.adapters import adapter_for, run_with, sharded_checkpoint
from support.tiny import LIBRARY_WARNINGS, recipe

from axtune.checkpoint import locate
from axtune.checkpoint.run_dir import claim, describe
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.errors import CheckpointError
from axtune.export.export import export
from axtune.export.four_bit import FourBitOptions
from axtune.model.adapter import add_adapter
from axtune.model.load import load_model
from axtune.model.trained import load_trained, stops_of, trained_checkpoint

pytestmark = LIBRARY_WARNINGS


def test_a_run_is_loaded_with_its_adapter(tmp_path: Path) -> None:
    job = recipe(tmp_path)
    found = locate.find(job.model)
    tokenizer = load_tokenizer(found)
    adapter = add_adapter(load_model(found, tokenizer, precision="fp32"), {"r": 4}, seed=0)
    with torch.no_grad():
        for parameter in adapter.model.parameters():
            if parameter.requires_grad:
                parameter += 0.05
    run_dir = claim(job)
    run_dir.begin(job, describe(job, found, {}))
    run_dir.write_adapter(adapter.save)
    ids = torch.arange(40, 60)[None]
    said: list[str] = []
    model, _ = load_trained(str(run_dir.path), said.append)
    torch.testing.assert_close(model(ids).logits, adapter.model.eval()(ids).logits)
    assert said == []
    manifest = json.loads((run_dir.path / "manifest.json").read_text())
    manifest["base"]["digests"]["config.json"] = "sha256:0"
    run_dir.write_manifest(manifest)
    load_trained(str(run_dir.path), said.append)
    assert ["have changed since" in line for line in said] == [True]


def test_a_run_that_learned_documents_stops_at_their_end_too(tmp_path: Path) -> None:
    for task, stops in (("sft", {27}), ("cpt", {27, 0})):
        job = recipe(tmp_path, output_dir=str(tmp_path / task), task=task)
        found = locate.find(job.model)
        tokenizer = load_tokenizer(found)
        adapter = add_adapter(load_model(found, tokenizer, precision="fp32"), {"r": 4}, seed=0)
        run_dir = claim(job)
        run_dir.begin(job, describe(job, found, {}))
        run_dir.write_adapter(adapter.save)
        model, _ = load_trained(str(run_dir.path), print)
        assert stops_of(model) == stops


def test_a_name_that_is_mistyped_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    for name in ("mine", "older", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"There is no .*runs/mien\.\nDid you mean .*mine"):
        trained_checkpoint(str(tmp_path / "runs" / "mien"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty has no folder\."):
        trained_checkpoint(str(tmp_path / "empty" / "mine"))
    with pytest.raises(CheckpointError, match="Known by name: skt/"):
        trained_checkpoint("mien")


def test_an_adapter_over_4_bit_is_asked_on_what_it_names(tmp_path: Path) -> None:
    base = sharded_checkpoint(tmp_path / "model")
    made = adapter_for(base, tmp_path / "made")
    run = run_with(made, base, tmp_path / "run")
    export(run, tmp_path / "served", to="vllm", four_bit=FourBitOptions())
    lone = Path(shutil.copytree(run / "adapter", tmp_path / "lone"))
    config = json.loads((lone / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "served")
    (lone / "adapter_config.json").write_text(json.dumps(config))
    (lone / "axtune-files.json").unlink(missing_ok=True)
    ids = torch.arange(40, 60)[None]
    alone, _ = load_trained(str(tmp_path / "served"), print)
    both, _ = load_trained(str(lone), print)
    assert not torch.allclose(alone(ids).logits, both(ids).logits)
