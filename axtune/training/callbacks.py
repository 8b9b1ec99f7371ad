"""What watches a run while it trains: the metrics, the signals, the chosen answers."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from statistics import fmean
from types import FrameType
from typing import Any

import torch
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import nested_gather
from transformers.trainer_utils import IntervalStrategy

from axtune.checkpoint.run_dir import RunDir
from axtune.signals import ending_signals, leave_terminal, stopped_by
from axtune.training.peers import has_failed_peer
from axtune.training.plots import plot
from axtune.training.progress import Report

_WINDOW = 20  # log events that a fall of the chosen answers has to last
_FALL = 1.0  # nats an answer


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
        told = "loss" in logs or any(name.startswith("eval_") for name in logs)
        if not state.is_world_process_zero or not told:
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
            plot(self.run_dir.metrics(), self.run_dir.path / "loss.png", best=chosen_by(args))


class Patience(EarlyStoppingCallback):
    """Early stopping by whatever chooses the best checkpoint, the eval loss or a figure."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Go on counting where the checkpoint stopped; it may be at its end.

        Figures need no eval loss, which transformers insists on here.
        """
        saved: Any = state.stateful_callbacks
        counted = saved.get(type(self).__name__, self.state())["attributes"]
        self.early_stopping_patience_counter = counted["early_stopping_patience_counter"]
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if chosen_by(args) in (metrics or {}):
            super().on_evaluate(args, state, control, metrics)  # type: ignore[no-untyped-call]


def chosen_by(args: TrainingArguments) -> str:
    """The metric that chooses the best checkpoint, as events name it."""
    return args.metric_for_best_model or "eval_loss"


class EvaluationStopped(Exception):
    """A signal came while held-out rows were evaluated, or questions answered."""


class Stopper(TrainerCallback):
    """Ctrl-C, SIGTERM, SIGHUP: finish the step, save a checkpoint, stop; a second stops at once.

    An evaluation is broken off: it may take longer than anybody waits.

    Attributes:
        interrupted: Whether training stopped because of a signal.
        signal: What that signal raises elsewhere.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.interrupted = False
        self.signal = KeyboardInterrupt()
        self._signalled_at: float | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals while training runs; elsewhere they do what they always do."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only a main thread may handle signals; a notebook's worker has none to handle
            return
        signals = (signal.SIGINT, *ending_signals())
        before = {number: signal.signal(number, self._on_signal) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGHUP:
            leave_terminal()
            if self._signalled_at is not None:
                return  # its launcher ended of the first one; nobody asks a second time
        self.signal = stopped_by(number)
        if has_failed_peer():  # its launcher ends the others, and no step of theirs will be whole
            raise self.signal
        if self._signalled_at is None:
            self._signalled_at = now
            self.report.say(
                "Stopping after this step, with a checkpoint. Press Ctrl-C again to stop at once."
            )
        elif now - self._signalled_at > 1:  # launchers pass a terminal's Ctrl-C on a second time
            raise self.signal

    def break_off(self) -> None:
        """Stop what this process alone is doing, once it was told to.

        Raises:
            EvaluationStopped: After a signal.
        """
        if self._signalled_at is not None:
            raise EvaluationStopped

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._agreed(args) and state.global_step < state.max_steps:
            self.interrupted = True
            control.should_training_stop = True
            control.should_save = True

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._agreed(args):
            self.interrupted = True
            raise EvaluationStopped

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # The trainer ends the epoch when it stops inside one; only a whole epoch is evaluated.
        if self.interrupted and not epoch_is_whole(state):
            control.should_evaluate = False
            control.should_save = False

    def _agreed(self, args: TrainingArguments) -> bool:
        """Whether any process was told to stop; all of them must leave at the same step."""
        told = self._signalled_at is not None
        if args.world_size == 1:
            return told
        flags = nested_gather(torch.tensor(float(told), device=args.device), args.parallel_mode)
        return bool(flags.max() > 0)


def evaluation_is_due(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether a run goes on from a step after which it should have evaluated and was stopped."""
    if args.eval_strategy == IntervalStrategy.NO or not state.global_step:
        return False
    if args.eval_strategy == IntervalStrategy.STEPS:
        due = state.global_step % state.eval_steps == 0
    else:
        due = epoch_is_whole(state)
    return due and not was_logged(state, ["eval_loss"])


def was_logged(state: TrainerState, names: Iterable[str]) -> bool:
    """Whether the step that a run is at has an event with one of some metrics."""
    events = (event for event in state.log_history if event["step"] == state.global_step)
    return any(name in event for event in events for name in names)


def epoch_is_whole(state: TrainerState) -> bool:
    """Whether a run is between two epochs."""
    return abs((state.epoch or 0.0) - round(state.epoch or 0.0)) < 1e-6


class ChosenWatch(TrainerCallback):
    """Says, with the figure, when the chosen answers lose probability for long.

    Args:
        report: Where to say it.
        beta: Of the loss; TRL's rewards are log-ratios times beta.
        absolute: Whether rewards are log-probabilities themselves, as with ORPO, which has no
            reference; then the run's own first events are what it is compared with.
    """

    def __init__(self, report: Report, beta: float, *, absolute: bool = False) -> None:
        self._report = report
        self._beta = beta
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._start: float | None = None if absolute else 0.0
        self._said = _FALL

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "rewards/chosen" not in logs or not self._beta:
            return
        self._recent.append(logs["rewards/chosen"] / self._beta)
        if len(self._recent) < _WINDOW:
            return
        now = fmean(self._recent)
        if self._start is None:
            self._start = now
        fall = self._start - now
        if fall >= self._said:
            self._said = 2 * fall  # say it again only when it has become twice as bad
            self._report.say(
                f"The chosen answers have lost {fall:.1f} nats of log-probability on average over "
                f"the last {_WINDOW} log events: the model is unlearning them too. A smaller "
                "learning_rate, a larger beta or, with DPO, a term that learns them helps: "
                "training.loss_type=[sigmoid,sft] training.loss_weights=[1,0.2]",
                "yellow",
            )
