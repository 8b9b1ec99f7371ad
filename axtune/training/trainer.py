"""What every trainer of axtune shares: its parts, its checkpoints, its events, its signals.

TRL's trainers differ by objective; what a run leaves on the disk and shows on the screen must not.
"""

from __future__ import annotations

import importlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from peft import PeftModel
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from axtune.checkpoint.atomic import write_text
from axtune.checkpoint.catalog import Checkpoint
from axtune.checkpoint.run_dir import RunDir
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.faults import bad_value, first_line, key_named, refused
from axtune.config.objective import Objective
from axtune.config.recipe import Recipe
from axtune.data.dataset import Prepared, tokens_of
from axtune.data.packing import PackLayout
from axtune.errors import AxtuneError
from axtune.model.adapter import Adapter, save_raw
from axtune.model.load import Precision
from axtune.plan.memory import remembered
from axtune.training.callbacks import Recorder, Stopper
from axtune.training.optimisation import schedule
from axtune.training.progress import Report
from axtune.training.trl_private import activation_offloading, counters_kept, rows_by


@dataclass(frozen=True)
class RunContext:
    """What a run is made of, once it is ready to train.

    Attributes:
        adapter: The model with its adapter.
        args: Of `axtune.training.arguments.training_arguments`.
        tokenizer: The checkpoint's; its files go into every checkpoint of the run.
        data: What the objective trains on.
        run_dir: Where events go.
        report: What the user sees.
        recipe: The job.
    """

    adapter: Adapter
    args: TrainingArguments
    tokenizer: AxTokenizer
    data: Prepared
    run_dir: RunDir
    report: Report
    recipe: Recipe


@dataclass(frozen=True)
class Rehearsal:
    """What the largest micro-batch took.

    Attributes:
        tokens: Of its rows, without padding.
        seconds: Of forward and backward.
        peak: Most memory that torch had allocated on the card, in bytes; None without one.
    """

    tokens: int
    seconds: float
    peak: int | None


class RunTrainer(Trainer):
    """The part of a trainer that serves the run; an objective has it before its TRL trainer::

        class DpoTrainer(RunTrainer, DPOTrainer): ...

    Args:
        run: What the run is made of.
        further: What the objective's TRL trainer takes besides, such as its ``data_collator``.

    Attributes:
        run: As given.
        packing: How the samples are packed, or None.

    Raises:
        RecipeError: When TRL refuses a value that its configuration let pass.
    """

    args: Any  # the task's own class of TrainingArguments
    model: Any
    packing: PackLayout | None = None

    def __init__(self, run: RunContext, **further: Any) -> None:
        self.run = run
        model, recipe = run.adapter.model, run.recipe
        trainable = {
            name: parameter.data
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self.stopper = Stopper(run.report)
        callbacks: list[TrainerCallback] = [Recorder(run.run_dir, run.report), self.stopper]
        if (patience := recipe.early_stopping_patience) is not None:
            callbacks.append(EarlyStoppingCallback(early_stopping_patience=patience))
        rows_by(self, self.rows_of)
        try:
            super().__init__(
                model=model,
                args=run.args,
                train_dataset=run.data.train,
                eval_dataset=run.data.eval,
                processing_class=run.tokenizer.to_transformers(),
                callbacks=callbacks,
                **further,
            )
        except (ValueError, RuntimeError, ImportError) as error:  # loss_type, report_to, …
            key = key_named(error, "training", recipe.training)
            raise refused([bad_value(key, first_line(error))]) from error
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        # TRL rounds the adapter to bf16 over a 4-bit base: updates smaller than 1/256 of a weight
        # are lost, and cards without bf16 cannot train it. Take the float32 values back.
        for name, parameter in model.named_parameters():
            if name in trainable:
                parameter.data = trainable[name].to(parameter.device)

    def rows_of(self, dataset: Any) -> Any:
        """What batches are made of, from prepared rows: for most objectives the rows themselves.

        Args:
            dataset: Of `Prepared`, the training rows or the held-out ones.
        """
        return dataset

    def rehearse(self) -> Rehearsal:
        """Run forward and backward on the largest micro-batch, which memory has to be enough for.

        Weights, optimiser, metrics and random numbers are afterwards what they were.

        Returns:
            How many tokens it had and how long it took.

        Raises:
            RuntimeError: When the memory is not enough.
        """
        sizes, rows_taken = self._micro_batch_sizes(), self.args.per_device_train_batch_size
        largest = np.argsort(-sizes, kind="stable")[:rows_taken]
        rows: Any = self.train_dataset
        if self.args.gradient_checkpointing:  # the trainer itself does so when it begins
            options = self.args.gradient_checkpointing_kwargs
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        on_gpu = self.args.device.type == "cuda"
        began = time.monotonic()
        with counters_kept(self), torch.random.fork_rng([self.args.device] if on_gpu else []):
            # From the second step on there is beside it what the optimiser remembers.
            trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
            count = (
                int(remembered(getattr(self.args.optim, "value", self.args.optim)) * trained)
                if on_gpu
                else 0
            )
            moments = torch.empty(count, dtype=torch.uint8, device=self.args.device)
            batch = self.data_collator([rows[int(index)] for index in largest])
            batch = send_to_device(batch, self.args.device)
            self.model.train()
            with activation_offloading(self), self.accelerator.autocast():
                loss: Any = self.compute_loss(self.model, batch)
                loss.backward()
            del moments, batch, loss
        self.model.zero_grad(set_to_none=True)
        peak = torch.cuda.max_memory_allocated() if on_gpu else None
        return Rehearsal(int(sizes[largest].sum()), time.monotonic() - began, peak)

    def _micro_batch_sizes(self) -> NDArray[np.int64]:
        """Tokens of each row of ``train_dataset``."""
        rows: Any = self.train_dataset
        return tokens_of(getattr(rows, "rows", rows))

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The learning rates of the run, no step at 0 among them."""
        of: Any = optimizer or self.optimizer
        self.lr_scheduler = schedule(self.args, of, num_training_steps, self.run.report.say)
        return self.lr_scheduler

    def make_ready(self, checkpoint: Checkpoint, precision: Precision) -> None:
        """What an objective computes once, before the first step; nothing, for most.

        Args:
            checkpoint: The base.
            precision: As `axtune.model.load.choose_precision` decided.
        """

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        """What a checkpoint holds of model and tokenizer: adapter and original files, no pickle."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model)
        assert isinstance(model, PeftModel)
        save_raw(model, folder, state_dict)
        self.run.tokenizer.copy_files(folder)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's card would stand beside the checkpoints; the run folder has its own."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            # The best checkpoint's path is one of this machine, and wrong once the folder moves;
            # `Recorder.on_train_begin` finds it again by its step.
            folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            file = folder / "trainer_state.json"
            state = json.loads(file.read_text(encoding="utf-8"))
            state["best_model_checkpoint"] = None
            write_text(file, json.dumps(state, indent=2) + "\n")


def make_trainer(run: RunContext) -> RunTrainer:
    """The trainer of a run's task.

    Args:
        run: What the run is made of.

    Raises:
        AxtuneError: When the task's trainer cannot be found.
        RecipeError: When TRL refuses a value that its configuration let pass.
    """
    return trainer_class(run.recipe.objective)(run)


def trainer_class(objective: Objective) -> type[RunTrainer]:
    """The class that an objective names, imported now: its TRL trainer takes a while.

    Args:
        objective: Of a task.

    Raises:
        AxtuneError: When the module or the class cannot be found, or is no `RunTrainer`.
    """
    module, _, name = objective.trainer.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and a package that it imports is not
        raise AxtuneError(
            f"The trainer of task {objective.name} cannot be found: {objective.trainer}.",
            "Name it as module:Class, in a module that Python can import.",
        ) from error
    if not (isinstance(found, type) and issubclass(found, RunTrainer)):
        raise AxtuneError(
            f"The trainer of task {objective.name} is no RunTrainer: {objective.trainer}.",
            "Derive it from axtune.training.trainer.RunTrainer and a trainer of TRL's, in this "
            "order.",
        )
    return found
