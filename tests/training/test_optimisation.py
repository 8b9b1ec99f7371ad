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
from axtune.training.optimisation import go_on, schedule, try_out

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
    ("kind", "length", "rates_of_both"),
    [
        ("linear", 10, ("0.6", "0")),  # a finished run, made longer
        ("cosine", 8, ("0.5", "0")),
        ("linear", 4, None),
        ("constant", 9, None),
    ],
)
def test_a_run_of_another_length_goes_on_with_its_own_rates_and_says_so(
    kind: str, length: int, rates_of_both: tuple[str, str] | None
) -> None:
    args = arguments(lr_scheduler_type=kind)

    def made(steps: int) -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return optimizer, schedule(args, optimizer, steps)

    first, scheduler = made(4)
    for _ in range(4):
        first.step()
        scheduler.step()
    second, resumed = made(length)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    said: list[str] = []
    go_on(resumed, second, said.append)
    whole = rates(args, length)
    taken = []
    for _ in range(length - 4):
        taken.append(second.param_groups[0]["lr"])
        second.step()
        resumed.step()
    assert taken == pytest.approx(whole[4:])
    if rates_of_both is None:
        assert said == []
    else:
        (line,) = said
        now, before = rates_of_both
        assert f"goes on with {now}, where it had come to {before}." in line


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


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("polynomial", {"power": -3}, "power is -3; expected 0 or more"),
        ("polynomial", {"lr_end": -0.1}, "lr_end is -0.1"),
        ("cosine_with_min_lr", {"min_lr": 7.0}, "expected 0 to training.learning_rate, "),
        ("cosine_with_min_lr", {"min_lr": -1.0}, "min_lr is -1.0; expected 0 or more"),
        ("cosine_with_min_lr", {"min_lr_rate": 5}, "training.learning_rate, which is 1."),
        ("cosine_warmup_with_min_lr", {"min_lr_rate": 3}, "learning rate would be"),
        ("warmup_stable_decay", {"num_decay_steps": 3, "min_lr_ratio": 3}, "expected 0 to"),
        ("warmup_stable_decay", {"num_decay_steps": -3}, "num_decay_steps is -3"),
        ("inverse_sqrt", {"timescale": 0}, "zero"),
        ("cosine", {"num_cycles": 1e400}, "cannot be computed: math domain error."),
        ("reduce_lr_on_plateau", {"patience": -1}, "patience is -1"),
    ],
    ids=str,
)
@pytest.mark.parametrize("warmup", [0, 3])
def test_a_rate_out_of_sense_is_refused_before_the_first_step(
    kind: str, options: dict[str, Any], said: str, warmup: int
) -> None:
    args = arguments(
        lr_scheduler_type=kind,
        lr_scheduler_kwargs=options,
        warmup_steps=warmup,
        eval_strategy="epoch",  # which some schedules follow
    )
    with pytest.raises(RecipeError) as caught:
        rates(args, 30)
    (fault,) = caught.value.faults
    assert fault.message.startswith("training.lr_scheduler_kwargs: ")
    assert said in fault.message
    assert try_out(args, {"lr_scheduler_kwargs": options})[0].message.startswith(
        "training.lr_scheduler_kwargs: "
    )


@given(
    kind=st.sampled_from(BY_STEP),
    options=st.dictionaries(
        st.sampled_from(
            ["num_cycles", "power", "lr_end", "min_lr", "min_lr_rate", "timescale",
             "num_decay_steps", "num_stable_steps", "min_lr_ratio", "warmup_lr_rate"]
        ),
        st.integers(-3, 9) | st.floats(-2, 2) | st.sampled_from([0, 1e-300, 1e300]),
    ),
    steps=st.integers(1, 30),
    warmup=st.integers(0, 4),
)  # fmt: skip
def test_whatever_is_run_has_rates_of_sense(
    kind: str, options: dict[str, Any], steps: int, warmup: int
) -> None:
    args = arguments(lr_scheduler_type=kind, lr_scheduler_kwargs=options, warmup_steps=warmup)
    try:
        taken = rates(args, steps)
    except RecipeError:
        return
    assert all(0 <= rate <= 1.001 for rate in taken)
    assert max(taken) > 0


def test_steps_that_learn_nothing_are_said() -> None:
    said: list[str] = []
    options = {"num_decay_steps": 10, "num_stable_steps": 10}
    args = arguments(lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs=options)
    rates(args, 40, said)
    assert said == ["The learning rate is 0 in 50% of the steps, which learn nothing."]


def test_a_schedule_that_may_rise_above_the_learning_rate_is_said() -> None:
    said: list[str] = []
    options = {"max_lr": 3}
    args = arguments(lr_scheduler_type="greedy", lr_scheduler_kwargs=options, eval_strategy="epoch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    schedule(args, optimizer, 5, said.append)
    assert said == ["greedy may raise the learning rate to 3: its option max_lr."]


def test_a_peak_far_below_the_learning_rate_is_said() -> None:
    said: list[str] = []
    options = {"num_decay_steps": 100, "decay_type": "linear"}
    args = arguments(lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs=options)
    assert max(rates(args, 2, said)) < 0.05
    assert said == ["The learning rate reaches only 2.0% of training.learning_rate."]


@pytest.mark.parametrize(
    ("training", "key", "said"),
    [
        ({"weight_decay": 1e10}, "training.weight_decay", "expected less than 1, such as 0.01"),
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
