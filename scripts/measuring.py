"""What the benchmarks share: the machine's name, children in processes of their own, memory."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"
CHECKPOINT = SHARED / "ax-light"  # the real tokenizer and configs
CONVERSATIONS = SHARED / "goldens/serve_prompts.jsonl"


def machine(packages: Iterable[str] = ("torch", "transformers", "trl", "peft")) -> str:
    """Device and versions, for the head of a table."""
    import torch

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    device = f"{os.cpu_count()} cores, no GPU"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return f"{device}; Python {platform.python_version()}, {versions}"


def child(script: str, words: Iterable[str], folder: Path) -> str:
    """Run a script again with other words, in a process of its own.

    Args:
        script: Its file.
        words: Its command line.
        folder: Where caches go.

    Returns:
        The last line that it prints.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, *words],
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    return done.stdout.strip().splitlines()[-1]


def build_base(base: Path, checkpoint: Path, layers: int) -> None:
    """A random checkpoint of A.X 4.0 Light's width, with its real tokenizer.

    Args:
        base: The folder to make.
        checkpoint: A folder with the tokenizer and ``config-ax-4.0-light.json``.
        layers: Its depth; 28 is the real one.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    base.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(checkpoint / name, base / name)
    for kind in ("config", "generation_config"):
        shutil.copyfile(checkpoint / f"{kind}-ax-4.0-light.json", base / f"{kind}.json")
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config |= {"num_hidden_layers": layers, "max_window_layers": layers}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base), dtype=torch.bfloat16)
    model.save_pretrained(base)
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")


def reset_memory() -> None:
    """Begin to look for the peak from here."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak becomes what it is now


def memory() -> int:
    """The peak since `reset_memory`, in bytes: resident; on a GPU, what torch allocated."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resident("VmHWM")


def resident(name: str) -> int:
    """A figure of this process's memory, in bytes, by Linux's name: VmRSS now, VmHWM highest."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
