"""What every trainer of axtune shares: its parts, its checkpoints, its events, its signals.

TRL's trainers differ by objective; what a run leaves on the disk and shows on the screen must not.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import convert_outputs_to_fp32, gather_object, send_to_device
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.record import require_as_written
from axtune.checkpoint.run_dir import RunDir
from axtune.checkpoint.steps import (
    OPTIMIZER,
    begin_saving,
    discard_saving,
    not_saved,
    publish,
    rotate,
    saving_in,
)
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.faults import bad_value, first_line, key_named, refused
from axtune.config.objective import Objective
from axtune.config.recipe import Recipe
from axtune.data.dataset import Prepared, tokens_of
from axtune.data.packing import PackLayout
from axtune.errors import AxtuneError
from axtune.model import sharding, tiles
from axtune.model.adapter import Adapter, load_raw, save_raw, tensors_of
from axtune.model.answering import answering
from axtune.model.load import Precision, quantised_to
from axtune.plan.memory import remembered
from axtune.training.asking import Asking, Questions
from axtune.training.callbacks import (
    EvaluationStopped,
    Patience,
    Recorder,
    Stopper,
    chosen_by,
    evaluation_is_due,
)
from axtune.training.distributed import shares_weights
from axtune.training.divergence import DivergenceWatch, WithPlaces, check_rehearsal
from axtune.training.optimisation import go_on, schedule
from axtune.training.peers import Place
from axtune.training.plain_state import random_state, read_state, set_random_state, write_state
from axtune.training.progress import Report
from axtune.training.trackers import log_into
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
        identity: What the run is known by when it goes on (`axtune.checkpoint.identity`).
        questions: What the model is asked while it trains, as the recipe's ``evaluate`` says.
    """

    adapter: Adapter
    args: TrainingArguments
    tokenizer: AxTokenizer
    data: Prepared
    run_dir: RunDir
    report: Report
    recipe: Recipe
    identity: Mapping[str, Any] = field(default_factory=dict)
    questions: Questions | None = None


@dataclass(frozen=True)
class Rehearsal:
    """What the largest micro-batch took.

    Attributes:
        tokens: Of its rows, without padding.
        seconds: Of forward and backward.
        peak: Most memory that torch had allocated on the card, in bytes; None without one.
        reserved: Most memory that torch had taken from the driver for it, in bytes, likewise.
    """

    tokens: int
    seconds: float
    peak: int | None
    reserved: int | None = None


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
    data_collator: Any  # `WithPlaces` of the task's own
    optimizer: Any
    lr_scheduler: Any
    packing: PackLayout | None = None
    _saving = False

    def __init__(self, run: RunContext, **further: Any) -> None:
        self.run = run
        model, recipe = run.adapter.model, run.recipe
        trainable = {
            name: parameter.data
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self.stopper = Stopper(run.report)
        self._place = Place()
        self._divergence = DivergenceWatch(model, run.data.where, run.report, run.run_dir)
        callbacks: list[TrainerCallback] = [
            Recorder(run.run_dir, run.report),
            self.stopper,
        ]
        self.asking: Asking | None = None
        if run.questions is not None and recipe.evaluate is not None:
            self.asking = Asking(recipe.evaluate, self.stopper, loss_due=run.data.eval is not None)
            callbacks.append(self.asking)
        callbacks.append(self._divergence)
        if (patience := recipe.early_stopping_patience) is not None:
            callbacks.append(Patience(early_stopping_patience=patience))
        callbacks.append(_Catch(self))
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
        if run.args.gradient_checkpointing:
            tiles.install(model.get_base_model())
        log_into(run.run_dir, self.callback_handler.callbacks)
        self.data_collator = WithPlaces(self.data_collator)
        self._divergence.scaler = self.accelerator.scaler
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        # TRL rounds the adapter to bf16 over a 4-bit base: updates smaller than 1/256 of a weight
        # are lost, and cards without bf16 cannot train it. Take the float32 values back.
        for name, parameter in model.named_parameters():
            if name in trainable:
                parameter.data = trainable[name].to(parameter.device)

    def shard(self) -> None:
        """Under FSDP, leave each process its share of the weights, on its own device.

        Raises:
            AxtuneError: On a CPU, where accelerate would run DDP, and when a part stays whole.
        """
        if not self.is_fsdp_enabled:
            if shares_weights(PartialState()):
                raise AxtuneError(
                    "accelerate is configured for FSDP, which it has for GPUs only.",
                    "On a CPU, start it with `torchrun --nproc_per_node 2 RECIPE`.",
                )
            return
        state = self.accelerator.state
        # Where it would round weights to the run's precision to compute with them, and gradients to
        # sum them, autocast does what it does in one process.
        state.fsdp_plugin.mixed_precision_policy = None
        quantised_to(self.model, self.args.device)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        # accelerate wants an optimiser to go with the model; the run's own is made later.
        self.model, _ = self.accelerator.prepare(self.model, torch.optim.SGD(trained))
        self.model_wrapped = self.model
        sharding.require_all_sharded(self.model)
        if self.accelerator.native_amp:
            forward = self.accelerator.autocast()(self.model.forward)
            self.model.forward = convert_outputs_to_fp32(forward)

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
            AxtuneError: When the loss is not finite.
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
            if self.is_fsdp_enabled:
                trained //= self.args.world_size
            count = (
                int(remembered(getattr(self.args.optim, "value", self.args.optim)) * trained)
                if on_gpu
                else 0
            )
            moments = torch.empty(count, dtype=torch.uint8, device=self.args.device)
            batch = self.data_collator([rows[int(index)] for index in largest])
            places = batch.pop("places")
            batch = send_to_device(batch, self.args.device)
            self.model.train()
            with activation_offloading(self), self.accelerator.autocast():
                loss: Any = self.compute_loss(self.model, batch)
                loss.backward()
            value = loss.item()
            del moments, batch, loss
        check_rehearsal(value, self.model, map(self.run.data.where, places))
        self.model.zero_grad(set_to_none=True)
        took = time.monotonic() - began
        peak, reserved = None, None
        if on_gpu:
            peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return Rehearsal(int(sizes[largest].sum()), took, peak, reserved)

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
        made: torch.optim.lr_scheduler.LRScheduler = self.lr_scheduler
        return made

    def make_ready(self, checkpoint: Checkpoint, precision: Precision) -> None:
        """What an objective computes once, before the first step; nothing, for most.

        Args:
            checkpoint: The base.
            precision: As `axtune.model.load.choose_precision` decided.
        """

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As the trainer's own; a signal breaks it off, with a checkpoint of the step before it.

        Raises:
            KeyboardInterrupt: After a signal.
        """
        with self._saved_when_stopped():
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
            return metrics

    @contextmanager
    def _saved_when_stopped(self) -> Iterator[None]:
        try:
            yield
        except EvaluationStopped:
            self._save_checkpoint(self.model, None)
            raise self.stopper.signal from None

    def ask(self) -> dict[str, float]:
        """Let the model answer the run's questions, each process its share, and log the figures.

        The steps that follow are those of a run that asks nothing. A signal breaks it off, with a
        checkpoint of the step before it.

        Returns:
            The figures, as events name them.

        Raises:
            KeyboardInterrupt: After a signal.
        """
        assert self.run.questions is not None
        began = time.monotonic()
        with self._saved_when_stopped():
            self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            answers = self._answers(self.run.questions)
        metrics = {f"eval_{name}": value for name, value in answers.items()}
        metrics["eval_answers_seconds"] = round(time.monotonic() - began, 3)
        Trainer.log(self, dict(metrics))  # TRL's own would add what it counted of losses
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _answers(self, questions: Questions) -> dict[str, float]:
        """The figures of the answers of all processes."""
        args, stopped = self.args, False
        said: dict[int, Any] = {}
        share = range(args.process_index, len(questions), args.world_size)
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if args.device.type == "cuda":
            torch.cuda.empty_cache()  # how many answers fit at once is told by what is free
        try:
            with answering(model, self.stopper.break_off), self.accelerator.autocast():
                for batch in questions.answers(model, share):
                    said |= batch
                    self.run.report.busy(f"answers {len(said):,}/{len(share):,}")
        except EvaluationStopped:
            stopped = True  # the others learn of it below: all of them leave together
        finally:
            self.run.report.busy()
        if args.world_size > 1:
            parts = gather_object([(said, stopped)])
            said = {number: answer for part, _ in parts for number, answer in part.items()}
            stopped = any(told for _, told in parts)
        if stopped:
            self.stopper.interrupted = True
            raise EvaluationStopped
        return questions.figures(said)

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """What is due: the held-out loss, the questions, or both."""
        metrics: dict[str, float] = {}
        if self.asking is None or self.asking.loss_due:
            metrics |= super()._evaluate(*args, **kwargs)
        if self.asking and self.asking.is_due(self.state, self.control):
            self._determine_best_metric(metrics, None)  # kept, should a signal end the answers
            metrics |= self.ask()
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        if chosen_by(self.args) not in metrics:
            return False  # the step was judged by something else
        if not self.state.global_step:
            return False  # training.eval_on_start: of the base, of which there is no checkpoint
        return bool(super()._determine_best_metric(metrics, trial))

    def catch_up(self) -> None:
        """Evaluate the step that a resumed run goes on from, if it was stopped meanwhile."""
        if self.state.global_step:
            self.args.eval_on_start = False  # it would judge that step a second time
        metrics: dict[str, float] = {}
        if evaluation_is_due(self.args, self.state):
            metrics |= self.evaluate()
        if self.asking and self.asking.was_missed(self.args, self.state):
            metrics |= self.ask()
        if self._determine_best_metric(metrics, None):
            folder = self.run.run_dir.checkpoints / f"checkpoint-{self.state.global_step}"
            self.state.best_model_checkpoint = str(folder)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """A pass over the data; none is begun by a run that goes on from its last step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Forward and backward of a micro-batch; what its loss was, and of which rows, is kept."""
        places = inputs.pop("places")
        self._place.passed()
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        self._divergence.note(loss, places)
        return loss

    def compute_loss_context_manager(self) -> ExitStack[bool | None]:
        """As the trainer's own; other processes of the run can read that the loss is computed."""
        around = super().compute_loss_context_manager()
        around.callback(self._place.passed)
        return around

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """As the trainer's own; the rows' places are nothing that a model takes."""
        inputs.pop("places")
        return super().prediction_step(model, inputs, *args, **kwargs)

    def begin_from(self, weights: Path) -> None:
        """Take over the weights of another run of the same shape, and nothing else of it.

        Args:
            weights: A checkpoint or an adapter of that run.

        Raises:
            AxtuneError: When they do not fit.
        """
        try:
            self._load_from_checkpoint(str(weights))
        except (ValueError, RuntimeError, KeyError, OSError, SafetensorError) as error:
            raise AxtuneError(
                f"The weights of {weights} do not fit this run: {first_line(error)}",
                "Set model and lora as they were there.",
            ) from error

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's card would stand beside the checkpoints; the run folder has its own."""

    # What transformers' Trainer saves and loads, method by method: no pickle, and each checkpoint
    # whole and recorded when it gets its name. tests/training/test_trainer.py says which of these
    # names are gone when transformers moves.

    def _get_output_dir(self, trial: Any) -> str:
        place = Path(str(self.args.output_dir))
        return str(saving_in(place) if self._saving else place)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        place, step = Path(str(self.args.output_dir)), self.state.global_step
        if self.args.should_save:
            begin_saving(place)
        self.accelerator.wait_for_everyone()
        self._saving = True
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # the random state of all is in it
            if self.args.should_save:
                made = saving_in(place) / f"checkpoint-{step}"
                saved = publish(made, {"run": self.run.identity})
                rotate(saved, self.state.best_global_step, self.args.save_total_limit)
        except (OSError, SafetensorError) as error:
            if self.args.world_size == 1:  # others may be writing there; the next save clears it
                discard_saving(place)
            raise not_saved(place, step, error) from error
        finally:
            self._saving = False
        self.accelerator.wait_for_everyone()
        best = place / f"checkpoint-{self.state.best_global_step}"
        self.state.best_model_checkpoint = str(best) if best.is_dir() else None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the trainer's own; of sharded weights that one would gather the base as well."""
        self._save(output_dir)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        """What a checkpoint holds of model and tokenizer: adapter and original files."""
        model = self.run.adapter.model
        tensors = tensors_of(model)  # all processes gather it
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_raw(model, folder, tensors)
        self.run.tokenizer.copy_files(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_raw(self.run.adapter.model, Path(resume_from_checkpoint))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = sharding.whole_state(self.optimizer)  # all processes gather it
        if self.args.should_save:
            write_state(Path(output_dir), OPTIMIZER, state)
            write_state(Path(output_dir), "scheduler", self.lr_scheduler.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state = read_state(Path(checkpoint), OPTIMIZER)
            shares = sharding.shares_of_state(state, self.optimizer)
            self.optimizer.load_state_dict(shares)
            self.lr_scheduler.load_state_dict(read_state(Path(checkpoint), "scheduler"))
            go_on(self.lr_scheduler, self.optimizer, self.run.report.say)

    def _save_scaler(self, output_dir: str) -> None:
        if self.accelerator.scaler is not None and self.args.should_save:
            write_state(Path(output_dir), "scaler", self.accelerator.scaler.state_dict())

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self.accelerator.scaler is not None and checkpoint is not None:
            self.accelerator.scaler.load_state_dict(read_state(Path(checkpoint), "scaler"))

    def _save_rng_state(self, output_dir: str) -> None:
        # Other processes come here before the first one has made the folder.
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        write_state(Path(output_dir), f"random-{self.args.process_index}", random_state())

    def _load_rng_state(self, checkpoint: str | None) -> None:
        name = f"random-{self.args.process_index}"
        # A run may go on with more processes than it had; the new ones have no past.
        if checkpoint is not None and (Path(checkpoint) / f"{name}.json").is_file():
            set_random_state(read_state(Path(checkpoint), name))

    def _load_best_model(self) -> None:
        best = Path(str(self.state.best_model_checkpoint))
        require_as_written(best)
        load_raw(self.run.adapter.model, best)


class _Catch(TrainerCallback):
    """Makes up, before the first step of a resumed run, for an evaluation that was broken off."""

    def __init__(self, trainer: RunTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._trainer.catch_up()


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
