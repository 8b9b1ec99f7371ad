#!/usr/bin/env python
"""The day a card is there: what this project knows of cards by arithmetic alone, measured.

One command, in pieces, the cheapest and most telling first, each in a process of its own. A piece's
figures are written as soon as they are known (``gpu_day.json`` in ``--out``, and ``gpu_day.md`` for
docs/figures.md); the same command goes on where it stopped, and with ``--minutes 8`` it begins no
piece after eight minutes. Nothing is downloaded: the models have random weights, made on the card,
in the shapes of A.X 4.0 Light and A.X 3.1 Light at their true depth. What is not installed is left
out, and the table says why.

    python scripts/gpu_day.py --work build/gpu-day            # 25 minutes in all on one card
    python scripts/gpu_day.py --work build/gpu-day --minutes 8
    python scripts/gpu_day.py --work build/gpu-day --only card nf4
    python scripts/gpu_day.py --dry                           # the same code, tiny, on a CPU
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_plan import FOUR_BIT, Setting, trained, write_rows
from measuring import machine

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip
LENGTHS = {"4.0": (2048, 8192, 16384), "3.1": (8192, 32768)}
OFFLOAD = ["activations", "embeddings"]
CAPS = (8, 12, 16, 24)

Figures = dict[str, Any]


class Absent(Exception):
    """A piece cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Day:
    """Where a piece works.

    Attributes:
        work: The folder of checkpoints and runs.
        dry: Whether everything is tiny, and a CPU will do.
    """

    work: Path
    dry: bool

    def base(self, layout: str, *, four_bit: bool = False) -> Any:
        """A checkpoint that the piece ``base-LAYOUT`` has made."""
        from axtune.checkpoint import locate

        folder = self.work / f"base-{layout}{'-nf4' if four_bit else ''}"
        if not folder.is_dir():
            raise Absent(f"the piece base-{layout} has not been made")
        return locate.find(str(folder))

    def rows(self, layout: str, tokens: int, *, task: str = "sft", answer: int = 64) -> Path:
        """Samples of one length."""
        from axtune.checkpoint.tokenizer import load_tokenizer

        file = self.work / f"{task}-{tokens}.jsonl"
        setting = Setting(layout, task=task, lengths=(tokens,), answer=answer)
        write_rows(setting, load_tokenizer(self.base(layout)), file)
        return file


# --- pieces ---------------------------------------------------------------------------------------


def card(day: Day) -> Figures:
    """What the driver says of the card, and the plan's assumption of what a run can fill."""
    import torch

    from axtune.plan.gpus import usable

    if not torch.cuda.is_available():
        return {"card": "none", "torch": torch.__version__}
    free, total = torch.cuda.mem_get_info()
    found: Figures = {
        "card": torch.cuda.get_device_name(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "GB, by the driver": total / 1e9,
        "GB free beside the context": free / 1e9,
        "GB usable, by the plan": usable(total) / 1e9,
        "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
        "CUDA": torch.version.cuda,
    }
    side = 8192
    a = torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
    a @ a
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(10):
        a @ a
    torch.cuda.synchronize()
    found["TFLOP/s in bf16"] = 10 * 2 * side**3 / (time.perf_counter() - began) / 1e12
    return found


def base(day: Day, layout: str) -> Figures:
    """A random checkpoint at true depth, made on the card, and its folder in 4 bit."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    from axtune.checkpoint import locate
    from axtune.plan.serving import LIGHTS
    from axtune.weights.quantized_base import quantize

    like = locate.find(f"tiny-ax-{layout}", weights=False)
    config = {**like.config, **LIGHTS[f"skt/A.X-{layout}-Light"], **(TINY if day.dry else {})}
    config["vocab_size"] = like.config["vocab_size"] if day.dry else config["vocab_size"]
    if "max_window_layers" in config:
        config["max_window_layers"] = config["num_hidden_layers"]
    config.pop("layer_types", None)
    folder = day.work / f"base-{layout}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in (*locate.TOKENIZER_FILES, "generation_config.json"):
        if (like.folder / name).is_file():
            shutil.copyfile(like.folder / name, folder / name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    began = time.perf_counter()
    shards: dict[str, list[str]] = {}
    tensors: dict[str, torch.Tensor] = {}

    def flush() -> None:
        if tensors:
            name = f"model-{len(shards) + 1:05d}.safetensors"
            save_file(tensors, folder / name, metadata={"format": "pt"})
            shards[name] = list(tensors)
            tensors.clear()

    for name, like_it in model.state_dict().items():
        made = torch.empty(like_it.shape, device=device).normal_(0, 0.02, generator=generator)
        tensors[name] = (made + name.endswith("norm.weight")).bfloat16().cpu()
        if sum(t.nbytes for t in tensors.values()) > 4e9:
            flush()
    flush()
    index = {name: shard for shard, names in shards.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index}), encoding="utf-8"
    )
    made_in = time.perf_counter() - began
    packed = day.work / f"base-{layout}-nf4"
    shutil.rmtree(packed, ignore_errors=True)
    began = time.perf_counter()
    quantize(str(folder), str(packed), precision="bf16")
    return {
        "GB": sum(file.stat().st_size for file in folder.iterdir()) / 1e9,
        "seconds to make": made_in,
        "GB in 4 bit": sum(file.stat().st_size for file in packed.iterdir()) / 1e9,
        "seconds to quantise": time.perf_counter() - began,
    }


def nf4(day: Day) -> Figures:
    """Whether `axtune quantize` wrote the bits that bitsandbytes makes on the card."""
    import bitsandbytes
    import torch
    from safetensors import safe_open

    whole, packed = day.base("4.0"), day.base("4.0", four_bit=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    same = different = 0
    stored: dict[str, torch.Tensor] = {}
    for file in packed.folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as part:
            stored |= {n: part.get_tensor(n) for n in part.keys() if "layers.0." in n}  # noqa: SIM118
    for file in whole.folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as part:
            for name in part.keys():  # noqa: SIM118
                if "layers.0." not in name or stored.get(name) is None:
                    continue
                if stored[name].dtype != torch.uint8:
                    continue
                weight = part.get_tensor(name).to(device)
                bits, _ = bitsandbytes.functional.quantize_4bit(
                    weight, compress_statistics=True, quant_type="nf4"
                )
                equal = torch.equal(bits.cpu().flatten(), stored[name].flatten())
                same, different = same + equal, different + (not equal)
    return {"matrices of equal bits": same, "of other bits": different}


def recipe(day: Day, tokens: int, **changes: Any) -> dict[str, Any]:
    """A QLoRA recipe on one sample a step."""
    import torch

    training = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": True,
        "max_steps": 3,
        "save_strategy": "no",
        **changes.pop("training", {}),
    }
    return {
        "task": "sft",
        "precision": "auto" if torch.cuda.is_available() else "bf16",
        "quantization": FOUR_BIT,
        "data": {"max_length": 2 * tokens, "packing": False},
        "training": training,
        **changes,
    }


def step(day: Day, layout: str, tokens: int, *, cap: float = 0, **changes: Any) -> Figures:
    """Memory and time of a QLoRA step beside the plan.

    Args:
        day: Where.
        layout: 4.0 or 3.1.
        tokens: Of the sample.
        cap: Bytes that torch may take; 0 for all.
        changes: Of the recipe.
    """
    import torch

    if cap:
        if not torch.cuda.is_available():
            raise Absent("there is no card whose memory could be capped")
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap / whole))
    tokens = max(128, tokens // 64) if day.dry else tokens
    rows = day.rows(layout, tokens)
    out = day.work / "run"
    shutil.rmtree(out, ignore_errors=True)
    values = recipe(day, tokens, **changes)
    try:
        done = trained(values, day.base(layout, four_bit=True), rows, out)
    except torch.OutOfMemoryError:
        return {"out of memory": True}
    seconds = min(done["seconds"])
    return {
        "GB at the peak": done["peak"] / 1e9,
        "GB by the plan": done["plan"].peak / 1e9,
        "seconds a step": seconds,
        "tokens a second": tokens / seconds,
        "losses": done["losses"],
    }


def plain_step(day: Day, layout: str, tokens: int) -> Figures:
    """The same without tiles."""
    from axtune.model import tiles
    from axtune.plan import memory

    install, size = tiles.install, memory.TILE
    tiles.install, memory.TILE = (lambda model: None), 1 << 40
    try:
        return step(day, layout, tokens)
    finally:
        tiles.install, memory.TILE = install, size


def capped(day: Day, layout: str, tokens: int, gigabytes: int) -> Figures:
    """The overrides that the plan names for a card, on as much memory as that card has."""
    from axtune.checkpoint import locate
    from axtune.config.loader import changed, load
    from axtune.plan.estimate import from_length
    from axtune.plan.gpus import find_card
    from axtune.plan.memory import GPU
    from axtune.plan.search import Search

    folder = str(day.base(layout).folder)
    words = [f"model={folder}", f"data.max_length={tokens}", "data.packing=false"]
    job = changed(load(ROOT / "recipes/sft_qlora.yaml"), words)
    known = from_length(job, locate.find(folder, weights=False), tokens)
    usable = find_card(f"{gigabytes}GB").usable
    edits = Search(job, known, GPU).fit(usable)
    if edits is None or edits.left_out:
        return {"overrides": "none that leave every sample in"}
    given = changed(job, edits.words)
    kept = {key: given.training[key] for key in ("optim",) if key in given.training}
    found = step(day, layout, tokens, cap=usable, offload=given.offload, training=kept)
    return {"overrides": " ".join(edits.words) or "none needed", **found}


def attention(day: Day, kernel: str) -> Figures:
    """Packed samples with one of the attention kernels."""
    import torch

    if kernel != "sdpa" and not torch.cuda.is_available():
        raise Absent(f"{kernel} needs a card")
    if kernel == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise Absent("the package flash-attn is not installed")
    data = {"max_length": 8192, "packing": True}
    return step(day, "4.0", 2048, attention=kernel, data=data)


def optimiser(day: Day, name: str, precision: str) -> Figures:
    """Whether an optimiser, or fp16 with its scaled losses, learns."""
    import torch

    if not torch.cuda.is_available() and (precision == "fp16" or name.startswith("paged")):
        raise Absent("it needs a card")
    changes: dict[str, Any] = {"training": {"optim": name, "max_steps": 6, "learning_rate": 1e-3}}
    if precision == "fp16":
        changes |= {"precision": "fp16", "quantization": FOUR_BIT | {
            "bnb_4bit_compute_dtype": "float16"}}  # fmt: skip
    found = step(day, "4.0", 2048, **changes)
    finite = all(map(math.isfinite, found.get("losses", [math.nan])))
    return {**found, "finite": finite}


def beside_trl(day: Day, contender: str, length: int) -> Figures:
    """SFT of rows of one length beside TRL's best on the same card, both over the 16-bit base."""
    import bench_train
    import numpy as np
    from datasets import Dataset

    length = length // 64 if day.dry else length
    folder = day.work / "beside-trl"
    folder.mkdir(exist_ok=True)
    link = folder / "base"
    if not link.is_symlink():
        link.symlink_to(day.base("4.0").folder.absolute())
    rng = np.random.default_rng(0)
    most = day.base("4.0").config["vocab_size"] - 100
    rows = []
    for _ in range(16):
        ids = rng.integers(50, most, length).tolist()
        rows.append({"input_ids": ids, "labels": [-100] * (length // 2) + ids[length // 2 :]})
    Dataset.from_list(rows).save_to_disk(str(folder / "rows"))
    options = argparse.Namespace(
        folder=folder, bits=4, batch=8, precision="fp32" if day.dry else "bf16"
    )
    found = bench_train.run(options, contender, "rows", "0")
    if "failed" in found:
        return {"out of memory": True}
    return {
        "tokens a second": found["tokens"] / found["seconds"],
        "GB at the peak": found["memory"] / 1e9,
        "losses": found["losses"],
    }


def preference(day: Day) -> Figures:
    """Pairs a second of DPO with a shared prefix."""
    tokens, answer = (64, 16) if day.dry else (2048, 256)
    rows = day.rows("4.0", tokens, task="dpo", answer=answer)
    out = day.work / "run"
    shutil.rmtree(out, ignore_errors=True)
    values = recipe(day, tokens, task="dpo")
    values["data"] = {"max_length": 4 * tokens}
    done = trained(values, day.base("4.0", four_bit=True), rows, out)
    return {
        "pairs a second": 1 / min(done["seconds"]),
        "GB at the peak": done["peak"] / 1e9,
        "GB by the plan": done["plan"].peak / 1e9,
    }


def command(day: Day, *words: object) -> float:
    """Run a command of axtune's; the seconds that it took."""
    program = str(Path(sys.executable).parent / "axtune")
    began = time.perf_counter()
    done = subprocess.run(
        [program, *map(str, words)], capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"axtune {words[0]}: {(done.stdout + done.stderr)[-1500:]}")
    return time.perf_counter() - began


def merged(day: Day) -> Figures:
    """A QLoRA run by the user's own commands, merged into its 16-bit original."""
    tokens = 128 if day.dry else 2048
    run = day.work / "qlora-run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(day.work / "merged", ignore_errors=True)
    rows = day.rows("4.0", tokens)
    training = command(
        day, "train", ROOT / "recipes/sft_qlora.yaml", f"model={day.base('4.0').folder}",
        f"data.train={rows}", "data.eval=null", f"output_dir={run}", "training.max_steps=2",
        f"data.max_length={2 * tokens}",
    )  # fmt: skip
    merging = command(day, "merge", run, "--out", day.work / "merged")
    return {"seconds of train": training, "seconds of merge": merging}


def served(day: Day, bits: int) -> Figures:
    """An export of that run, loaded and asked by vLLM."""
    if day.dry or importlib.util.find_spec("vllm") is None:
        raise Absent("the package vllm is not installed beside axtune")
    run, out = day.work / "qlora-run", day.work / f"vllm-{bits}"
    if not run.is_dir():
        raise Absent("the piece merge has not been made")
    shutil.rmtree(out, ignore_errors=True)
    options = ("--bits", 4, "--fast") if bits == 4 else ()
    exporting = command(day, "export", run, "--to", "vllm", *options, "--out", out)
    from vllm import LLM, SamplingParams

    began = time.perf_counter()
    engine = LLM(str(out), max_model_len=4096)
    loading = time.perf_counter() - began
    began = time.perf_counter()
    answers = engine.generate(["안녕하세요"] * 32, SamplingParams(max_tokens=128, ignore_eos=True))
    tokens = sum(len(answer.outputs[0].token_ids) for answer in answers)
    return {
        "seconds to export": exporting,
        "seconds to load": loading,
        "tokens a second, 32 at once": tokens / (time.perf_counter() - began),
    }


# Cheapest and most telling first; a base before what needs it.
PIECES: dict[str, Callable[[Day], Figures]] = {
    "card": card,
    "base-4.0": lambda day: base(day, "4.0"),
    "nf4": nf4,
    **{
        f"qlora-4.0-{tokens}": lambda day, tokens=tokens: step(day, "4.0", tokens)
        for tokens in LENGTHS["4.0"]
    },
    **{
        f"capped-{size}GB-4.0-16384": lambda day, size=size: capped(day, "4.0", 16384, size)
        for size in CAPS
    },
    **{
        f"plain-4.0-{tokens}": lambda day, tokens=tokens: plain_step(day, "4.0", tokens)
        for tokens in LENGTHS["4.0"]
    },
    "offloaded-4.0-16384": lambda day: step(day, "4.0", 16384, offload=OFFLOAD),
    "TRL-2048": lambda day: beside_trl(day, "TRL, packed", 2048),
    "axtune-2048": lambda day: beside_trl(day, "axtune", 2048),
    "dpo": preference,
    **{
        f"attention-{kernel}": lambda day, kernel=kernel: attention(day, kernel)
        for kernel in ("sdpa", "flex_attention", "flash_attention_2")
    },
    "optim-paged_adamw_8bit": lambda day: optimiser(day, "paged_adamw_8bit", "auto"),
    "fp16": lambda day: optimiser(day, "adamw_torch_fused", "fp16"),
    "merge": merged,
    "vllm-bf16": lambda day: served(day, 16),
    "vllm-4bit": lambda day: served(day, 4),
    "base-3.1": lambda day: base(day, "3.1"),
    **{
        f"qlora-3.1-{tokens}": lambda day, tokens=tokens: step(day, "3.1", tokens)
        for tokens in LENGTHS["3.1"]
    },
    "capped-12GB-3.1-32768": lambda day: capped(day, "3.1", 32768, 12),
}
LONGEST = 8 * 60  # seconds of a piece


# --- the day --------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=None, help="checkpoints and runs; 40 GB")
    parser.add_argument("--out", type=Path, default=None, help="the figures; default: --work")
    parser.add_argument("--minutes", type=float, default=25, help="no piece begins after as many")
    parser.add_argument("--only", nargs="*", default=list(PIECES), metavar="PIECE")
    parser.add_argument("--again", action="store_true", help="also pieces that have their figures")
    parser.add_argument("--dry", action="store_true", help="tiny, in one process, without a card")
    parser.add_argument("--piece", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [name for name in options.only if name not in PIECES]:
        parser.error(f"there is no piece {unknown[0]}; there are: {', '.join(PIECES)}")
    if options.piece:
        print(json.dumps(figures(Day(options.work, options.dry), options.piece)))
        return
    with tempfile.TemporaryDirectory(prefix="axtune-gpu-day-") as name:
        options.work = (options.work or Path(name)).absolute()
        options.out = (options.out or options.work).absolute()
        for folder in (options.work, options.out):
            folder.mkdir(parents=True, exist_ok=True)
        spend(options)


def spend(options: argparse.Namespace) -> None:
    """Make the pieces that have no figures yet, in their order, and write each one's at once."""
    file = options.out / "gpu_day.json"
    found: dict[str, Figures] = {}
    if file.is_file() and not options.again:
        found = json.loads(file.read_text(encoding="utf-8"))["pieces"]
    began = time.monotonic()
    for name in options.only:
        if name in found and "failed" not in found[name]:
            continue
        if time.monotonic() - began > 60 * options.minutes:
            print(f"{options.minutes:g} minutes are over; the same command goes on with {name}.")
            break
        started = time.monotonic()
        found[name] = alone(options, name)
        found[name]["took"] = round(time.monotonic() - started, 1)
        print(f"{name}: {in_words(found[name])}", flush=True)
        result = {"machine": machine(("torch", "transformers", "trl", "peft", "bitsandbytes")),
                  "dry": options.dry, "pieces": found}  # fmt: skip
        replace(file, json.dumps(result, indent=1))
        replace(options.out / "gpu_day.md", table(result))
    if options.dry and (failed := [name for name in found if "failed" in found[name]]):
        raise SystemExit(f"failed: {', '.join(failed)}")


def replace(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    new = file.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)


def alone(options: argparse.Namespace, name: str) -> Figures:
    """One piece's figures, from a process of its own; a dry day has one process for all."""
    if options.dry:
        return figures(Day(options.work, dry=True), name)
    words = [sys.executable, "-W", "ignore", __file__, "--piece", name, "--work", options.work]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
    try:
        done = subprocess.run(
            list(map(str, words)), env=environment, capture_output=True, text=True, check=False,
            timeout=LONGEST,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"not ended after {LONGEST // 60} minutes"}
    with suppress(ValueError, IndexError):
        figures_of: Figures = json.loads(done.stdout.strip().splitlines()[-1])
        return figures_of
    return {"failed": (done.stderr or done.stdout)[-2000:] or f"status {done.returncode}"}


def figures(day: Day, name: str) -> Figures:
    """A piece's figures, or why there are none."""
    try:
        return PIECES[name](day)
    except Absent as reason:
        return {"left out": f"{reason}."}
    except Exception as error:  # what a library raises on a card is what the day is there to find
        return {"failed": f"{type(error).__name__}: {error}"[:2000]}


def in_words(piece: Figures) -> str:
    """A piece's figures in a line."""
    shown = {name: value for name, value in piece.items() if name != "losses"}
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in shown.items()
    ).replace("\n", " ")


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [result["machine"], "", "| piece | figures |", "| --- | --- |"]
    lines += [f"| {name} | {in_words(piece)} |" for name, piece in result["pieces"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
