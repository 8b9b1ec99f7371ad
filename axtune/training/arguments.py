"""TRL's configuration of a run, from the recipe's ``training`` section."""

from __future__ import annotations

import difflib
import os
import shutil
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DynamoBackend
from huggingface_hub import get_token, is_offline_mode, whoami
from transformers import (
    TrainingArguments,
)
from transformers.integrations.integration_utils import (
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
)
from transformers.trainer_utils import HubStrategy, IntervalStrategy, SchedulerType
from transformers.training_args import OptimizerNames
from transformers.utils.generic import ExplicitEnum
from transformers.utils.import_utils import is_liger_kernel_available

from axtune.config.faults import bad_value, first_line, key_named, key_of, refused, type_faults
from axtune.config.limits import outside_limits
from axtune.config.objective import Objective, listed
from axtune.config.recipe import Recipe, best_figure
from axtune.errors import Fault
from axtune.model.load import Precision
from axtune.model.offload import activation_keys
from axtune.training.optimisation import try_out
from axtune.training.trainer import trainer_class
from axtune.training.trl_private import imported, is_trl, loss_names

_NAMES: dict[str, type[ExplicitEnum]] = {
    "optim": OptimizerNames,
    "lr_scheduler_type": SchedulerType,
    "logging_strategy": IntervalStrategy,
    "hub_strategy": HubStrategy,
}
_BACKENDS = [name.lower() for name in DynamoBackend.__members__ if name != "NO"]
# Of trackers, where pip knows them by another name.
_PACKAGES = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml", "kubeflow": "kubeflow-training"}

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


def training_arguments(recipe: Recipe, precision: Precision) -> TrainingArguments:
    """TRL's configuration from a recipe; sets up the process group of a distributed run.

    Args:
        recipe: Its ``training`` section passes by TRL's names.
        precision: As `axtune.model.load.choose_precision` decided.

    Raises:
        RecipeError: When a value is not of its type or within its limits, or the libraries refuse
            it, with its key: nothing but this machine and the recipe is looked at for that.
    """
    config = imported(*recipe.objective.config)
    given = {**_DEFAULTS, **_tracked(recipe), **recipe.training}
    several = typing.get_origin(typing.get_type_hints(config).get("loss_type")) is list
    if several and isinstance(given.get("loss_type"), str):  # one of them needs no brackets
        given["loss_type"] = [given["loss_type"]]
    faults = type_faults("training", config, given)
    faults += [
        bad_value(f"training.{key}", _no_such(given[key], kind))
        for key, kind in _NAMES.items()
        if given.get(key) is not None and given[key] not in list(kind)
    ]
    if given.get("ddp_backend") and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        message = "it is for several processes; start them with accelerate launch, or remove it."
        faults.append(bad_value("training.ddp_backend", message))
    named = {key_of(fault.message) for fault in faults}
    for name, message in outside_limits("training", recipe.training):
        if (key := f"training.{name}") not in named:
            faults.append(bad_value(key, message))
    if faults:
        raise refused(faults)
    cadence = given.pop("eval_strategy", "epoch")
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
        "remove_unused_columns": False,  # the collators take columns that TRL's do not know
        **recipe.objective.decided,
        **activation_keys(recipe.offload, on_gpu=on_gpu),
        **follow,
    }
    given.setdefault("dataloader_pin_memory", on_gpu)
    args: TrainingArguments
    try:
        args = config(**{**given, **ours})
        args.get_process_log_level()  # looks log_level up
    except Exception as error:  # whatever a library raises, it is a value that it refuses
        key = _culprit(config, recipe.training, error, ours)
        raise refused([bad_value(key, first_line(error))]) from error
    faults = [*_unknown_losses(recipe.objective, args), *_unavailable(args)]
    if faults := [*faults, *try_out(args, recipe.training)]:
        raise refused(faults)
    if precision == "fp32":
        args.mixed_precision = "no"  # whatever accelerate's own configuration says
    if figure := best_figure(recipe):
        # Told when it is made, transformers would ask its own evaluations for that figure.
        args.load_best_model_at_end, args.greater_is_better = True, True
        args.metric_for_best_model = f"eval_{figure}"
    if args.n_gpu > 1:
        # A process without a launcher takes the first card; TRL refuses nn.DataParallel.
        args._n_gpu = 1
    return args


def _tracked(recipe: Recipe) -> dict[str, Any]:
    """What trackers are told where the recipe is silent."""
    tracked: dict[str, Any] = {"run_name": Path(recipe.output_dir).name}
    if not recipe.training.get("trackio_space_id"):
        # Else a run that pushes its model would publish what trackio keeps on this machine as well.
        tracked["trackio_static_space_id"] = False
    return tracked


def _culprit(config: Any, given: dict[str, Any], error: Exception, ours: dict[str, Any]) -> str:
    """The key whose value the library refuses: the one it names, or that it refuses alone."""
    if (key := key_named(error, "training", given)) != "training":
        return key
    plain = {"output_dir": ours["output_dir"], "use_cpu": ours["use_cpu"], "bf16": False}
    for name, value in given.items():
        try:
            config(**{**plain, "report_to": "none", name: value})
        except Exception:  # of any kind, as above
            return f"training.{name}"
    return "training"


def _no_such(name: Any, kind: type[ExplicitEnum]) -> str:
    """What is wrong with a name that a library does not know: the names most like it, or all."""
    known = [one.value for one in kind]
    close = difflib.get_close_matches(str(name), known)
    hint = f"did you mean {listed(close, 'or')}?" if close else f"expected {listed(known, 'or')}."
    return f"there is no {name}; {hint}"


def _unknown_losses(objective: Objective, args: TrainingArguments) -> Iterator[Fault]:
    """TRL names its losses in its trainers' code alone, and refuses another one when it steps."""
    trl_trainer = next(one for one in trainer_class(objective).__mro__ if is_trl(one))
    for key in ("loss_type", "f_divergence_type"):
        known = loss_names(trl_trainer, key)
        given = getattr(args, key, None) or []
        for name in [given] if isinstance(given, str) else given:
            if known and name not in known:
                message = f"there is no {name}; expected {listed(known, 'or')}."
                yield bad_value(f"training.{key}", message)


def _unavailable(args: TrainingArguments) -> Iterator[Fault]:
    """What this machine lacks for the run."""
    trackers = args.report_to if isinstance(args.report_to, list) else []
    for name in trackers:
        try:
            get_reporting_integration_callbacks([name])
        except ValueError as error:
            yield bad_value("training.report_to", first_line(error))
            continue
        if name not in get_available_reporting_integrations():
            package = _PACKAGES.get(name, name)
            message = (
                f"the package of {name} is not installed: pip install {package}; or remove it."
            )
            yield bad_value("training.report_to", message)
    if args.use_liger_kernel and not is_liger_kernel_available():
        message = "the package liger-kernel is not installed; install it with pip, or remove it."
        yield bad_value("training.use_liger_kernel", message)
    if args.torch_compile and args.torch_compile_backend not in _BACKENDS:
        message = f"there is no {args.torch_compile_backend}; expected {listed(_BACKENDS, 'or')}."
        yield bad_value("training.torch_compile_backend", message)
    elif args.torch_compile and not _has_compiler():
        message = "it needs a C++ compiler: install g++ (such as build-essential), or remove it."
        yield bad_value("training.torch_compile", message)
    if args.push_to_hub and (reason := _no_hub()):
        yield bad_value("training.push_to_hub", reason)


def _has_compiler() -> bool:
    """Whether there is what torch compiles with."""
    named = os.environ.get("CXX" if not torch.cuda.is_available() else "CC")
    return any(map(shutil.which, filter(None, (named, "g++", "gcc", "c++", "clang++", "clang"))))


def _no_hub() -> str | None:
    """Why nothing can be pushed to the Hub."""
    if is_offline_mode():
        return "the Hub cannot be reached: HF_HUB_OFFLINE is set; unset it, or remove this key."
    if get_token() is None:
        return "there is no token of the Hub; log in with `hf auth login`, or remove this key."
    try:
        whoami()
    except Exception as error:  # of the network, of the Hub, of the token
        reason = first_line(error)
        return f"the Hub cannot be reached, or refuses the token: {reason} Or remove this key."
    return None
