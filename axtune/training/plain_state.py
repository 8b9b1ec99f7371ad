"""State of a trainer as safetensors and JSON: nothing that could run code when it is read.

What optimizers, schedulers and random generators remember is dicts, lists and tuples of numbers and
tensors. The structure goes into ``NAME.json``, exactly: Python writes every float so that the same
one is read. The tensors go into ``NAME.safetensors``, each once, however often it is referred to.
"""

from __future__ import annotations

import enum
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from axtune.errors import AxtuneError, CheckpointError

_PLAIN = (type(None), bool, int, float, str)
# What JSON has no word for is an object of one key that says what it is.
_TENSOR, _TUPLE, _DICT, _DTYPE = "tensor", "tuple", "dict", "dtype"


def write_state(folder: Path, name: str, value: Any) -> None:
    """Write a state.

    Args:
        folder: An existing one.
        name: Of the files, without their ends.
        value: Dicts, lists and tuples of plain values, dtypes and tensors.

    Raises:
        AxtuneError: When it holds anything else.
        OSError, SafetensorError: When the disk fills up.
    """
    tensors: dict[str, torch.Tensor] = {}
    plain = _Packing(name, tensors).pack(value)
    if tensors:
        save_file(tensors, folder / f"{name}.safetensors")
    text = json.dumps(plain, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def read_state(folder: Path, name: str) -> Any:
    """Read what `write_state` wrote; tensors are on the CPU.

    Raises:
        CheckpointError: When the files are missing or not of this form.
    """
    weights = folder / f"{name}.safetensors"
    try:
        plain = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        tensors = load_file(weights) if weights.is_file() else {}
        return _unpacked(plain, tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(
            f"{folder / name}.json or .safetensors is missing or damaged.",
            "Remove this checkpoint to go on from the one before.",
        ) from None


def random_state() -> dict[str, Any]:
    """Where the generators of Python, numpy and torch stand, of this process's card as well."""
    kind, words, *rest = np.random.get_state(legacy=True)
    state = {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(words).tolist(), *rest),
        "torch": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.random.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generators where `random_state` found them."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.random.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.random.set_rng_state(state["cuda"])


class _Packing:
    """Takes the tensors out of a structure."""

    def __init__(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        self._name = name
        self._tensors = tensors
        self._keys: dict[int, str] = {}

    def pack(self, value: Any) -> Any:
        """The structure as JSON, with names in place of tensors."""
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            return value
        if type(value) in (torch.Tensor, torch.nn.Parameter):
            return {_TENSOR: self._key(value)}
        if isinstance(value, torch.dtype):
            return {_DTYPE: str(value).removeprefix("torch.")}
        if type(value) is list:
            return [self.pack(item) for item in value]
        if isinstance(value, tuple):
            return {_TUPLE: [self.pack(item) for item in value]}
        if isinstance(value, dict):  # keys may be numbers: those of parameters are
            return {_DICT: [[self.pack(key), self.pack(item)] for key, item in value.items()]}
        if isinstance(value, np.generic):
            return self.pack(value.item())
        if isinstance(value, enum.Enum):
            return self.pack(value.value)
        raise AxtuneError(
            f"The {self._name} of this run remembers a {type(value).__name__}, which cannot be "
            "saved without pickle.",
            "Choose another one: training.optim or training.lr_scheduler_type.",
        )

    def _key(self, tensor: torch.Tensor) -> str:
        if id(tensor) not in self._keys:
            self._keys[id(tensor)] = key = str(len(self._keys))
            # A copy: several states may lie in one piece of memory, which safetensors refuses.
            self._tensors[key] = tensor.detach().cpu().contiguous().clone()
        return self._keys[id(tensor)]


def _unpacked(plain: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(plain, list):
        return [_unpacked(item, tensors) for item in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, inside),) = plain.items()
    if kind == _TENSOR:
        return tensors[inside]
    if kind == _DTYPE:
        dtype = getattr(torch, inside)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(inside)
        return dtype
    if kind == _TUPLE:
        return tuple(_unpacked(item, tensors) for item in inside)
    if kind == _DICT:
        return {_unpacked(key, tensors): _unpacked(item, tensors) for key, item in inside}
    raise ValueError(kind)
