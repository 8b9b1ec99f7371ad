"""TRL's configuration of a run, from the recipe's ``training`` section."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import torch
from transformers import (
    TrainingArguments,
)

from axtune.config.faults import bad_value, first_line, key_named, refused, type_faults
from axtune.config.recipe import Recipe
from axtune.model.load import Precision
from axtune.training.trl_private import imported

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


def training_arguments(recipe: Recipe, precision: Precision) -> TrainingArguments:
    """TRL's configuration from a recipe; sets up the process group of a distributed run.

    Args:
        recipe: Its ``training`` section passes by TRL's names.
        precision: As `axtune.model.load.choose_precision` decided.

    Raises:
        RecipeError: When a value is not of its type or the libraries refuse it, with its key.
    """
    config = imported(*recipe.objective.config)
    given = {**_DEFAULTS, **recipe.training}
    several = typing.get_origin(typing.get_type_hints(config).get("loss_type")) is list
    if several and isinstance(given.get("loss_type"), str):  # one of them needs no brackets
        given["loss_type"] = [given["loss_type"]]
    faults = type_faults("training", config, given)
    cadence = str(given.pop("eval_strategy", "epoch"))
    if cadence not in _CADENCES:
        faults.append(bad_value("training.eval_strategy", f"{cadence}; expected epoch or steps."))
    for name in _COUNTS:
        if isinstance(given.get(name), (int, float)) and given[name] <= 0:
            faults.append(
                bad_value(f"training.{name}", f"{given[name]}; expected a number above 0.")
            )
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
        "remove_unused_columns": False,  # the collators take columns that TRL's do not know
        **recipe.objective.decided,
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
