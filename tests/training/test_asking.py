"""When questions are asked, and what becomes of the figures."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.supervised import trainer
from support.tiny import LIBRARY_WARNINGS, checkpoint, write_rows
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from axtune.config.recipe import EvaluateConfig
from axtune.training.asking import Asking, was_asked

pytestmark = LIBRARY_WARNINGS


def asked_at(every: Any, steps: int = 7, a_epoch: int = 3, **stopper: Any) -> list[int]:
    """The steps at which a run asks."""
    interrupted = SimpleNamespace(interrupted=False, **stopper)
    asking = Asking(EvaluateConfig(every=every), interrupted, loss_due=False)  # type: ignore[arg-type]
    args, found = TrainingArguments("out", use_cpu=True, report_to=[]), []
    for step in range(1, steps + 1):
        state = TrainerState(global_step=step, max_steps=steps, epoch=step / a_epoch)
        for event in (asking.on_step_end, asking.on_epoch_end):
            if event == asking.on_epoch_end and step % a_epoch and step < steps:
                continue
            control = TrainerControl()
            event(args, state, control)
            if control.should_evaluate:
                assert asking.is_due(state, control)
                assert not asking.loss_due
                assert not control.should_save
                found.append(step)
    return found


@pytest.mark.parametrize(
    ("every", "steps"), [("epoch", [3, 6, 7]), ("end", [7]), (2, [2, 4, 6, 7]), (7, [7])]
)
def test_questions_are_asked_as_often_as_the_recipe_says(every: Any, steps: list[int]) -> None:
    assert asked_at(every) == steps


def test_the_loss_is_due_where_the_trainer_says_so_alone() -> None:
    asking = Asking(EvaluateConfig(every=2, best="exact"), SimpleNamespace(), loss_due=True)  # type: ignore[arg-type]
    args, state = TrainingArguments("out", use_cpu=True, report_to=[]), TrainerState(max_steps=9)
    assert asking.is_due(state, TrainerControl())  # training.eval_on_start
    for step, evaluates in ((1, False), (2, False), (3, True), (4, True)):
        state.global_step = step
        control = TrainerControl(should_evaluate=evaluates)
        asking.on_step_end(args, state, control)
        assert asking.loss_due == evaluates
        assert asking.is_due(state, control) == (step % 2 == 0)
        assert control.should_save == (step % 2 == 0)  # it may be the best one


def test_a_run_that_stops_early_asks_at_its_end() -> None:
    stopper = SimpleNamespace(interrupted=False)
    asking = Asking(EvaluateConfig(every="end"), stopper, loss_due=True)  # type: ignore[arg-type]
    state = TrainerState(global_step=4, max_steps=9)
    asking.on_step_end(TrainingArguments("out", use_cpu=True, report_to=[]), state, control())
    assert not asking.is_due(state, control())
    assert asking.is_due(state, control(should_training_stop=True))
    stopper.interrupted = True
    assert not asking.is_due(state, control(should_training_stop=True))
    stopper.interrupted = False
    state.log_history.append({"step": 4, "eval_chrf": 1.0})
    assert was_asked(state)
    assert not asking.is_due(state, control(should_training_stop=True))


def control(**flags: bool) -> TrainerControl:
    return TrainerControl(**flags)


class Marks:
    """Questions whose answers are worth what a test says."""

    files = 1
    prompt_tokens = 5

    def __init__(self, *marks: float) -> None:
        self.left_out: dict[str, int] = {}
        self.personal_data: dict[str, int] = {}
        self.marks = iter(marks)
        self.modes: list[bool] = []

    def __len__(self) -> int:
        return 3

    def answers(self, model: Any, numbers: Sequence[int]) -> Iterator[Mapping[int, Any]]:
        self.modes.append(model.training)
        torch.rand(100)  # whatever an answer draws, the next step draws what it would have
        for number in numbers:
            model(torch.tensor([[5, 6]]))
            yield {number: "네"}

    def figures(self, answers: Mapping[int, Any]) -> dict[str, float]:
        assert sorted(answers) == [0, 1, 2]
        return {"tool_accuracy": next(self.marks)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoint(tmp_path_factory.mktemp("base") / "model")


def run(base: Any, folder: Path, questions: Marks | None, **changes: Any) -> Any:
    folder.mkdir(exist_ok=True)
    write_rows(folder / "rows.jsonl", 16)
    made = trainer(
        base, folder, questions=questions, output=io.StringIO(),
        lora={"lora_dropout": 0.2, **changes.pop("lora", {})}, **changes,
    )  # fmt: skip
    made.train()
    return made


def weights(made: Any) -> dict[str, torch.Tensor]:
    return {
        name: p.detach().clone() for name, p in made.model.named_parameters() if p.requires_grad
    }


def test_the_best_answers_choose_the_checkpoint_and_end_the_run(base: Any, tmp_path: Path) -> None:
    marks = Marks(0.1, 0.6, 0.6, 0.5, 0.9)
    made = run(
        base, tmp_path, marks, evaluate={"every": 1, "best": "tool_accuracy", "data": "q.jsonl"},
        early_stopping_patience=2, training={"max_steps": 8, "save_total_limit": 2},
    )  # fmt: skip
    assert made.state.global_step == 4  # two after the best one
    assert made.state.best_global_step == 2
    assert made.state.best_metric == 0.6
    assert marks.modes == [False] * 4
    events = made.run.run_dir.metrics()
    assert [(e["step"], e["eval_tool_accuracy"]) for e in events if "eval_tool_accuracy" in e] == [
        (1, 0.1), (2, 0.6), (3, 0.6), (4, 0.5)
    ]  # fmt: skip
    assert all("mean_token_accuracy" in event for event in events if "loss" in event)
    assert sorted(path.name for path in made.run.run_dir.checkpoints.iterdir()) == [
        "checkpoint-2", "checkpoint-4",
    ]  # fmt: skip


def test_what_the_base_answers_is_not_the_best_checkpoint(base: Any, tmp_path: Path) -> None:
    marks = Marks(0.9, 0.2, 0.3, 0.3)
    made = run(
        base, tmp_path, marks, evaluate={"every": 1, "best": "tool_accuracy", "data": "q.jsonl"},
        early_stopping_patience=1, training={"max_steps": 8, "eval_on_start": True},
    )  # fmt: skip
    assert made.state.best_global_step == 2
    assert made.state.global_step == 3  # one after the best one


def test_the_loss_of_the_base_does_not_count_where_questions_are_asked(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter((1.0, 3.0, 2.0, 2.5))  # the base's is the lowest
    monkeypatch.setattr(
        Trainer, "evaluation_loop",
        lambda self, *_, **__: EvalLoopOutput([], None, {"eval_loss": next(losses)}, 1),
    )  # fmt: skip
    made = run(
        base, tmp_path, Marks(0.5, 0.5), data={"eval": 0.25}, early_stopping_patience=1,
        evaluate={"every": "end", "data": "q.jsonl"},
        training={"max_steps": 9, "eval_on_start": True, "eval_strategy": "steps", "eval_steps": 1},
    )  # fmt: skip
    assert made.state.global_step == 3
    assert (made.state.best_global_step, made.state.best_metric) == (2, 2.0)


def gone_on(base: Any, made: Any, step: int, folder: Path, marks: Any, **changes: Any) -> Any:
    """A run that goes on from one of another's checkpoints."""
    again = trainer(base, folder, questions=marks, output_dir=str(folder / "again"), **changes)
    name = f"checkpoint-{step}"
    shutil.copytree(made.run.run_dir.checkpoints / name, again.run.run_dir.checkpoints / name)
    again.train(resume_from_checkpoint=str(again.run.run_dir.checkpoints / name))
    return again


def test_a_resumed_run_does_not_judge_its_step_twice(base: Any, tmp_path: Path) -> None:
    changes = {
        "evaluate": {"every": 1, "best": "tool_accuracy", "data": "q.jsonl"},
        "early_stopping_patience": 1, "training": {"max_steps": 4, "eval_on_start": True},
    }  # fmt: skip
    made = run(base, tmp_path, Marks(0.1, 0.2, 0.3, 0.4, 0.5), **changes)
    again = gone_on(base, made, 3, tmp_path, Marks(0.5), **changes)
    figures = [event for event in again.run.run_dir.metrics() if "eval_tool_accuracy" in event]
    assert [event["step"] for event in figures] == [4]


def test_a_run_that_has_made_its_last_step_makes_no_further_one(base: Any, tmp_path: Path) -> None:
    changes = {
        "training": {"max_steps": 2, "lr_scheduler_type": "constant", "eval_strategy": "steps",
                     "eval_steps": 1},
        "data": {"eval": 0.25},
    }  # fmt: skip
    made = run(base, tmp_path, None, **changes)
    wanted = weights(made)
    again = gone_on(base, made, 2, tmp_path, None, **changes)
    assert again.state.global_step == 2
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights(again).items())


@pytest.mark.parametrize("step", [3, 4])
def test_patience_is_not_had_anew(base: Any, tmp_path: Path, step: int) -> None:
    changes = {
        "evaluate": {"every": 1, "best": "tool_accuracy", "data": "q.jsonl"},
        "early_stopping_patience": 2,
        "training": {"max_steps": 8, "save_total_limit": 4},
    }  # fmt: skip
    made = run(base, tmp_path, Marks(0.1, 0.6, 0.6, 0.5), **changes)
    again = gone_on(base, made, step, tmp_path, Marks(0.5, 0.4, 0.3), **changes)
    assert made.state.global_step == again.state.global_step == 4


def test_steps_are_those_of_a_run_that_asks_nothing(base: Any, tmp_path: Path) -> None:
    packed = {"packing": True, "eval": 0.25}
    silent = run(base, tmp_path / "silent", None, data=packed)
    asking = run(base, tmp_path / "asking", Marks(0.1, 0.2, 0.3, 0.4), data=packed,
                 evaluate={"every": 1})  # fmt: skip
    found = weights(asking)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights(silent).items())
    losses = [
        [event[name] for event in made.run.run_dir.metrics() if name in event]
        for made in (silent, asking)
        for name in ("loss", "eval_loss")
    ]
    assert losses[:2] == losses[2:]
    assert len(losses[0]) == 4


def test_a_signal_ends_the_answers_and_a_resumed_run_asks_first(base: Any, tmp_path: Path) -> None:
    class Signalled(Marks):
        def answers(self, model: Any, numbers: Sequence[int]) -> Iterator[Mapping[int, Any]]:
            for batch in super().answers(model, numbers):
                yield batch
                made[0].stopper._on_signal(2, None)

    made: list[Any] = []
    section = {"every": 2, "best": "tool_accuracy", "data": "q.jsonl"}
    write_rows(tmp_path / "rows.jsonl", 16)
    made.append(trainer(base, tmp_path, questions=Signalled(0.5), evaluate=section))
    with pytest.raises(KeyboardInterrupt):
        made[0].train()
    assert made[0].stopper.interrupted
    (saved,) = made[0].run.run_dir.checkpoints.iterdir()
    assert saved.name == "checkpoint-2"

    again = trainer(
        base, tmp_path, questions=Marks(0.7, 0.6), evaluate=section,
        output_dir=str(tmp_path / "again"),
    )  # fmt: skip
    whole = shutil.copytree(saved, again.run.run_dir.checkpoints / saved.name)
    again.train(resume_from_checkpoint=str(whole))
    events = again.run.run_dir.metrics()
    figures = [(e["step"], e["eval_tool_accuracy"]) for e in events if "eval_tool_accuracy" in e]
    assert figures == [(2, 0.7), (4, 0.6)]
    assert again.state.best_global_step == 2
