"""A recipe of two small stages, and what is left of it in the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from support.forked import Forked
from support.rows import ROOT, TEMPLATES

NAMES = ("cpt", "sft")
RECIPE = """\
model: tiny-ax-4.0
output_dir: {out}
precision: fp32
lora: {{r: 4, lora_alpha: 8}}
training: {{max_steps: 4, eval_strategy: steps, eval_steps: 2, gradient_accumulation_steps: 1}}
data: {{eval: 0.2, max_length: 512}}
stages:
  cpt:
    recipe: {root}/recipes/cpt_lora.yaml
    data: {{train: {documents}}}
  sft:
    recipe: {root}/recipes/sft_lora.yaml
    data: {{train: {rows}}}
after: [merge, export, verify]
evaluate: {{data: [{rows}, {documents}], limit: 4, max_new_tokens: 8}}
"""


def write(folder: Path, out: Path, *changes: tuple[str, str]) -> Path:
    """The recipe, with some of its text replaced."""
    text = RECIPE.format(
        out=out, root=ROOT, rows=TEMPLATES / "alpaca.jsonl", documents=TEMPLATES / "documents.jsonl"
    )
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = folder / f"{out.name}.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def begin(recipe: Path, *overrides: str) -> Forked:
    """The command of a user."""
    words = ["train", str(recipe), *overrides]
    return Forked("axtune.cli:main", words, output=recipe.with_suffix(".said"), cwd=ROOT)


def run(recipe: Path, *overrides: str) -> str:
    """What it prints; it has to end well."""
    recipe.with_suffix(".said").unlink(missing_ok=True)
    process = begin(recipe, *overrides)
    assert process.wait() == 0, process.said
    return process.said


def results(out: Path) -> dict[str, Any]:
    """The figures of each stage, without times."""
    found = {}
    for name in NAMES:
        found[name] = json.loads((out / name / "evaluation/result.json").read_text())
        for key in ("seconds", "created", "model", "cut"):  # the last two name the folder
            del found[name][key]
    return found


def adapters(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {name: load_file(out / name / "adapter/adapter_model.safetensors") for name in NAMES}


def equal(first: dict[str, dict[str, torch.Tensor]], second: dict[str, Any]) -> bool:
    return all(
        torch.equal(tensor, second[stage][name])
        for stage, tensors in first.items()
        for name, tensor in tensors.items()
    )
