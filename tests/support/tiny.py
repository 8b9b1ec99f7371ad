"""Tiny checkpoints with random weights and a little data, made in process for the tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from axtune.checkpoint import locate
from axtune.checkpoint.locate import Checkpoint
from axtune.config.recipe import Recipe

# What the libraries deprecate in each other is theirs to mend; a run ignores the same ones.
LIBRARY_WARNINGS = pytest.mark.filterwarnings(
    *(f"ignore:::{name}" for name in ("transformers", "trl", "peft", "torch", "bitsandbytes"))
)

RECIPES = Path(__file__).resolve().parents[2] / "recipes"

# 4-bit layers that compute in float32, for the tests that train long: most CPUs emulate bf16.
IN_FLOAT32 = "quantization.bnb_4bit_compute_dtype=float32"

# The width of a row of the 4-bit quantiser is 64, so every linear layer has a multiple of it.
_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}


def checkpoint(folder: Path, layout: str = "4.0") -> Checkpoint:
    """A random checkpoint in the layout of A.X 4.0 Light (Qwen2) or 3.1 Light (Llama).

    Like the real ones: 16-bit weights, biases that are not zero, eos 0 in config.json.
    """
    return with_weights(locate.find(f"tiny-ax-{layout}", weights=False).folder, folder)


def with_weights(like: Path, folder: Path, **shape: int) -> Checkpoint:
    """A random checkpoint with the tokenizer and the config of another one, but for its size."""
    config = {**locate.read_json(like / "config.json"), **_SHAPE, **shape}
    config.pop("head_dim", None)
    config.pop("layer_types", None)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in (*locate.TOKENIZER_FILES, "generation_config.json"):
        if (like / name).is_file():
            shutil.copyfile(like / name, folder / name)
    return locate.find(str(folder))


def write_rows(file: Path, count: int, start: int = 0) -> Path:
    """Short chats with a rule to learn: the answer is the question's number, thrice."""
    with file.open("w", encoding="utf-8") as stream:
        for number in range(start, start + count):
            row = {
                "messages": [
                    {"role": "user", "content": f"비밀 {number}번은?"},
                    {"role": "assistant", "content": f"{number} {number} {number} 입니다."},
                ]
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return file


def recipe(folder: Path, **changes: Any) -> Recipe:
    """A small job on tiny-ax-4.0 in float32; `changes` are keys of the recipe.

    The training section is merged key by key.
    """
    if not (folder / "rows.jsonl").is_file():
        write_rows(folder / "rows.jsonl", 16)
    training = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "per_device_eval_batch_size": 2,
        "learning_rate": 5e-3,
        "max_steps": 4,
        "logging_steps": 1,
        **changes.pop("training", {}),
    }
    values = {
        "task": "sft",
        "model": "tiny-ax-4.0",
        "output_dir": str(folder / "run"),
        "precision": "fp32",
        "training": training,
        **changes,
        # Unpacked unless a test says so: most count samples and micro-batches.
        "data": {"packing": False, "train": str(folder / "rows.jsonl"), "max_length": 256}
        | changes.get("data", {}),
    }
    return Recipe.model_validate(values)
