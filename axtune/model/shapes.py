"""Whether a checkpoint's tensors are those of the model that its ``config.json`` describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from axtune.checkpoint.locate import Checkpoint
from axtune.errors import CheckpointError

_HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Fit:
    """How tensors fit the model that they are for.

    Attributes:
        model: The model's class, as transformers calls it.
        fault: What keeps them from making the model, without a full stop; None when they make it.
        absent: Names of tensors that the model has and the files lack.
        unused: Names of tensors that the model does not have.
    """

    model: str
    fault: str | None
    absent: tuple[str, ...]
    unused: tuple[str, ...]


def fit(checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> Fit:
    """Hold tensors against the names and shapes that ``config.json`` calls for.

    Args:
        checkpoint: Unquantised; its config is read.
        shapes: Of the tensors that its files hold, by name.

    Raises:
        CheckpointError: When ``config.json`` describes no model.
    """
    model = skeleton(checkpoint)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        wanted.pop(_HEAD, None)
    kind, fault = type(model).__name__, None
    if absent := tuple(name for name in wanted if name not in shapes):
        fault = f"{kind} lacks {len(absent)} tensors, {absent[0]} first"
    elif wrong := [name for name, shape in wanted.items() if shapes[name] != shape]:
        name = wrong[0]
        fault = f"{name} has the shape {list(shapes[name])}; config.json wants {list(wanted[name])}"
    unused = tuple(name for name in shapes if name not in wanted and name != _HEAD)
    return Fit(kind, fault, absent, unused)


def skeleton(checkpoint: Checkpoint) -> PreTrainedModel:
    """The model that ``config.json`` describes, of the right shapes and without numbers.

    Raises:
        CheckpointError: When it describes none.
    """
    try:
        config = AutoConfig.from_pretrained(
            str(checkpoint.folder), local_files_only=True, trust_remote_code=False
        )
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, attn_implementation="eager", trust_remote_code=False
            )
    except Exception as error:  # config.json can be wrong in many ways
        raise CheckpointError(
            f"transformers cannot build a model from the config.json of {checkpoint.name} "
            f"({type(error).__name__}).",
            "Use the base's config.json.",
        ) from error
    return model
