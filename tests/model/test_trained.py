"""A run gives its answers with its adapter, in the precision it was trained in."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from support.tiny import LIBRARY_WARNINGS, recipe

from axtune.checkpoint import locate
from axtune.checkpoint.run_dir import claim, describe
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.model.adapter import add_adapter
from axtune.model.load import load_model
from axtune.model.trained import load_trained, stops_of

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
