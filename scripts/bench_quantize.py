#!/usr/bin/env python
"""Quantising once: `axtune quantize`, and loading its folder beside quantising at every start.

Builds a random checkpoint of the width of A.X 4.0 Light and of a few layers, as bench_merge.py
does, and takes each step in a process of its own, from a cold page cache. Loading is what a QLoRA
run does at its start, `axtune.model.load.load_model` with the settings of recipes/sft_qlora.yaml in
bf16, until every weight has been read; imports are not counted. Everything is deleted again.

    python scripts/bench_quantize.py                    # 4 layers, 3.3 GB
    python scripts/bench_quantize.py --layers 28        # the real depth, 14.5 GB
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_merge import build_base, chill, measure

QUANTIZE = """
import sys
from axtune.weights.quantized_base import quantize
quantize(sys.argv[1], sys.argv[2])
"""

LOAD = """
import resource, sys, time
import bitsandbytes, torch
from axtune.checkpoint.locate import find
from axtune.model.load import load_model
from axtune.config.loader import load
from axtune.quiet import quiet_libraries
from axtune.checkpoint.tokenizer import load_tokenizer
found = find(sys.argv[1])
section = load(sys.argv[2]).quantization if sys.argv[2] else None
tokenizer = load_tokenizer(found)
with quiet_libraries():
    began = time.monotonic()
    model = load_model(found, tokenizer, precision="bf16", quantization=section)
    # A folder's weights are mapped; their first use reads them, and that is part of loading them.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.view(-1).view(torch.uint8)[::4096].sum()
    print(time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "sft_qlora.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=4, help="depth; 28 is the real one")
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="axtune-bench-", dir=options.folder) as name:
        compare(Path(name), options.layers)


def compare(work: Path, layers: int) -> None:
    """Build, take each step's time, print the table."""
    names = ("torch", "transformers", "bitsandbytes")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"{os.cpu_count()} cores, {device()}; Python {platform.python_version()}, {versions}")
    base, out = work / "base", work / "nf4"
    # In a process of its own: a child's peak memory begins at its parent's, so ours stays small.
    context = multiprocessing.get_context("spawn")
    builder = context.Process(target=build_base, args=(base, work, layers))
    builder.start()
    builder.join()
    print(f"{layers} layers, {size(base) / 1e9:.2f} GB")

    python = [sys.executable, "-W", "ignore", "-c"]
    seconds, flushed, resident = measure([*python, QUANTIZE, str(base), str(out)], base)
    print(f"{'':36}{'seconds':>9}{'on disk':>9}{'resident MB':>13}{'GB':>8}")
    print(f"{'axtune quantize':36}{seconds:9.1f}{flushed:9.1f}{resident:13,.0f}"
          f"{size(out) / 1e9:8.2f}", flush=True)  # fmt: skip
    times = []
    for title, folder, recipe in (
        ("load, quantising", base, str(RECIPE)),
        ("load the quantised folder", out, ""),
    ):
        chill(folder)
        done = subprocess.run(
            [*python, LOAD, str(folder), recipe], stdout=subprocess.PIPE, text=True, check=True
        )
        took, peak = map(float, done.stdout.split())
        times.append(took)
        print(f"{title:36}{took:9.1f}{'':9}{peak:13,.0f}", flush=True)
    print(f"the folder loads {times[0] / times[1]:.1f} times as fast")


def size(folder: Path) -> int:
    """The size of a checkpoint's weights in bytes."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def device() -> str:
    """The GPU's name, asked for in a process of its own: torch would count as ours."""
    code = "import torch; print(torch.cuda.is_available() and torch.cuda.get_device_name() or '')"
    name = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True).stdout
    return name.strip() or "no GPU"


if __name__ == "__main__":
    main()
