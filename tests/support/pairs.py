"""Preference rows made of random token ids, and trainers on them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console

from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.run_dir import claim
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.data.dataset import Prepared
from axtune.model.load import load_model
from axtune.training.arguments import training_arguments
from axtune.training.initial_adapter import start_adapter
from axtune.training.progress import Report
from axtune.training.trainer import RunContext, make_trainer
from support.tiny import recipe

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"}
# Ragged on purpose: a prompt of one token, answers of one token, answers of equal length.
LENGTHS = ((23, 5, 9), (1, 1, 4), (60, 7, 7), (11, 12, 1), (40, 3, 6), (2, 2, 2), (17, 1, 1))


def pairs(seed: int = 0, lengths: Any = LENGTHS) -> list[dict[str, list[int]]]:
    """Pairs of random ids of the lengths given: prompt, chosen, rejected."""
    rng = np.random.default_rng(seed)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [
        {name: rng.integers(45, 1000, n).tolist() for name, n in zip(names, row, strict=True)}
        for row in lengths
    ]


def with_context(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same pairs, some answers with tokens that are not learned, inside and at the end."""
    result = []
    for number, row in enumerate(rows):
        labels = {}
        for side in ("chosen", "rejected"):
            ids = row[f"{side}_ids"]
            learned = [(place + number) % 3 != 0 or len(ids) < 3 for place in range(len(ids))]
            labels[f"{side}_labels"] = [
                token if keep else -100 for token, keep in zip(ids, learned, strict=True)
            ]
        result.append(row | labels)
    return result


def labelled(seed: int = 0, count: int = 8) -> list[dict[str, Any]]:
    """Labelled answers of random ids, for KTO."""
    return [
        {"prompt_ids": row["prompt_ids"], "completion_ids": row["chosen_ids"], "label": bool(n % 2)}
        for n, row in enumerate((pairs(seed) + pairs(seed + 1))[:count])
    ]


def prepared(train: list[dict[str, Any]], held_out: list[dict[str, Any]] | None = None) -> Prepared:
    """Rows as a trainer gets them."""
    account: Any = None  # no trainer asks where rows went
    rows = Dataset.from_list(placed(held_out)) if held_out else None
    return Prepared(Dataset.from_list(placed(train)), rows, account, None, files=("rows.jsonl",))


def placed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with where they come from: a line each of one file."""
    return [row | {"place": [0, line]} for line, row in enumerate(rows, 1)]


def trainer(
    base: Checkpoint,
    folder: Path,
    rows: list[dict[str, Any]] | None = None,
    held_out: list[dict[str, Any]] | None = None,
    *,
    task: str = "dpo",
    precision: Any = "fp32",
    output: io.StringIO | None = None,
    **changes: Any,
) -> Any:
    """A preference trainer on rows, ready to train."""
    training = {"gradient_accumulation_steps": 1, "max_steps": 1, **changes.pop("training", {})}
    job = recipe(folder, model=str(base.folder), task=task, training=training,
                 **{"lora": {"r": 4}, **changes})  # fmt: skip
    tokenizer = load_tokenizer(base)
    args = training_arguments(job, precision)
    model = load_model(base, tokenizer, precision=precision, quantization=job.quantization)
    report = Report(Console(file=output or io.StringIO()))
    adapter = start_adapter(model, job, base, report)
    run_dir = claim(job)
    run_dir.begin(job, {})
    default = labelled() if task == "kto" else pairs()
    data = prepared(rows or default, held_out)
    made = make_trainer(RunContext(adapter, args, tokenizer, data, run_dir, report, job))
    made.make_ready(base, precision)
    return made


def stir(model: Any, seed: int = 1) -> None:
    """Give an adapter weights as if it had been trained: with B zero, A has no gradient."""
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += 0.1 * noise.to(parameter.device, parameter.dtype)


def loss_and_gradients(made: Any, rows: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """A trainer's loss on one batch, and the gradients of its adapter in one vector."""
    made.model.train()
    made.model.zero_grad()
    collator = made.data_collator  # a trainer of TRL's has a plain one
    batch = made._prepare_inputs(getattr(collator, "collate", collator)(rows))
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    gradients = [
        p.grad.flatten() for n, p in sorted(made.model.named_parameters()) if p.requires_grad
    ]
    return loss.detach(), torch.cat(gradients)
