#!/usr/bin/env python
"""DPO on tool calls: axtune beside TRL's DPOTrainer, same rows, precision, batch and checkpointing.

Builds a random checkpoint of the width of A.X 4.0 Light and of a few layers, makes preference
pairs of recorded conversations (scripts/make_pairs.py), and trains a fresh rank-16 adapter in a
process of its own for each contender:

- ``TRL``: DPOTrainer as released, which runs the reference in every step.
- ``TRL, head as on a GPU``: without Triton, TRL projects every position onto the vocabulary, with
  it only the answers'. At a few layers that would flatter axtune, so this is the fairer neighbour.
- ``TRL, precomputed``: the same with precompute_ref_log_probs.
- ``axtune``: shared prefix; reference log-probabilities computed once, from an empty cache.

Pairs a second are pairs seen over all seconds, the reference's included; memory is the peak of the
resident set from the first step on, on a GPU the peak of what torch allocated.

    python scripts/bench_dpo.py                                   # about half an hour on 2 cores
    python scripts/bench_dpo.py --layers 8 --pairs 64 --batch 4 --precision bf16   # on a GPU
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
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

HERE = Path(__file__).resolve().parent
NAMES = (
    "conversations", "checkpoint", "layers", "pairs", "batch", "epochs", "precision", "folder"
)  # fmt: skip
CONTENDERS = ("TRL", "TRL, head as on a GPU", "TRL, precomputed", "axtune")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--conversations", type=Path, default=CONVERSATIONS)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=CHECKPOINT,
        help="a folder with the tokenizer and config-ax-4.0-light.json",
    )
    parser.add_argument("--layers", type=int, default=1, help="depth; 28 is the real one")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=2, help="pairs a step")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", default="fp32", choices=("bf16", "fp32"))
    parser.add_argument("--only", nargs="*", default=CONTENDERS, help="some of the contenders")
    parser.add_argument("--contender", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender == "build":
        build(options)
    elif options.contender:
        print(json.dumps(run(options)))
    else:
        with tempfile.TemporaryDirectory(prefix="axtune-bench-") as name:
            options.folder = Path(name)
            compare(options)


def compare(options: argparse.Namespace) -> None:
    """Build, take each contender's time in a process of its own, print the table."""
    print(machine())
    print(
        f"{options.layers} layers, {options.pairs} pairs, {options.batch} a step, "
        f"{options.precision}, checkpointing on"
    )
    words = [f"--{name}={getattr(options, name)}" for name in NAMES]

    def alone(contender: str) -> str:
        return child(__file__, [*words, f"--contender={contender}"], options.folder)

    print(alone("build"))
    results = {}
    for name in options.only:
        results[name] = json.loads(alone(name))
        seconds = results[name]["seconds"]
        rates = [options.pairs * n / seconds[n - 1] for n in (1, options.epochs)]
        print(
            f"{name:24}{rates[0]:8.3f} pairs/s at 1 epoch{rates[1]:8.3f} at {options.epochs}"
            f"{results[name]['memory'] / 1e6:10,.0f} MB   losses {results[name]['losses']}",
            flush=True,
        )
    if "axtune" in results:
        ours = results["axtune"]
        for name in results.keys() - {"axtune"}:
            theirs = results[name]
            ratios = [
                theirs["seconds"][n - 1] / ours["seconds"][n - 1] for n in (1, options.epochs)
            ]
            memory = ours["memory"] / theirs["memory"]
            print(f"axtune / {name}: {ratios[0]:.2f}x, {ratios[1]:.2f}x; memory {memory:.2f}x")


def build(options: argparse.Namespace) -> None:
    """The checkpoint ``base`` and the tokenized pairs ``rows`` in the work folder."""
    import numpy as np

    from axtune.checkpoint.locate import find
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.config.recipe import Recipe
    from axtune.data.dataset import prepare

    work = options.folder
    base = work / "base"
    build_base(base, options.checkpoint, options.layers)

    pairs = work / "pairs.jsonl"
    command = [sys.executable, str(HERE / "make_pairs.py"), str(options.conversations), str(pairs)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    recipe = Recipe.model_validate({
        "task": "dpo", "model": str(base), "output_dir": str(work / "unused"),
        "data": {"train": str(pairs), "max_length": 8192, "on_error": "skip"},
    })  # fmt: skip
    scratch = work / "scratch"
    scratch.mkdir()
    rows = prepare(recipe, load_tokenizer(find(str(base))), scratch, lambda fault: None).train
    chosen = np.random.default_rng(0).permutation(len(rows))[: options.pairs]
    rows = rows.select(chosen)
    rows.save_to_disk(str(work / "rows"))
    prompts = sorted(len(row["prompt_ids"]) for row in rows)
    answers = sorted(len(row[side]) for row in rows for side in ("chosen_ids", "rejected_ids"))
    print(
        f"prompts of {prompts[0]} to {prompts[-1]} tokens (median {prompts[len(prompts) // 2]}), "
        f"answers of {answers[0]} to {answers[-1]} (median {answers[len(answers) // 2]})"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train one contender.

    Returns:
        ``seconds`` since the start at the end of each epoch, ``memory`` at its peak in bytes, and
        the ``losses`` of the first steps.
    """
    from transformers import TrainerCallback

    steps = -(-options.pairs // options.batch)
    trainer, ready = (axtune if options.contender == "axtune" else trl)(options)
    seconds: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % steps == 0:
                seconds.append(time.monotonic() - began)

    trainer.add_callback(Clock())
    reset_memory()
    began = time.monotonic()
    ready()
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": seconds, "memory": memory(), "losses": [round(x, 4) for x in losses[:3]]}


TRAINING = {
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": True,
    "logging_steps": 1,
}


def axtune(options: argparse.Namespace) -> tuple[Any, Any]:
    """axtune's trainer, and what it computes before the first step."""
    from datasets import load_from_disk

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
    recipe = Recipe.model_validate({
        "task": "dpo", "model": str(base.folder), "output_dir": str(options.folder / "run"),
        "data": {"train": "rows"},
        "training": {**TRAINING, "per_device_train_batch_size": options.batch,
                     "per_device_eval_batch_size": options.batch,
                     "num_train_epochs": options.epochs},
    })  # fmt: skip
    with quiet_libraries():
        tokenizer = load_tokenizer(base)
        args = training_arguments(recipe, options.precision)
        report = Report(enabled=False)
        model = load_model(base, tokenizer, precision=options.precision)
        adapter = start_adapter(model, recipe, base, report)
        run_dir = claim(recipe)
        run_dir.begin(recipe, {})
        account: Any = None
        data = Prepared(load_from_disk(str(options.folder / "rows")), None, account, None)
        run = RunContext(adapter, args, tokenizer, data, run_dir, report, recipe)
        trainer = make_trainer(run)
    return trainer, lambda: trainer.make_ready(base, options.precision)


def trl(options: argparse.Namespace) -> tuple[Any, Any]:
    """TRL's trainer on the same tokens."""
    import torch
    from datasets import load_from_disk
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer
    from trl.trainer import utils

    if options.contender != "TRL":
        # Only which positions are projected; the kernels themselves look at another name.
        utils._use_triton = lambda device: True
    on_gpu = torch.cuda.is_available()
    folder = str(options.folder / "base")
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16 if options.precision == "bf16" else torch.float32,
        device_map={"": 0 if on_gpu else "cpu"},
    )  # fmt: skip

    class Tokenized(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # the rows are token ids already

    args = DPOConfig(
        output_dir=str(options.folder / "trl"), **TRAINING, seed=42, data_seed=42,
        per_device_train_batch_size=options.batch, num_train_epochs=options.epochs,
        bf16=options.precision == "bf16", use_cpu=not on_gpu, max_length=None, report_to="none",
        save_strategy="no", disable_tqdm=True, dataloader_pin_memory=on_gpu,
    )  # fmt: skip
    trainer = Tokenized(
        model=model, args=args, train_dataset=load_from_disk(str(options.folder / "rows")),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )  # fmt: skip

    def precompute() -> None:
        trainer._precompute_model_hash = "bench"  # not the hashing: that grows with the model
        trainer.train_dataset = trainer._precompute_ref_logps(
            trainer.train_dataset, "train", options.batch
        )
        trainer.precompute_ref_logps = True

    return trainer, precompute if options.contender == "TRL, precomputed" else lambda: None


if __name__ == "__main__":
    main()
