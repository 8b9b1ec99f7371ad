"""What the passed sections can be run with: the numbers, and the keys that need other keys.

The libraries' own configurations let most of this pass, and fail hours later or never: a negative
weight decay trains, a label smoothing of a half teaches nothing. Imports no torch, so that a plan
and a run say the same, at the line of the key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from axtune.config.faults import in_words
from axtune.config.objective import OBJECTIVES
from axtune.units import plural

_Decay = Annotated[float, Field(ge=0, lt=1)]  # of a moving average
_Count = Annotated[int, Field(gt=0, le=1_000_000)]
_Workers = Annotated[int, Field(ge=0, le=128)]  # each is a process
_Share = Annotated[float, Field(ge=0, le=1)]
_EpochsDecide = Literal[-1]  # the libraries' way to say that epochs decide
_LogLevel = Literal["detail", "debug", "info", "warning", "error", "critical", "passive"]


def _vanishing_below(least: float) -> AfterValidator:
    """Refuse what is above 0 and changes no weight all the same."""

    def check(value: float) -> float:
        if 0 < value < least:
            message = f"{least:g} or more: with so small a one no step changes a weight"
            raise PydanticCustomError("vanishing", "{message}", {"message": message})
        return value

    return AfterValidator(check)


def _some_weight(values: list[float]) -> list[float]:
    if not any(values):
        raise PydanticCustomError("no_weight", "a weight above 0: with none nothing is learned")
    return values


def _compiles(value: Any) -> Any:
    patterns = [value] if isinstance(value, str) else value if isinstance(value, dict) else ()
    for pattern in patterns:
        try:
            re.compile(str(pattern))
        except (re.error, RecursionError, OverflowError):
            raise PydanticCustomError("pattern", "a regular expression") from None
    return value


_PATTERNS = AfterValidator(_compiles)


class _Limits(BaseModel):
    """Values of a library's options that a run can be made with."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _Lora(_Limits):
    r: PositiveInt | None = None
    lora_alpha: PositiveFloat | None = None
    # Of a layer whose alpha is 0 nothing is learned; below 0 it would be the contrary.
    alpha_pattern: Annotated[dict[str, PositiveFloat], _PATTERNS] | None = None
    rank_pattern: Annotated[dict[str, PositiveInt], _PATTERNS] | None = None
    target_modules: Annotated[Any, _PATTERNS] = None
    exclude_modules: Annotated[Any, _PATTERNS] = None
    lora_dropout: _Decay | None = None


class _Quantization(_Limits):
    bnb_4bit_quant_type: Literal["nf4", "fp4"] | None = None


class _Training(_Limits):
    learning_rate: Annotated[PositiveFloat, _vanishing_below(1e-10)] | None = None
    weight_decay: NonNegativeFloat | None = None
    adam_beta1: _Decay | None = None
    adam_beta2: _Decay | None = None
    adam_epsilon: _Share | None = None  # far above a gradient it stills every step
    max_grad_norm: Annotated[NonNegativeFloat, _vanishing_below(1e-8)] | None = None
    warmup_steps: NonNegativeFloat | None = None
    label_smoothing_factor: _Decay | None = None
    neftune_noise_alpha: NonNegativeFloat | None = None

    per_device_train_batch_size: _Count | None = None
    per_device_eval_batch_size: _Count | None = None
    gradient_accumulation_steps: _Count | None = None
    num_train_epochs: Annotated[PositiveFloat, Field(le=1e6)] | None = None
    max_steps: Annotated[PositiveInt, Field(le=10**9)] | _EpochsDecide | None = None
    eval_steps: PositiveFloat | None = None
    eval_delay: NonNegativeFloat | None = None
    eval_accumulation_steps: PositiveInt | None = None
    logging_steps: PositiveFloat | None = None
    save_total_limit: PositiveInt | None = None

    eval_strategy: Literal["epoch", "steps", "no"] | None = None
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] | None = None
    include_num_input_tokens_seen: Literal[True, False, "all", "non_padding", "no"] | None = None
    log_level: _LogLevel | None = None
    log_level_replica: _LogLevel | None = None
    torch_compile_mode: Literal["default", "reduce-overhead", "max-autotune"] | None = None
    torch_empty_cache_steps: PositiveInt | None = None
    pad_to_multiple_of: PositiveInt | Literal["auto"] | None = None
    dataloader_num_workers: _Workers | None = None
    dataloader_prefetch_factor: PositiveInt | None = None
    dataloader_multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None
    ddp_timeout: PositiveInt | None = None
    ddp_bucket_cap_mb: PositiveInt | None = None
    ddp_backend: Literal["nccl", "gloo", "mpi"] | None = None

    # Preferences.
    loss_type: str | Annotated[list[str], Field(min_length=1)] | None = None
    loss_weights: (
        Annotated[list[NonNegativeFloat], Field(min_length=1), AfterValidator(_some_weight)] | None
    ) = None
    beta: NonNegativeFloat | None = None
    # From a half on, the answers that are wanted and those that are not would change places.
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    ld_alpha: _Share | None = None
    discopop_tau: PositiveFloat | None = None
    desirable_weight: NonNegativeFloat | None = None
    undesirable_weight: NonNegativeFloat | None = None


LIMITS: dict[str, type[_Limits]] = {
    "training": _Training,
    "lora": _Lora,
    "quantization": _Quantization,
}

# Optimisers that save memory where all weights are trained; an adapter's are few.
_OF_ALL_WEIGHTS = ("galore", "apollo", "lomo", "adalomo")
FOLLOW_EVALUATIONS = ("reduce_lr_on_plateau", "greedy")
_SORTING = {"aot", "aot_unpaired"}  # losses that compare sorted samples
_OF_ANY_DIVERGENCE = {
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"
}  # fmt: skip
_OF_WORKERS = (
    "dataloader_prefetch_factor",
    "dataloader_persistent_workers",
    "dataloader_multiprocessing_context",
)
_OF_PUSHING = (
    "hub_model_id",
    "hub_private_repo",
    "hub_strategy",
    "hub_always_push",
    "hub_revision",
)


def outside_limits(section: str, given: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Values that no run can be made with.

    Args:
        section: ``training``, ``lora`` or ``quantization``.
        given: Its keys and values, valid or not.

    Yields:
        The key, and what is wrong with it; a key's first fault alone.
    """
    expected: dict[str, list[str]] = {}
    try:
        LIMITS[section].model_validate(given)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            expected.setdefault(str(item["loc"][0]), []).append(item["msg"])
    for key, value in given.items():
        if not _is_finite(value):
            expected.setdefault(key, ["finite numbers"])
    for key, messages in expected.items():  # each branch of a union says what it would take
        ways = dict.fromkeys(map(in_words, messages))
        yield key, f"found {given[key]!r}; expected {' or '.join(ways)}."


def _is_finite(value: Any) -> bool:
    """Whether a value holds finite numbers alone: others are no JSON, and so no record of a run."""
    if isinstance(value, dict):
        return all(_is_finite(each) for pair in value.items() for each in pair)
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def unmet_needs(values: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Keys of ``training`` that need another key, or that another key rules out.

    Args:
        values: A recipe's plain values, valid or not, with a ``training`` and a ``data`` section.

    Yields:
        The place of the key, and what it needs.
    """
    training, data = values["training"], values["data"]
    if data.get("eval") is None:
        if training.get("eval_on_start") and not values.get("evaluate"):
            yield ("training", "eval_on_start"), "needs data.eval, such as 0.05, or evaluate."
        if (schedule := training.get("lr_scheduler_type")) in FOLLOW_EVALUATIONS:
            message = f"{schedule} follows the eval loss: it needs data.eval, such as 0.05."
            yield ("training", "lr_scheduler_type"), message
    for key, message in _needs_of_losses(str(values.get("task")), training):
        yield ("training", key), message
    if not training.get("dataloader_num_workers"):
        for key in _OF_WORKERS:
            if training.get(key):
                yield ("training", key), "needs training.dataloader_num_workers above 0."
    if not training.get("push_to_hub"):
        for key in _OF_PUSHING:
            if training.get(key):
                yield ("training", key), "needs training.push_to_hub: true."
    optimizer = str(training.get("optim"))
    if optimizer.startswith(_OF_ALL_WEIGHTS):
        message = f"{optimizer} is for training all weights, and axtune trains adapters; remove it."
        yield ("training", "optim"), message
    warmup = training.get("warmup_steps")
    if optimizer.startswith("schedule_free") and isinstance(warmup, float) and 0 < warmup < 1:
        message = f"{optimizer} warms up by itself and takes no fraction; set a number of steps."
        yield ("training", "warmup_steps"), message


def _needs_of_losses(task: str, training: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What TRL's losses of preferences say only when their trainer is made."""
    objective, given = OBJECTIVES.get(task), training.get("loss_type")
    if objective and objective.has_reference and training.get("beta") == 0:
        yield "beta", "0 gives a preference no weight, so nothing is learned; such as 0.1."
    of_answers = [training.get(key, 1) for key in ("desirable_weight", "undesirable_weight")]
    if task == "kto" and of_answers == [0, 0]:
        yield "undesirable_weight", "with desirable_weight 0 too, nothing is learned; such as 1."
    if task == "kto" and given in (None, "kto"):
        if training.get("per_device_train_batch_size") == 1:
            message = "the loss kto compares the answers of a batch: it needs 2 or more."
            yield "per_device_train_batch_size", message
        if training.get("train_sampling_strategy", "sequential") != "sequential":
            yield "train_sampling_strategy", "the loss kto needs sequential; remove it."
    if task != "dpo":
        return
    losses = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    losses = losses or ["sigmoid"]
    weights = training.get("loss_weights")
    if isinstance(weights, list) and len(weights) != len(losses):
        yield "loss_weights", f"{len(weights)} for {plural(len(losses), 'loss')} of loss_type."
    if "exo_pair" in losses and not training.get("label_smoothing"):
        yield "loss_type", "exo_pair needs training.label_smoothing above 0, such as 0.001."
    if training.get("use_weighting") and (sorting := _SORTING & set(map(str, losses))):
        yield "use_weighting", f"it is not for the loss {min(sorting)}; remove it."
    divergence = training.get("f_divergence_type", "reverse_kl")
    if divergence != "reverse_kl" and (others := set(map(str, losses)) - _OF_ANY_DIVERGENCE):
        yield "f_divergence_type", f"the loss {min(others)} is for reverse_kl only; remove it."
