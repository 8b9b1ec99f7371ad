"""A supervised trainer on a few rows, as a run makes it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback

from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.run_dir import claim
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.data.dataset import prepare
from axtune.model.adapter import add_adapter
from axtune.model.load import load_model
from axtune.training.arguments import training_arguments
from axtune.training.progress import Report
from axtune.training.trainer import RunContext, make_trainer
from support.tiny import recipe


def trainer(
    base: Checkpoint,
    folder: Path,
    *,
    precision: Any = "fp32",
    callbacks: Sequence[TrainerCallback] = (),
    output: io.StringIO | None = None,
    questions: Any = None,
    **changes: Any,
) -> Any:
    """A trainer on the rows of ``folder / "rows.jsonl"``; `changes` are keys of the recipe."""
    job = recipe(folder, model=str(base.folder), **changes)
    tokenizer = load_tokenizer(base)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    data = prepare(job, tokenizer, scratch, lambda fault: None)
    model = load_model(base, tokenizer, precision=precision, quantization=job.quantization)
    adapter = add_adapter(model, {"r": 4, **job.lora}, seed=job.seed)
    run_dir = claim(job)
    run_dir.begin(job, {})
    args = training_arguments(job, precision)
    report = Report(Console(file=output or io.StringIO(), width=400))
    context = RunContext(adapter, args, tokenizer, data, run_dir, report, job, questions=questions)
    made = make_trainer(context)
    for callback in callbacks:
        made.add_callback(callback)
    return made
