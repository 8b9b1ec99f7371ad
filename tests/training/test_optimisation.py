"""Optimiser and schedule: tried out on a layer, and no step at learning rate 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import LIBRARY_WARNINGS
from transformers import SchedulerType, TrainingArguments
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from axtune.errors import RecipeError
from axtune.training.optimisation import schedule, try_out

pytestmark = LIBRARY_WARNINGS

# What some schedules cannot do without.
OPTIONS: dict[str, dict[str, Any]] = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 1},
}
BY_STEP = [
    kind.value for kind in SchedulerType if kind.value not in ("reduce_lr_on_plateau", "greedy")
]


def arguments(**options: Any) -> TrainingArguments:
    return TrainingArguments(
        output_dir="unused", use_cpu=True, report_to="none", learning_rate=1.0, **options
    )


def rates(args: TrainingArguments, steps: int, said: list[str] | None = None) -> list[float]:
    """The learning rate of every step of a run."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    scheduler = schedule(args, optimizer, steps, (said if said is not None else []).append)
    taken = []
    for _ in range(steps):
        taken.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return taken


@pytest.mark.parametrize("kind", BY_STEP)
@given(steps=st.integers(1, 40), warmup=st.sampled_from([0, 0.03, 0.1, 0.5, 0.9, 1, 2, 5, 100]))
def test_no_step_that_is_taken_has_learning_rate_0(kind: str, steps: int, warmup: float) -> None:
    args = arguments(
        lr_scheduler_type=kind, warmup_steps=warmup, lr_scheduler_kwargs=OPTIONS.get(kind)
    )
    taken = rates(args, steps)
    assert min(taken) > 0
    wanted = args.get_warmup_steps(steps)
    if "warmup" in kind or kind in ("linear", "cosine", "polynomial", "inverse_sqrt"):
        assert max(taken) > 0.09
    if kind == "linear" and wanted < steps:
        assert max(taken) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["linear", "cosine", "cosine_with_restarts", "polynomial",
                                  "constant_with_warmup", "cosine_with_min_lr"])  # fmt: skip
def test_after_the_warm_up_it_is_the_libraries_own(kind: str) -> None:
    options = OPTIONS.get(kind)
    args = arguments(lr_scheduler_type=kind, warmup_steps=3, lr_scheduler_kwargs=options)
    plain = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = {"num_warmup_steps": 3, "num_training_steps": 10, **(options or {})}
    if kind == "constant_with_warmup":
        theirs.pop("num_training_steps")
    scheduler = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(kind)](plain, **theirs)
    expected = []
    for _ in range(10):
        expected.append(float(plain.param_groups[0]["lr"]))
        plain.step()
        scheduler.step()
    taken = rates(args, 10)
    assert expected[0] == 0  # what this is about
    assert taken[:3] == pytest.approx([1 / 4, 2 / 4, 3 / 4])
    assert taken[3:] == pytest.approx(expected[3:])


def test_without_warm_up_nothing_is_shifted() -> None:
    taken = rates(arguments(lr_scheduler_type="linear", warmup_steps=0), 4)
    assert taken == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])


@pytest.mark.parametrize(
    ("steps", "warmup", "line"),
    [
        (1, 0.1, "Warm-up: 0 of 1 step instead of 1, which would be the whole run."),
        (20, 100, "Warm-up: 10 of 20 steps instead of 100, which would be the whole run."),
    ],
)
def test_a_warm_up_of_the_whole_run_is_limited_and_said(
    steps: int, warmup: float, line: str
) -> None:
    said: list[str] = []
    taken = rates(arguments(lr_scheduler_type="cosine", warmup_steps=warmup), steps, said)
    assert said == [line]
    assert max(taken) == pytest.approx(1)


def test_a_schedule_goes_on_where_it_was_saved() -> None:
    args = arguments(lr_scheduler_type="cosine", warmup_steps=2)
    whole = rates(args, 8)

    def made() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return optimizer, schedule(args, optimizer, 8)

    first, scheduler = made()
    for _ in range(3):
        first.step()
        scheduler.step()
    second, resumed = made()
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert second.param_groups[0]["lr"] == pytest.approx(whole[3])
    second.step()
    resumed.step()
    assert second.param_groups[0]["lr"] == pytest.approx(whole[4])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"lr_scheduler_type": "warmup_stable_decay"},
            "warmup_stable_decay needs num_decay_steps in training.lr_scheduler_kwargs",
        ),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"cycles": 2}},
            "training.lr_scheduler_kwargs: cosine has no option cycles; it takes num_cycles",
        ),
        (
            {"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"x": 2}},
            "constant has no option x; it takes no options",
        ),
        (
            {
                "lr_scheduler_type": "cosine_warmup_with_min_lr",
                "lr_scheduler_kwargs": {"min_lr": 0},
            },
            "no step of this run (1) would have a learning rate above 0",
        ),
    ],
    ids=str,
)
def test_options_that_a_schedule_lacks_or_does_not_know(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        rates(arguments(**options), 1)
    assert said in str(caught.value)


def test_a_peak_far_below_the_learning_rate_is_said() -> None:
    said: list[str] = []
    options = {"num_decay_steps": 100, "decay_type": "linear"}
    args = arguments(lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs=options)
    assert max(rates(args, 2, said)) < 0.05
    assert said == ["The learning rate reaches only 2.0% of training.learning_rate."]


@pytest.mark.parametrize(
    ("training", "key", "said"),
    [
        ({"optim_args": "abc"}, "training.optim_args", "expected name=value"),
        ({"optim_args": "rank=3"}, "training.optim_args", "has no option rank"),
        ({"optim": "sgd", "optim_args": "momentum=x"}, "training.optim_args", "'x'"),
        ({"optim": "adamw_torch_xla"}, "training.optim", "torch_xla"),
        (
            {"lr_scheduler_type": "cosine_with_min_lr"},
            "training.lr_scheduler_type",
            "lr_scheduler_kwargs",
        ),
        ({"lr_scheduler_kwargs": {"last_epoch": 3}}, "training.lr_scheduler_kwargs", "no option"),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "abc"}},
            "training.lr_scheduler_kwargs",
            "abc",
        ),
        (
            {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"x": 1}},
            "training.gradient_checkpointing_kwargs",
            "no option x",
        ),
    ],
    ids=str,
)
def test_what_the_libraries_refuse_is_known_before_anything_is_loaded(
    training: dict[str, Any], key: str, said: str
) -> None:
    (fault,) = try_out(arguments(**training), training)
    assert fault.message.startswith(f"{key}: ")
    assert said in fault.message


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"optim": "sgd", "optim_args": "momentum=0.9, nesterov=true"},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
    ],
    ids=str,
)
def test_what_can_be_run(training: dict[str, Any], tmp_path: Path) -> None:
    assert try_out(arguments(**training), training) == []
