"""What watches a run: its speed without the pauses, its signals, its best checkpoint."""

from __future__ import annotations

import io
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.tiny import LIBRARY_WARNINGS, recipe
from transformers import TrainerControl, TrainerState, TrainingArguments

from axtune.checkpoint.run_dir import RunDir
from axtune.signals import signal_of
from axtune.training.callbacks import (
    EvaluationStopped,
    Recorder,
    Stopper,
    evaluation_is_due,
)
from axtune.training.progress import Report

pytestmark = LIBRARY_WARNINGS


class Clock:
    """Time that passes when a test says so."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("axtune.training.callbacks.time", made)
    return made


@pytest.fixture
def args(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, report_to=[])


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "run", None)
    made.begin(recipe(tmp_path), {})
    return made


def report() -> Report:
    return Report(Console(file=io.StringIO(), width=200))


def state(step: int = 0, total: int = 10, **values: Any) -> TrainerState:
    return TrainerState(global_step=step, max_steps=total, **values)


def test_speed_is_of_training_alone(args: TrainingArguments, run_dir: RunDir, clock: Clock) -> None:
    recorder, control = Recorder(run_dir, report()), TrainerControl()
    recorder.on_train_begin(args, state(), control)
    clock.now += 10
    recorder.on_log(args, state(1), control, {"loss": 2.0, "num_tokens": 500})
    recorder.on_prediction_step(args, state(1), control)
    clock.now += 100
    recorder.on_prediction_step(args, state(1), control)  # the second batch of one evaluation
    clock.now += 100
    recorder.on_log(args, state(1), control, {"eval_loss": 1.5, "eval_num_tokens": 7})
    recorder.on_evaluate(args, state(1), control)
    clock.now += 5
    recorder.on_log(args, state(2), control, {"loss": 1.0, "num_tokens": 1000})
    recorder.on_log(args, state(3), control, {"train_runtime": 3.0})  # the trainer's last words
    assert run_dir.metrics() == [
        {"step": 1, "loss": 2.0, "tokens_per_second": 50.0},
        {"step": 1, "eval_loss": 1.5},
        {"step": 2, "loss": 1.0, "tokens_per_second": 100.0},
    ]
    assert (run_dir.path / "loss.png").is_file()


def test_figures_of_an_evaluation_are_recorded(args: TrainingArguments, run_dir: RunDir) -> None:
    recorder = Recorder(run_dir, report())
    recorder.on_log(args, state(1), TrainerControl(), {"eval_tool_accuracy": 0.5})
    assert run_dir.metrics() == [{"step": 1, "eval_tool_accuracy": 0.5}]


def test_a_task_that_counts_no_tokens_has_no_speed(
    args: TrainingArguments, run_dir: RunDir
) -> None:
    Recorder(run_dir, report()).on_log(args, state(1), TrainerControl(), {"loss": 2.0})
    assert run_dir.metrics() == [{"step": 1, "loss": 2.0}]


def test_only_the_first_process_writes(args: TrainingArguments, run_dir: RunDir) -> None:
    other = state(1, is_world_process_zero=False)
    recorder = Recorder(run_dir, report())
    recorder.on_log(args, other, TrainerControl(), {"loss": 2.0})
    recorder.on_evaluate(args, other, TrainerControl())
    assert run_dir.metrics() == []
    assert not (run_dir.path / "loss.png").exists()


def test_the_best_checkpoint_is_where_the_run_folder_is_now(
    args: TrainingArguments, run_dir: RunDir
) -> None:
    """A resumed run's state names the path of the machine it began on."""
    moved = state(4, best_global_step=2, best_model_checkpoint="/elsewhere/checkpoint-2")
    best = run_dir.checkpoints / "checkpoint-2"
    best.mkdir()
    Recorder(run_dir, report()).on_train_begin(args, moved, TrainerControl())
    assert moved.best_model_checkpoint == str(best)
    best.rmdir()
    Recorder(run_dir, report()).on_train_begin(args, moved, TrainerControl())
    assert moved.best_model_checkpoint is None


def test_a_signal_saves_and_stops_at_the_end_of_the_step(args: TrainingArguments) -> None:
    stopper, control = Stopper(report()), TrainerControl()
    stopper.on_step_end(args, state(1), control)
    assert not control.should_training_stop
    assert not control.should_save
    with stopper.watching():
        signal.raise_signal(signal.SIGTERM)
    stopper.on_step_end(args, state(2), control)
    assert control.should_training_stop
    assert control.should_save
    assert stopper.interrupted


def test_a_signal_in_the_last_step_interrupts_nothing(args: TrainingArguments) -> None:
    stopper, control = Stopper(report()), TrainerControl()
    with stopper.watching():
        signal.raise_signal(signal.SIGINT)
    stopper.on_step_end(args, state(10), control)
    assert not stopper.interrupted
    assert not control.should_training_stop


@pytest.mark.parametrize(("epoch", "evaluates"), [(0.5, False), (1.0, True)])
def test_an_epoch_that_was_broken_off_is_not_evaluated(
    epoch: float, evaluates: bool, args: TrainingArguments
) -> None:
    stopper = Stopper(report())
    stopper.interrupted = True
    control = TrainerControl(should_evaluate=True, should_save=True)
    stopper.on_epoch_end(args, state(3, epoch=epoch), control)
    assert (control.should_evaluate, control.should_save) == (evaluates, evaluates)


def test_a_signal_breaks_an_evaluation_off(args: TrainingArguments) -> None:
    stopper = Stopper(report())
    stopper.on_prediction_step(args, state(3), TrainerControl())
    with stopper.watching():
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(EvaluationStopped):
        stopper.on_prediction_step(args, state(3), TrainerControl())
    assert stopper.interrupted
    assert signal_of(stopper.signal) == signal.SIGTERM


@pytest.mark.parametrize(
    ("strategy", "step", "epoch", "evaluated", "due"),
    [
        ("steps", 6, 0.5, [3, 6], False),
        ("steps", 6, 0.5, [3], True),
        ("steps", 5, 0.5, [3], False),
        ("epoch", 6, 2.0, [3], True),
        ("epoch", 6, 2.0, [3, 6], False),
        ("epoch", 5, 1.7, [3], False),
        ("no", 6, 2.0, [], False),
        ("epoch", 0, 0.0, [], False),
    ],
)
def test_an_evaluation_that_was_broken_off_is_made_up_for(
    tmp_path: Path, strategy: str, step: int, epoch: float, evaluated: list[int], due: bool
) -> None:
    args = TrainingArguments(str(tmp_path), use_cpu=True, eval_strategy=strategy, eval_steps=3)
    history = [{"step": at, "eval_loss": 1.0} for at in evaluated] + [{"step": step, "loss": 1.0}]
    made = state(step, epoch=epoch, eval_steps=3, log_history=history)
    assert evaluation_is_due(args, made) is due
