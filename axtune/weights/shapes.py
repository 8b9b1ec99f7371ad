"""Whether a checkpoint's tensors are those of the model that its ``config.json`` describes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from axtune.checkpoint.catalog import Checkpoint
from axtune.model.load import skeleton
from axtune.weights.lora_delta import HEAD
from axtune.weights.safetensors_file import TensorInfo


@dataclass(frozen=True)
class Fit:
    """How tensors fit the model that they are for.

    Attributes:
        model: The model's class, as transformers calls it.
        fault: What keeps them from making the model, without a full stop; None when they make it.
        unused: Names of tensors that the model does not have.
    """

    model: str
    fault: str | None
    unused: tuple[str, ...]


def fit(checkpoint: Checkpoint, tensors: Iterable[TensorInfo]) -> Fit:
    """Hold tensors against the names and shapes that ``config.json`` calls for.

    Args:
        checkpoint: Unquantised; its config is read.
        tensors: What its files hold.

    Raises:
        CheckpointError: When ``config.json`` describes no model.
    """
    model = skeleton(checkpoint)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        wanted.pop(HEAD, None)
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    kind, fault = type(model).__name__, None
    if absent := [name for name in wanted if name not in shapes]:
        fault = f"{kind} lacks {len(absent)} tensors, {absent[0]} first"
    elif wrong := [name for name, shape in wanted.items() if shapes[name] != shape]:
        name = wrong[0]
        fault = f"{name} has the shape {list(shapes[name])}; config.json wants {list(wanted[name])}"
    unused = tuple(name for name in shapes if name not in wanted and name != HEAD)
    return Fit(kind, fault, unused)
