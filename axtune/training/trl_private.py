"""What axtune takes from TRL beyond its documented interface, and nobody else in axtune does.

TRL may change these names in any minor version: pyproject.toml pins the one that was tested, and
tests/training/test_trl_private.py says which of them are gone when it moves.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import add_fused_lm_head, use_adapter

__all__ = [
    "activation_offloading",
    "add_fused_lm_head",
    "count_tokens",
    "counters_kept",
    "disable_gradient_checkpointing",
    "dpo_loss",
    "imported",
    "is_trl",
    "log_metric",
    "loss_names",
    "orpo_trainer",
    "pair_collator",
    "rows_by",
    "telling_log_probs",
    "unpaired_collator",
    "use_adapter",
]

# What TRL's trainers count as they compute losses.
COUNTERS = ("_metrics", "_total_train_tokens", "_stored_metrics")


def imported(module: str, name: str) -> Any:
    """A class of TRL's, from wherever it lives; what is experimental comes without its warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*trl.experimental.*")
        return getattr(importlib.import_module(module), name)


def is_trl(kind: type) -> bool:
    """Whether a class is TRL's own, and not made of one."""
    return kind.__module__.startswith("trl.")


def orpo_trainer() -> Any:
    """TRL's ORPOTrainer."""
    return imported("trl.experimental.orpo", "ORPOTrainer")


def pair_collator(pad_id: int) -> Any:
    """TRL's collator of ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``."""
    return imported("trl.trainer.dpo_trainer", "DataCollatorForPreference")(pad_token_id=pad_id)


def unpaired_collator(pad_id: int) -> Any:
    """TRL's collator of ``prompt_ids``, ``completion_ids`` and ``label``."""
    name = "DataCollatorForUnpairedPreference"
    return imported("trl.trainer.kto_trainer", name)(pad_token_id=pad_id)


def rows_by(trainer: Any, make: Callable[[Any], Any]) -> None:
    """Replace TRL's preparation of its data sets, before the trainer is initialised.

    Args:
        trainer: Of TRL's.
        make: What the trainer's batches are made of, from a data set of prepared rows.
    """
    trainer._prepare_dataset = lambda dataset, *_, **__: make(dataset)


@cache
def loss_names(trainer: type, key: str) -> list[str]:
    """The values of an argument that a TRL trainer knows: it names them in its code alone.

    Args:
        trainer: A class of TRL's.
        key: Such as ``loss_type``.
    """
    return list(dict.fromkeys(re.findall(rf'\b{key} == "(\w+)"', inspect.getsource(trainer))))


def dpo_loss(trainer: Any, output: Any, batch: dict[str, Any], return_outputs: bool) -> Any:
    """TRL's loss of pairs whose forward pass has been made.

    Args:
        trainer: TRL's DPOTrainer.
        output: Of the fused head, each per-token field (2 × pairs, length - 1).
        batch: TRL's collated batch, with ``ref_chosen_logps`` and ``ref_rejected_logps``.
        return_outputs: As in ``Trainer.compute_loss``.
    """
    return trainer._compute_loss(lambda **_: output, batch, return_outputs)


def telling_log_probs(model: Any, tell: Callable[[torch.Tensor], None]) -> Callable[..., Any]:
    """A model that tells what TRL's fused head says of each token, wherever it is called.

    Args:
        model: Which TRL's loss calls.
        tell: Called with (batch, length - 1), zero at unlabelled tokens.
    """

    def call(**inputs: Any) -> Any:
        output = model(**inputs)
        if (log_probs := getattr(output, "log_probs", None)) is not None:
            tell(log_probs.detach())
        return output

    return call


def log_metric(trainer: Any, name: str, value: float) -> None:
    """Add a value to those that TRL's trainer averages until its next log event."""
    trainer._metrics[_mode(trainer)][name].append(value)


def count_tokens(trainer: Any, tokens: float) -> None:
    """Add tokens of a batch to those that TRL's trainer has seen in training."""
    mode = _mode(trainer)
    trainer._total_train_tokens += tokens if mode == "train" else 0
    trainer._metrics[mode]["num_tokens"] = [trainer._total_train_tokens]


@contextmanager
def counters_kept(trainer: Any) -> Iterator[None]:
    """Whatever is computed inside, TRL's metrics and counts are afterwards what they were."""
    kept = {name: copy.deepcopy(vars(trainer).get(name)) for name in COUNTERS}
    try:
        yield
    finally:
        vars(trainer).update({name: value for name, value in kept.items() if value is not None})


def activation_offloading(trainer: Any) -> AbstractContextManager[Any]:
    """What keeps activations in host memory while a loss is computed, where TRL's trainer can."""
    context: AbstractContextManager[Any] = getattr(
        trainer, "maybe_activation_offload_context", nullcontext()
    )
    return context


def _mode(trainer: Any) -> str:
    model: torch.nn.Module = trainer.model
    return "train" if model.training else "eval"
