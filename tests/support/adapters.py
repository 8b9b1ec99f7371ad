"""Sharded checkpoints, random adapters and run folders, for the tests of merge and export."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from axtune.checkpoint import locate
from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.run_dir import RunDir, describe
from axtune.weights.output_tensor import OutputTensor, resharded
from axtune.weights.safetensors_file import read_checkpoint
from axtune.weights.stream_writer import write_checkpoint
from support.tiny import checkpoint, recipe

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def sharded_checkpoint(folder: Path, layout: str = "4.0") -> Checkpoint:
    """A random checkpoint in bfloat16, in three shards."""
    found = checkpoint(folder, layout)
    single = found.folder / "model.safetensors"
    tensors = read_checkpoint(found.folder)[single.name]
    pieces = [OutputTensor(t.name, t.dtype, t.shape, t) for t in tensors]
    write_checkpoint(found.folder, resharded(pieces, 300_000))
    single.unlink()
    return locate.find(str(found.folder))


def adapter_for(base: Checkpoint, folder: Path, seed: int = 1, **options: Any) -> Path:
    """An adapter whose every number is random, saved by PEFT; it changes the base's logits.

    The numbers are multiples of 1/1024, so that float32 holds every product of the two LoRA
    matrices exactly: the sum is the same in whatever order a machine's matrix kernels add.
    """
    config = {"r": 4, "lora_alpha": 8, "target_modules": PROJECTIONS, **options}
    model = in_float32(base.folder)
    before = logits(model)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                magnitude = name.endswith("magnitude_vector.default.weight")
                noise = torch.randn_like(parameter) * (0.1 if magnitude else 0.05)
                parameter.add_(noise)
                if not magnitude:
                    parameter.mul_(1024).round_().div_(1024)
    assert (logits(model) - before).abs().max() > 1e-2
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def in_float32(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[5, 2000, 3, 3071, 41, 9]])).logits


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for file in folder.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


def run_with(
    adapter: Path, base: Checkpoint, folder: Path, quantization: dict[str, Any] | None = None
) -> Path:
    """A run folder as training leaves it, around an adapter."""
    job = recipe(folder.parent, model=str(base.folder), output_dir=str(folder), precision="bf16",
                 quantization=quantization)  # fmt: skip
    RunDir(folder, None).begin(job, describe(job, base, {"precision": "bf16"}))
    shutil.copytree(adapter, folder / "adapter")
    return folder
