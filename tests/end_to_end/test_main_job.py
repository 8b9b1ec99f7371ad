"""The main job as a user starts it, on the 603 real conversations, unchanged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.commands import ENVIRONMENT, forked
from support.tiny import RECIPES
from transformers import AutoConfig, AutoModelForCausalLM

pytestmark = pytest.mark.slow


def reduced(folder: Path, real: Path) -> Path:
    """A.X 4.0 Light at a 28th of its width and two layers, random weights, the real tokenizer."""
    shutil.copytree(real, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    files = {file: file.read_bytes() for file in folder.iterdir()}
    torch.manual_seed(0)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    model.to(torch.bfloat16).save_pretrained(folder)
    for file, content in files.items():  # what transformers rewrote
        file.write_bytes(content)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.filterwarnings("ignore:::transformers")
@pytest.mark.parametrize("which", ["embedded", "reduced"])
def test_603_conversations_train(
    which: str, shared: Path, real_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    model = "tiny-ax-4.0"
    if which == "reduced":
        model = str(reduced(tmp_path / "ax-4.0-reduced", real_checkpoint("4.0")))
    words = [
        f"model={model}",
        f"data.train={shared / 'goldens/serve_prompts.jsonl'}",
        "data.eval=null",
        f"output_dir={tmp_path / 'run'}",
        "training.max_steps=10",
        "training.learning_rate=1e-2",
        "training.warmup_steps=0",
        "training.gradient_accumulation_steps=4",
        "training.gradient_checkpointing=false",
    ]
    recipe = str(RECIPES / "sft_lora.yaml")
    if which == "reduced":
        done = forked("axtune.cli:main", ["train", recipe, *words], environment=ENVIRONMENT)
        assert done.status == 0, done.err[-2000:]
    else:
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
        started = subprocess.run(
            [*launch, recipe, *words],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert started.returncode == 0, started.stderr[-2000:]
    manifest = json.loads((tmp_path / "run/manifest.json").read_text(encoding="utf-8"))
    account = manifest["data"]["train"]
    assert account["rows_read"] == account["rows_used"] == account["samples"] == 603
    events = (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [event["loss"] for event in map(json.loads, events) if "loss" in event]
    assert len(losses) == 10
    assert max(losses[-3:]) < min(losses[:2]), losses
    adapter = tmp_path / "run/adapter"
    source = real_checkpoint("4.0")
    if which == "reduced":
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            assert (adapter / name).read_bytes() == (source / name).read_bytes()
