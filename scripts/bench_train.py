#!/usr/bin/env python
"""SFT with LoRA: axtune beside TRL, same model, rows, precision and samples a step, in one run.

Builds a random checkpoint of the width of A.X 4.0 Light and trains a fresh rank-16 adapter in a
process of its own for each contender, on the same token ids and labels:

- ``TRL``: SFTTrainer as released, rows padded in micro-batches of 8.
- ``TRL, packed``: its best settings: packing (best-fit decreasing, padding-free), its chunked loss.
- ``TRL, packed, GPU's head``: without Triton, TRL's chunked loss projects every position onto the
  vocabulary, with it the labelled ones only. At a few layers that would flatter axtune.
- ``axtune``: as the recipes have it.

Rows: ``tools``, recorded tool-call conversations, and ``chat``, lengths with a long tail, half of
the tokens learned. Tokens a second are those of the rows, padding not among them, over the seconds
of all steps; memory is the peak of the resident set, on a GPU of what torch allocated.

    python scripts/bench_train.py                       # on 2 cores about 20 minutes
    python scripts/bench_train.py --first-step          # from the command to the first step
    python scripts/bench_train.py --layers 28 --bits 4 --lengths 2048 8192 16384 --cap 8 12 16 24
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from measuring import (
    CHECKPOINT,
    CONVERSATIONS,
    build_base,
    child,
    machine,
    memory,
    reset_memory,
)

CONTENDERS = ("TRL", "TRL, packed", "TRL, packed, GPU's head", "axtune")
PADDED = 8  # rows of TRL's default micro-batch
FOUR_BIT = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}
TRAINING = {
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "gradient_checkpointing": True,
    "num_train_epochs": 1,
    "logging_steps": 1,
}
NAMES = ("conversations", "checkpoint", "layers", "bits", "rows", "batch", "precision", "folder")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--conversations", type=Path, default=CONVERSATIONS)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--layers", type=int, default=1, help="depth; 28 is the real one")
    parser.add_argument("--bits", type=int, default=16, choices=(4, 16), help="of the base")
    parser.add_argument("--rows", type=int, default=16, help="of each set")
    parser.add_argument("--batch", type=int, default=8, help="rows that a step learns from")
    parser.add_argument("--precision", default="fp32", choices=("bf16", "fp32"))
    parser.add_argument("--lengths", type=int, nargs="*", default=[],
                        help="sets of rows of one length instead, in tokens")  # fmt: skip
    parser.add_argument("--cap", type=float, nargs="*", default=[0],
                        help="GB of a smaller card to play; 0: all of it")  # fmt: skip
    parser.add_argument("--only", nargs="*", default=CONTENDERS, help="some of the contenders")
    parser.add_argument("--first-step", action="store_true", help="that, on an embedded model")
    parser.add_argument("--child", nargs=3, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        building = options.child[0] == "build"
        print(json.dumps(build(options) if building else run(options, *options.child)))
        return
    with tempfile.TemporaryDirectory(prefix="axtune-bench-") as name:
        options.folder = Path(name)
        (first_step if options.first_step else compare)(options)


def compare(options: argparse.Namespace) -> None:
    """Build, take each contender's time, print a table for each set of rows and each cap."""
    words = [f"--{name}={getattr(options, name)}" for name in NAMES]
    print(machine())
    print(
        f"{options.layers} layers, {options.bits}-bit base, {options.precision}, checkpointing on"
    )
    lengths = ["--lengths", *map(str, options.lengths)] if options.lengths else []
    sets = json.loads(
        child(__file__, [*words, *lengths, "--child", "build", "-", "0"], options.folder)
    )
    for rows, about in sets.items():
        for cap in options.cap:
            print(f"{rows}: {about}" + (f"; within {cap:g} GB" if cap else ""))
            seconds = {}
            for name in options.only:
                line = child(__file__, [*words, "--child", name, rows, str(cap)], options.folder)
                result = json.loads(line)
                if "failed" in result:
                    print(f"  {name:26}{result['failed']}", flush=True)
                    continue
                seconds[name] = result["seconds"]
                print(
                    f"  {name:26}{result['tokens'] / result['seconds']:8.1f} tokens/s"
                    f"{result['memory'] / 1e6:10,.0f} MB   losses {result['losses']}",
                    flush=True,
                )
            for name in seconds.keys() - {"axtune"} if "axtune" in seconds else ():
                print(f"  axtune / {name}: {seconds[name] / seconds['axtune']:.2f}x")


def build(options: argparse.Namespace) -> dict[str, str]:
    """The checkpoint and the sets of token rows in the work folder; what to say of each set."""
    import numpy as np
    from datasets import Dataset

    from axtune.checkpoint.locate import find
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.config.recipe import Recipe
    from axtune.data.dataset import prepare, tokens_of
    from axtune.data.packing import arrange

    work = options.folder
    build_base(work / "base", options.checkpoint, options.layers)
    rng = np.random.default_rng(0)

    def made(length: int, learned: float) -> dict[str, list[int]]:
        ids = rng.integers(100, 100_000, length).tolist()
        start = length - int(length * learned)
        return {"input_ids": ids, "labels": [-100] * start + ids[start:]}

    sets: dict[str, Any] = {}
    if options.lengths:
        for length in options.lengths:
            rows = [made(length, 0.25) for _ in range(options.rows)]
            sets[f"{length} tokens"] = Dataset.from_list(rows)
    else:
        recipe = Recipe.model_validate({
            "task": "sft", "model": str(work / "base"), "output_dir": str(work / "unused"),
            "data": {"train": str(options.conversations), "max_length": 4096, "on_error": "skip"},
        })  # fmt: skip
        scratch = work / "scratch"
        scratch.mkdir()
        tokenizer = load_tokenizer(find(str(work / "base")))
        sets["tools"] = prepare(recipe, tokenizer, scratch, lambda fault: None).train
        sets["chat"] = Dataset.from_list([
            made(int(length), 0.5) for length in rng.lognormal(5.5, 0.9, 600).clip(32, 2048)
        ])  # fmt: skip
    about = {}
    for name, rows in sets.items():
        lengths = tokens_of(rows)
        packing = arrange(lengths, batch_size=1, accumulation=16, max_length=4096)
        chosen = rows.select(rng.permutation(len(rows))[: options.rows])
        chosen.save_to_disk(str(work / name))
        about[name] = (
            f"{len(chosen)} of {len(rows)} rows, {int(tokens_of(chosen).sum()):,} tokens; packed, "
            f"all of them fill {packing.filled:.2%} of their slots"
        )
    return about


def run(options: argparse.Namespace, contender: str, name: str, cap: str) -> dict[str, Any]:
    """Train one contender.

    Returns:
        ``seconds`` of all steps, ``tokens`` of the rows, ``memory`` at its peak in bytes,
        ``losses`` of the steps; or why it ``failed``.
    """
    import torch
    from datasets import load_from_disk

    from axtune.data.dataset import tokens_of

    rows = load_from_disk(str(options.folder / name))
    if float(cap):
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(float(cap) * 1e9 / whole)
    try:
        trainer = (axtune if contender == "axtune" else trl)(options, contender, rows)
        reset_memory()
        began = time.monotonic()
        trainer.train()
    except torch.OutOfMemoryError:
        return {"failed": "out of memory"}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "seconds": time.monotonic() - began,
        "tokens": int(tokens_of(rows).sum()),
        "memory": memory(),
        "losses": [round(loss, 3) for loss in losses[:4]],
    }


def axtune(options: argparse.Namespace, contender: str, rows: Any) -> Any:
    """axtune's trainer."""
    from axtune.checkpoint.locate import find
    from axtune.checkpoint.run_dir import claim
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.config.recipe import Recipe
    from axtune.data.dataset import Prepared
    from axtune.model.load import load_model
    from axtune.quiet import quiet_libraries
    from axtune.training.arguments import training_arguments
    from axtune.training.initial_adapter import start_adapter
    from axtune.training.progress import Report
    from axtune.training.trainer import RunContext, make_trainer

    base = find(str(options.folder / "base"))
    longest = max(map(len, rows["input_ids"]))
    run_dir = options.folder / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    recipe = Recipe.model_validate({
        "task": "sft", "model": str(base.folder), "output_dir": str(run_dir),
        "data": {"train": "rows", "max_length": max(longest, 2048)},
        "quantization": FOUR_BIT if options.bits == 4 else None,
        "training": {**TRAINING, "per_device_train_batch_size": 1,
                     "gradient_accumulation_steps": options.batch},
    })  # fmt: skip
    with quiet_libraries():
        tokenizer = load_tokenizer(base)
        args = training_arguments(recipe, options.precision)
        args.save_strategy = "no"
        report = Report(enabled=False)
        model = load_model(
            base, tokenizer, precision=options.precision, quantization=recipe.quantization
        )
        adapter = start_adapter(model, recipe, base, report)
        folder = claim(recipe)
        folder.begin(recipe, {})
        account: Any = None
        rows = rows.add_column("place", [[0, line] for line in range(1, len(rows) + 1)])
        data = Prepared(rows, None, account, None)
        return make_trainer(RunContext(adapter, args, tokenizer, data, folder, report, recipe))


def trl(options: argparse.Namespace, contender: str, rows: Any) -> Any:
    """TRL's trainer on the same tokens."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer
    from trl.trainer import utils

    if contender.endswith("GPU's head"):
        # Only which positions are projected; the kernels themselves look at another name.
        utils._use_triton = lambda device: True
    on_gpu = torch.cuda.is_available()
    folder = str(options.folder / "base")
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16 if options.precision == "bf16" else torch.float32,
        quantization_config=BitsAndBytesConfig(**FOUR_BIT) if options.bits == 4 else None,
        device_map={"": 0 if on_gpu else "cpu"},
    )  # fmt: skip
    lengths = [len(ids) for ids in rows["input_ids"]]
    longest = max(*lengths, 2048)
    if contender == "TRL":
        batch = min(PADDED, options.batch)
        own = {"per_device_train_batch_size": batch, "max_length": None,
               "gradient_accumulation_steps": options.batch // batch}  # fmt: skip
    else:
        packs = -(-sum(lengths) // longest)  # so that a step learns from as many rows
        own = {
            "per_device_train_batch_size": 1,
            "packing": True,
            "max_length": longest,
            "gradient_accumulation_steps": max(1, round(packs * options.batch / len(lengths))),
        }
    args = SFTConfig(
        output_dir=str(options.folder / "trl"), **TRAINING, **own, seed=42, data_seed=42,
        bf16=options.precision == "bf16", use_cpu=not on_gpu, report_to="none",
        save_strategy="no", disable_tqdm=True, dataloader_pin_memory=on_gpu,
    )  # fmt: skip
    return SFTTrainer(
        model=model, args=args, train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )  # fmt: skip


def first_step(options: argparse.Namespace) -> None:
    """Seconds from the command to the end of the first step, on an embedded model, three each."""
    from axtune.checkpoint.locate import find

    base = find("tiny-ax-4.0").folder
    data = options.folder / "data"
    data.mkdir()
    with (data / "train.jsonl").open("w", encoding="utf-8") as file:
        for number in range(64):
            turns = [
                {"role": "user", "content": f"주문 {number}번 어디쯤인가요?"},
                {"role": "assistant", "content": f"{number}번 주문은 내일 도착합니다."},
            ]
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    out = options.folder / "out"
    recipe = Path(__file__).parents[1] / "recipes/sft_lora.yaml"
    bin_folder = Path(sys.executable).parent
    commands = {
        "trl sft": [
            str(bin_folder / "trl"), "sft", "--model_name_or_path", str(base),
            "--dataset_name", str(data), "--use_peft", "--lora_target_modules", "all-linear",
            "--max_steps", "2", "--logging_steps", "1", "--report_to", "none",
            "--use_cpu", "--bf16", "false", "--save_strategy", "no", "--disable_tqdm", "true",
            "--output_dir", str(out),
        ],
        "axtune train": [
            str(bin_folder / "axtune"), "train", str(recipe), "model=tiny-ax-4.0",
            f"data.train={data / 'train.jsonl'}", "data.eval=null", "training.max_steps=2",
            f"output_dir={out}",
        ],
    }  # fmt: skip
    print(machine())
    for name, command in commands.items():
        found = []
        for _ in range(3):
            shutil.rmtree(out, ignore_errors=True)
            drop_caches()
            found.append(until_first_loss(command, out / "metrics.jsonl"))
        print(f"{name:14}{min(found):7.1f} s to the first step (of {len(found)}: "
              f"{', '.join(f'{value:.1f}' for value in found)})", flush=True)  # fmt: skip


def until_first_loss(command: list[str], metrics: Path) -> float:
    """Seconds until a command reports its first loss, on its output or in its metrics file."""
    began = time.monotonic()
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONUNBUFFERED": "1",
    }
    with tempfile.TemporaryFile("w+") as output:
        running = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # trl starts further processes
        )
        try:
            while True:
                output.seek(0)
                text = output.read()
                if "'loss'" in text or (metrics.is_file() and metrics.stat().st_size):
                    return time.monotonic() - began
                if running.poll() is not None:
                    raise SystemExit(f"{' '.join(command)} reported no loss:\n{text[-3000:]}")
                time.sleep(0.02)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def drop_caches() -> None:
    """Forget what is in the page cache, where this user may: a cold start."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        print("The page cache stays warm: emptying it takes root.")


if __name__ == "__main__":
    main()
