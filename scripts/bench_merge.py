#!/usr/bin/env python
"""Merging at full size: axtune beside PEFT's merge_and_unload and a plain copy, in one run.

Builds a random checkpoint of the exact shapes of A.X 4.0 Light (14.5 GB in three shards) and a
rank-16 adapter on all its linear layers, and takes each contender in a process of its own, from a
cold page cache. Needs about twice the checkpoint's size on the disk; everything is deleted again.

    python scripts/bench_merge.py                    # 14.5 GB
    python scripts/bench_merge.py --layers 4         # 3.3 GB, for a small disk
    python scripts/bench_merge.py --folder /mnt/big  # where to work
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from axtune.weights.output_tensor import Shards

HIDDEN, FFN, VOCABULARY, KEYS, LAYERS = 3584, 18_944, 102_400, 512, 28
SHARD_BYTES = 5_000_000_000  # as the published checkpoint is cut: three files

RANK, ALPHA = 16, 32

LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (FFN, HIDDEN),
    "mlp.up_proj": (FFN, HIDDEN),
    "mlp.down_proj": (HIDDEN, FFN),
}

AXTUNE = """
import sys
from axtune.weights.merge import merge
merge([sys.argv[2]], sys.argv[1], sys.argv[3])
"""

PEFT = """
import sys, torch
from transformers import AutoModelForCausalLM
from peft import PeftModel
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
PeftModel.from_pretrained(model, sys.argv[2]).merge_and_unload().save_pretrained(sys.argv[3])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=LAYERS, help="depth; 28 is the real one")
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    parser.add_argument("--without-peft", action="store_true", help="axtune and cp only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="axtune-bench-", dir=options.folder) as name:
        compare(Path(name), options.layers, with_peft=not options.without_peft)


def compare(work: Path, layers: int, *, with_peft: bool) -> None:
    """Build, take each contender's time, print the table."""
    base, adapter, out = work / "base", work / "adapter", work / "out"
    # In a process of its own: a child's peak memory begins at its parent's, so ours stays small.
    builder = multiprocessing.get_context("spawn").Process(target=build, args=(work, layers))
    builder.start()
    builder.join()
    size = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    print(f"{size / 1e9:.2f} GB in {len(list(base.glob('*.safetensors')))} shards, {layers} layers")
    python = [sys.executable, "-W", "ignore", "-c"]
    paths = [str(base), str(adapter), str(out)]
    contenders = {"cp -r": ["cp", "-r", str(base), str(out)], "axtune": [*python, AXTUNE, *paths]}
    if with_peft:
        contenders["PEFT"] = [*python, PEFT, *paths]
    print(f"{'':8}{'seconds':>9}{'on disk':>9}{'resident MB':>13}{'times cp':>10}")
    copying = 0.0
    for contender, command in contenders.items():
        seconds, flushed, resident = measure(command, base)
        copying = copying or seconds
        ratio = seconds / copying
        print(
            f"{contender:8}{seconds:9.1f}{flushed:9.1f}{resident:13,.0f}{ratio:10.2f}", flush=True
        )
        shutil.rmtree(out)


def measure(command: list[str], base: Path) -> tuple[float, float, float]:
    """Run a command from a cold cache.

    Returns:
        Seconds until it ended, seconds until all it wrote was on the disk, peak resident MB.
    """
    chill(base)
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    if status != 0:
        raise SystemExit(f"{command[0]} failed with status {status}")
    os.sync()
    return seconds, time.monotonic() - began, usage.ru_maxrss / 1024


def chill(folder: Path) -> None:
    """Drop a folder's files from the page cache."""
    os.sync()
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def build(work: Path, layers: int) -> None:
    """Base and adapter."""
    build_base(work / "base", work, layers)
    build_adapter(work / "adapter", layers)


def build_base(folder: Path, work: Path, layers: int) -> None:
    """A checkpoint of random numbers, from a pool on the disk, without holding it in memory."""
    import torch

    from axtune.checkpoint import locate
    from axtune.weights.stream_writer import write_checkpoint

    folder.mkdir()
    pool = work / "pool"
    torch.manual_seed(0)
    with pool.open("wb") as stream:
        for _ in range(-(-VOCABULARY * HIDDEN // (1 << 24)) + 1):
            block = torch.randn(1 << 24).mul_(0.02).bfloat16()
            stream.write(memoryview(block.view(torch.uint8).numpy()))
    write_checkpoint(folder, layout(pool, layers))
    pool.unlink()
    small = locate.find("tiny-ax-4.0", weights=False)
    for name in (*locate.TOKENIZER_FILES, "generation_config.json"):
        if (small.folder / name).is_file():
            shutil.copyfile(small.folder / name, folder / name)
    config = {
        **small.config,
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": layers,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_window_layers": layers,
        "vocab_size": VOCABULARY,
    }
    (folder / "config.json").write_text(json.dumps(config))


def layout(pool: Path, layers: int) -> Shards:
    """Names and shapes of A.X 4.0 Light, its numbers from somewhere in the pool."""
    import torch

    from axtune.weights.output_tensor import OutputTensor, resharded
    from axtune.weights.safetensors_file import TensorInfo

    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for module, shape in LINEAR.items():
            shapes[f"{prefix}.{module}.weight"] = shape
            if module[-6] in "qkv" and "self_attn" in module:
                shapes[f"{prefix}.{module}.bias"] = shape[:1]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}.{norm}.weight"] = (HIDDEN,)
    shapes["model.norm.weight"] = (HIDDEN,)
    shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    pieces = []
    for number, (name, shape) in enumerate(shapes.items()):
        room = pool.stat().st_size // 2 - math.prod(shape)
        offset = 2 * (number * 7_919_317 % room)
        source = TensorInfo(name, torch.bfloat16, shape, pool, offset)
        pieces.append(OutputTensor(name, torch.bfloat16, shape, source))
    return resharded(pieces, SHARD_BYTES)


def build_adapter(folder: Path, layers: int) -> None:
    """A rank-16 LoRA on every linear layer, as PEFT saves it, in float32."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    tensors = {}
    for layer in range(layers):
        for module, (rows, columns) in LINEAR.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, columns) / math.sqrt(columns)
            tensors[f"{name}.lora_B.weight"] = torch.randn(rows, RANK) * 0.01
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": [module.rpartition(".")[2] for module in LINEAR],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main()
