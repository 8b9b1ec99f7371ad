"""What every trainer of axtune shares: its arguments, its checkpoints, its events, its signals.

TRL's trainers differ by objective; what a run leaves on the disk and shows on the screen must not.
"""

from __future__ import annotations

import copy
import importlib
import json
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
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
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import nested_gather

from axtune.adapter import Adapter, save_raw, type_faults
from axtune.catalog import Checkpoint
from axtune.dataset import Prepared, tokens_of
from axtune.memory import remembered
from axtune.model import Precision, bad_value, first_line, key_named, refused
from axtune.passthrough import TRAINING_CONFIGS
from axtune.recipe import Recipe
from axtune.report import Report, plot
from axtune.rundir import RunDir, write_text
from axtune.tokenizer import AxTokenizer

# Where a recipe is silent and axtune's choice is not TRL's.
_DEFAULTS: dict[str, Any] = {
    "save_total_limit": 2,
    "report_to": "none",
    "push_to_hub": False,
    # transformers would put the average in place of a loss that is not a number, and hide it.
    "logging_nan_inf_filter": False,
    # Every adapter weight takes part in every step; looking for idle ones costs a graph walk.
    "ddp_find_unused_parameters": False,
}


_CADENCES = ("epoch", "steps", "no")
_COUNTS = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "eval_steps",
    "logging_steps",
    "save_total_limit",
)


# What is axtune's to decide in one objective only.
_DECIDED: dict[str, dict[str, Any]] = {
    # The collators take columns that TRL's own do not know.
    "sft": {"dataset_kwargs": {"skip_prepare_dataset": True}, "remove_unused_columns": False},
    "dpo": {"remove_unused_columns": False},
    "kto": {"remove_unused_columns": False},
    "orpo": {"remove_unused_columns": False},
}


def config_class(task: str) -> Any:
    """The TRL class that a task's ``training`` section passes to."""
    module, name = TRAINING_CONFIGS[task]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*trl.experimental.*")  # ORPO lives there
        return getattr(importlib.import_module(module), name)


def training_arguments(recipe: Recipe, precision: Precision) -> TrainingArguments:
    """TRL's configuration from a recipe; sets up the process group of a distributed run.

    Args:
        recipe: Its ``training`` section passes by TRL's names.
        precision: As `axtune.model.choose_precision` decided.

    Raises:
        RecipeError: When a value is not of its type or the libraries refuse it, with its key.
    """
    config = config_class(recipe.task)
    given = {**_DEFAULTS, **recipe.training}
    if isinstance(given.get("loss_type"), str) and recipe.task == "dpo":
        given["loss_type"] = [given["loss_type"]]
    faults = type_faults("training", config, given)
    cadence = str(given.pop("eval_strategy", "epoch"))
    if cadence not in _CADENCES:
        faults.append(bad_value("training.eval_strategy", "expected epoch or steps."))
    for name in _COUNTS:
        if isinstance(given.get(name), (int, float)) and given[name] <= 0:
            faults.append(bad_value(f"training.{name}", "expected a number above 0."))
    if faults:
        raise refused(faults)
    steps = given.get("eval_steps") or given.get("logging_steps") or config.logging_steps
    if recipe.data.eval is None:
        given.pop("eval_steps", None)
        follow = {"eval_strategy": "no", "save_strategy": cadence, "save_steps": steps}
    else:
        follow = {
            "eval_strategy": cadence,
            "eval_steps": steps,
            "save_strategy": cadence,
            "save_steps": steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
        }
    on_gpu = torch.cuda.is_available()
    ours = {
        "output_dir": str(Path(recipe.output_dir) / "checkpoints"),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": not on_gpu,
        "max_length": None,
        "prediction_loss_only": True,
        "disable_tqdm": True,
        **_DECIDED[recipe.task],
        **follow,
    }
    if "activations" in recipe.offload and on_gpu:
        ours["activation_offloading"] = True
    given.setdefault("dataloader_pin_memory", on_gpu)
    try:
        args: TrainingArguments = config(**{**given, **ours})
    except (TypeError, ValueError, KeyError, ImportError) as error:
        key = _culprit(config, recipe.training, error, ours)
        raise refused([bad_value(key, first_line(error))]) from error
    if precision == "fp32":
        args.mixed_precision = "no"  # whatever accelerate's own configuration says
    if args.n_gpu > 1:
        # A process without a launcher takes the first card; TRL refuses nn.DataParallel.
        args._n_gpu = 1
    return args


def _culprit(config: Any, given: dict[str, Any], error: Exception, ours: dict[str, Any]) -> str:
    """The key whose value the library refuses: the one it names, or that it refuses alone."""
    if (key := key_named(error, "training", given)) != "training":
        return key
    plain = {"output_dir": ours["output_dir"], "use_cpu": ours["use_cpu"], "bf16": False}
    for name, value in given.items():
        try:
            config(**{**plain, "report_to": "none", name: value})
        except (TypeError, ValueError, KeyError, ImportError):
            return f"training.{name}"
    return "training"


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


# What TRL's trainers count as they compute losses.
_COUNTERS = ("_metrics", "_total_train_tokens", "_stored_metrics")


class RunTrainer(Trainer):
    """The part of a trainer that serves the run; a TRL trainer stands behind it.

    Args:
        adapter: The model with its adapter.
        args: Of `training_arguments`.
        tokenizer: The checkpoint's tokenizer; its files go into every checkpoint.
        data: What the objective trains on.
        run_dir: Where events go.
        report: What the user sees.
        recipe: The job, for its early stopping and its own names of what TRL refuses.
        further: What the objective's TRL trainer takes besides.

    Raises:
        RecipeError: When TRL refuses a value that its configuration let pass.
    """

    args: Any  # the task's own class of TrainingArguments
    model: Any
    maybe_activation_offload_context: Any = nullcontext()  # TRL's, where it has one

    def __init__(
        self,
        adapter: Adapter,
        args: TrainingArguments,
        tokenizer: AxTokenizer,
        data: Prepared,
        run_dir: RunDir,
        report: Report,
        recipe: Recipe,
        **further: Any,
    ) -> None:
        self.ax_tokenizer = tokenizer
        self.run_dir = run_dir
        trainable = {
            name: parameter.data
            for name, parameter in adapter.model.named_parameters()
            if parameter.requires_grad
        }
        for module in adapter.model.modules():
            # On CPUs with AVX512-BF16, bitsandbytes repacks 4-bit weights at the first evaluation,
            # for good, into a layout that passes no gradients on: training would go on without.
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        self.stopper = Stopper(report)
        callbacks: list[TrainerCallback] = [Recorder(run_dir, report), self.stopper]
        if (patience := recipe.early_stopping_patience) is not None:
            callbacks.append(EarlyStoppingCallback(early_stopping_patience=patience))
        try:
            super().__init__(
                model=adapter.model,
                args=args,
                train_dataset=data.train,
                eval_dataset=data.eval,
                processing_class=tokenizer.to_transformers(),
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
        for name, parameter in adapter.model.named_parameters():
            if name in trainable:
                parameter.data = trainable[name].to(parameter.device)

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
        kept = {name: copy.deepcopy(vars(self).get(name)) for name in _COUNTERS}
        if self.args.gradient_checkpointing:  # the trainer itself does so when it begins
            options = self.args.gradient_checkpointing_kwargs
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        on_gpu = self.args.device.type == "cuda"
        began = time.monotonic()
        with torch.random.fork_rng([self.args.device] if on_gpu else []):
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
            with self.maybe_activation_offload_context, self.accelerator.autocast():
                loss: Any = self.compute_loss(self.model, batch)
                loss.backward()
            del moments, batch, loss
        self.model.zero_grad(set_to_none=True)
        vars(self).update({name: value for name, value in kept.items() if value is not None})
        peak = torch.cuda.max_memory_allocated() if on_gpu else None
        return Rehearsal(int(sizes[largest].sum()), time.monotonic() - began, peak)

    def _micro_batch_sizes(self) -> NDArray[np.int64]:
        """Tokens of each row of ``train_dataset``."""
        rows: Any = self.train_dataset
        return tokens_of(getattr(rows, "rows", rows))

    def make_ready(self, checkpoint: Checkpoint, precision: Precision) -> None:
        """What an objective computes once, before the first step; nothing, for most.

        Args:
            checkpoint: The base.
            precision: As `axtune.model.choose_precision` decided.
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
        self.ax_tokenizer.copy_files(folder)

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


class Recorder(TrainerCallback):
    """Carries the trainer's events to ``metrics.jsonl``, the plot and the report."""

    def __init__(self, run_dir: RunDir, report: Report) -> None:
        self.run_dir = run_dir
        self.report = report
        self._tokens = 0.0
        self._since = 0.0
        self._paused = 0.0  # seconds of evaluating since the last training event
        self._pause_began: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.best_global_step:
            best = self.run_dir.checkpoints / f"checkpoint-{state.best_global_step}"
            state.best_model_checkpoint = str(best) if best.is_dir() else None
        self._since = time.monotonic()
        self.report.begin(state.max_steps, state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.report.step(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        if not state.is_world_process_zero or not ("loss" in logs or "eval_loss" in logs):
            return
        event = {"step": state.global_step, **logs}
        event.pop("eval_num_tokens", None)
        if "loss" in logs:
            now, tokens = time.monotonic(), event.pop("num_tokens", None)
            seconds = now - self._since - self._paused
            if tokens is not None:  # ORPO counts none
                event["tokens_per_second"] = round((tokens - self._tokens) / max(seconds, 1e-9), 1)
                self._tokens = tokens
            self._since, self._paused = now, 0.0
        self.run_dir.log(event)
        self.report.event(event)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._pause_began is None:
            self._pause_began = time.monotonic()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._pause_began is not None:
            self._paused += time.monotonic() - self._pause_began
            self._pause_began = None
        if state.is_world_process_zero:
            plot(self.run_dir.metrics(), self.run_dir.path / "loss.png")


class Stopper(TrainerCallback):
    """Ctrl-C and SIGTERM: finish the step, save a checkpoint, stop; a second Ctrl-C stops at once.

    Attributes:
        interrupted: Whether training stopped because of a signal.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.interrupted = False
        self._signalled_at: float | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals while training runs; elsewhere they do what they always do."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only a main thread may handle signals; a notebook's worker has none to handle
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._on_signal) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signalled_at is None:
            self._signalled_at = now
            self.report.say("Stopping after this step, with a checkpoint. Ctrl-C again: at once.")
        elif now - self._signalled_at > 1:  # launchers pass a terminal's Ctrl-C on a second time
            raise KeyboardInterrupt

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._agreed(args) and state.global_step < state.max_steps:
            self.interrupted = True
            control.should_training_stop = True
            control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # The trainer ends the epoch when it stops inside one; only a whole epoch is evaluated.
        inside = abs((state.epoch or 0.0) - round(state.epoch or 0.0)) > 1e-6
        if self.interrupted and inside:
            control.should_evaluate = False
            control.should_save = False

    def _agreed(self, args: TrainingArguments) -> bool:
        """Whether any process was told to stop; all of them must leave at the same step."""
        told = self._signalled_at is not None
        if args.world_size == 1:
            return told
        flags = nested_gather(torch.tensor(float(told), device=args.device), args.parallel_mode)
        return bool(flags.max() > 0)
