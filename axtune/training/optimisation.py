"""The optimiser and the learning rates of a run: tried out before anything is loaded, then made.

The libraries look at their options when the first step is near, long after data and model have been
prepared. So the optimiser, the schedule and gradient checkpointing that a recipe asks for take a
step on one small layer first: what they refuse then is said with the key, and nothing was waited
for.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.checkpoint import checkpoint
from transformers import SchedulerType, Trainer
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, get_scheduler

from axtune.config.faults import bad_value, first_line, key_named, refused
from axtune.errors import Fault, RecipeError
from axtune.units import plural

# Some optimisers keep what they remember of fewer than 4,096 weights in another format.
_TRIED_ON = (64, 128)
_LOOKED_AT = 100_000  # learning rates of a very long run
_HIGHEST_SHARE = 1 + 1e-6  # of the learning rate, as floats have it
_LOW_PEAK = 0.5
_STILL = 0.05  # share of the steps that a schedule may leave at 0 without a word
_TRIED_STEPS = 100  # of a run whose epochs decide, before its data is known


def try_out(args: Any, given: dict[str, Any]) -> list[Fault]:
    """What optimiser, schedule and gradient checkpointing refuse when they take a step.

    Args:
        args: The run's TrainingArguments.
        given: The recipe's ``training`` section: a fault is of a key that stands there.
    """
    layer = torch.nn.Linear(*_TRIED_ON, bias=False).to(args.device)
    faults: list[Fault] = []

    def attempt(choice: str, options: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except RecipeError as error:
            faults.extend(error.faults)
        except Exception as error:  # whatever a library raises, it is an option that it refuses
            key = key_named(error, "training", given)
            if key == "training":
                key = f"training.{options if given.get(options) else choice}"
            faults.append(bad_value(key, first_line(error)))

    if args.learning_rate * args.weight_decay >= 1:
        message = (
            f"with learning_rate {args.learning_rate:g} a step would take weights away as a whole; "
            f"expected less than {1 / args.learning_rate:g}, such as 0.01."
        )
        faults.append(bad_value("training.weight_decay", message))
    optimizer = attempt("optim", "optim_args", lambda: _stepped(args, layer))
    if optimizer is not None:
        steps = args.max_steps if args.max_steps > 0 else _TRIED_STEPS
        scheduled = partial(schedule, args, optimizer, steps)
        attempt("lr_scheduler_type", "lr_scheduler_kwargs", scheduled)
    if args.gradient_checkpointing:
        checkpointed = partial(_checkpointed, args, layer)
        attempt("gradient_checkpointing", "gradient_checkpointing_kwargs", checkpointed)
    return faults


def _checkpointed(args: Any, layer: torch.nn.Linear) -> None:
    """A forward pass with the run's gradient checkpointing."""
    options = args.gradient_checkpointing_kwargs or {}
    known = {"preserve_rng_state", *inspect.signature(checkpoint).parameters}
    if unknown := sorted(options.keys() - known - {"function"}):
        message = f"torch's checkpointing has no option {' and no '.join(unknown)}; remove it."
        raise refused([bad_value("training.gradient_checkpointing_kwargs", message)])
    inputs = torch.zeros(1, _TRIED_ON[0], device=args.device)
    checkpoint(layer, inputs, **{"use_reentrant": False, **options})


def _stepped(args: Any, layer: Any) -> Optimizer:
    """The run's optimiser, after a step with a layer of its own."""
    parts = (args.optim_args or "").replace(" ", "").split(",")
    if args.optim_args and not all(re.fullmatch("[^=]+=[^=]+", part) for part in parts):
        message = "expected name=value, several of them with commas between."
        raise refused([bad_value("training.optim_args", message)])
    kind, options = Trainer.get_optimizer_cls_and_kwargs(args, layer)
    if unread := _unread(args, options):
        message = f"{args.optim.value} has no option {' and no '.join(unread)}; remove it."
        raise refused([bad_value("training.optim_args", message)])
    optimizer: Optimizer = kind(layer.parameters(), **options)
    layer(torch.ones(1, _TRIED_ON[0], device=args.device)).sum().backward()
    optimizer.step()
    return optimizer


def _unread(args: Any, options: dict[str, Any]) -> list[str]:
    """Names of ``optim_args`` that the optimiser is made without: transformers drops them."""
    if not args.optim_args:
        return []
    probe = copy.copy(args)

    def made_of(optim_args: str | None) -> Any:
        probe.optim_args = optim_args
        return Trainer.get_optimizer_cls_and_kwargs(probe)[1]

    plain = made_of(None)
    unread = []
    for name in (part.partition("=")[0].strip() for part in args.optim_args.split(",")):
        try:
            read = made_of(f"{name}=0.123") != plain
        except ValueError:  # read, as something else than this number
            read = True
        if not read:
            unread.append(name)
    return unread


def schedule(
    args: Any,
    optimizer: Optimizer,
    steps: int,
    say: Callable[[str], None] = lambda _: None,
) -> Any:
    """The learning rates of a run: transformers' own, but no step that is taken has rate 0.

    Its warm-up begins with a step at 0, which learns nothing, and may cover a short run as a whole.
    Here step s of w warm-up steps has the share (s + 1) / (w + 1) of the learning rate, which is
    reached at the same step, and what follows is as it was. A warm-up that would cover every step
    is limited to half of them.

    Args:
        args: The run's TrainingArguments.
        optimizer: Whose learning rates are set.
        steps: Of the run.
        say: Takes a line where the warm-up is shorter than the recipe says.

    Raises:
        RecipeError: When ``lr_scheduler_kwargs`` lack an option or have one too many; when a step
            would have a rate that is none, below 0 or above the learning rate; or all of them 0.
    """
    kind = SchedulerType(args.lr_scheduler_type)
    if faults := [*_option_faults(kind, args.lr_scheduler_kwargs or {})]:
        raise refused(faults)
    warmup = wanted = args.get_warmup_steps(steps)
    if "num_warmup_steps" not in _parameters(kind):
        warmup = 0
    elif warmup >= steps:
        warmup = steps // 2
        of_all = f"{warmup} of {plural(steps, 'step')}"
        say(f"Warm-up: {of_all} instead of {wanted}, which would be the whole run.")
    ahead = 1 if warmup else 0
    try:
        scheduler = get_scheduler(
            kind,
            optimizer,
            num_warmup_steps=warmup + ahead,
            num_training_steps=steps + ahead,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )
        if ahead:
            with warnings.catch_warnings():  # torch wants the optimiser to step first
                warnings.simplefilter("ignore")
                scheduler.step()
        if isinstance(scheduler, LambdaLR):
            _check_shares(scheduler, range(ahead, ahead + steps), args, say)
        highest = max(getattr(scheduler, "max_lrs", ()), default=0)
        if highest > args.learning_rate:
            say(f"{kind.value} may raise the learning rate to {highest:g}: its option max_lr.")
    except (ArithmeticError, TypeError, ValueError) as error:
        message = f"the schedule cannot be computed: {first_line(error)}"
        raise refused([bad_value(_key(args), message)]) from error
    return scheduler


def go_on(scheduler: Any, optimizer: Optimizer, say: Callable[[str], None]) -> None:
    """Let a resumed run take the rates of its own schedule, from its next step on.

    Of a run that is longer or shorter than it was, the schedule is another one, and the rate that
    was saved for the next step is not of it: after a whole decay it would be 0.

    Args:
        scheduler: Of `schedule`, with the state of the run that is gone on with.
        optimizer: With that run's state.
        say: Takes a line where the rate leaps.
    """
    if not isinstance(scheduler, LambdaLR):
        return  # which goes by the eval loss, however long the run is
    before, step = scheduler.get_last_lr(), scheduler.last_epoch
    now = [
        base * share(step)
        for base, share in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    if all(math.isclose(one, other, rel_tol=1e-6) for one, other in zip(before, now, strict=True)):
        return
    for group, rate in zip(optimizer.param_groups, now, strict=True):
        group["lr"] = rate
    scheduler._last_lr = now
    say(
        f"This run is longer or shorter than it was, and so is its schedule: the learning rate "
        f"goes on with {now[0]:.3g}, where it had come to {before[0]:.3g}. resume=fork begins a "
        "schedule anew."
    )


def _check_shares(scheduler: LambdaLR, steps: range, args: Any, say: Callable[[str], None]) -> None:
    """Look at the whole schedule: what each step has of the learning rate, and what stands last.

    Args:
        scheduler: Of the run.
        steps: Those that are taken, as the schedule counts them; one more is computed by torch.
        args: The run's TrainingArguments.
        say: Takes a line where a schedule learns little.

    Raises:
        RecipeError: When a share cannot be, or all of them are 0.
    """
    share, rate = scheduler.lr_lambdas[0], args.learning_rate
    looked_at = steps[:: max(1, len(steps) // _LOOKED_AT)]
    shares = []
    for step in (*looked_at, steps.stop):
        one = share(step)
        if isinstance(one, complex) or not math.isfinite(one) or one < 0 or one > _HIGHEST_SHARE:
            found = f"{one * rate:.3g}" if isinstance(one, (int, float)) else "no number"
            when = f"{step - steps.start} of {plural(len(steps), 'step')}"
            message = (
                f"the learning rate would be {found} after {when}; expected 0 to "
                f"training.learning_rate, which is {rate:.3g}."
            )
            raise refused([bad_value(_key(args), message)])
        shares.append(one)
    peak, still = max(shares[:-1]), shares[:-1].count(0) / len(looked_at)
    if not peak > 0:
        message = f"no step of this run ({len(steps)}) would have a learning rate above 0."
        raise refused([bad_value("training.lr_scheduler_type", message)])
    if peak < _LOW_PEAK:
        say(f"The learning rate reaches only {peak:.1%} of training.learning_rate.")
    if still > _STILL:
        say(f"The learning rate is 0 in {still:.0%} of the steps, which learn nothing.")


def _key(args: Any) -> str:
    """The key that decides how a schedule goes: that of its options, where it has some."""
    return f"training.lr_scheduler_{'kwargs' if args.lr_scheduler_kwargs else 'type'}"


def _option_faults(kind: SchedulerType, options: dict[str, Any]) -> Iterator[Fault]:
    """Options that a schedule needs and lacks, does not know, or that are below zero."""
    for name, value in options.items():
        if isinstance(value, (int, float)) and value < 0:
            message = f"{name} is {value}; expected 0 or more."
            yield bad_value("training.lr_scheduler_kwargs", message)
    parameters = _parameters(kind)
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return  # torch's own schedules, which say themselves what they do not know
    ours = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    known = {name: one for name, one in parameters.items() if name not in ours}
    lacking = [n for n, one in known.items() if one.default is one.empty and n not in options]
    if lacking:
        message = f"{kind.value} needs {' and '.join(lacking)} in training.lr_scheduler_kwargs."
        yield bad_value("training.lr_scheduler_type", message)
    for name in options:
        if name not in known:
            takes = ", ".join(known) or "no options"
            message = f"{kind.value} has no option {name}; it takes {takes}."
            yield bad_value("training.lr_scheduler_kwargs", message)


def _parameters(kind: SchedulerType) -> Mapping[str, inspect.Parameter]:
    """What the function takes that makes a schedule."""
    function: Any = TYPE_TO_SCHEDULER_FUNCTION[kind]
    return inspect.signature(function).parameters
