"""The dtypes of weights by their names: a recipe's, a ``config.json``'s, and torch's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

# A recipe's ``precision``.
PRECISIONS: dict[str, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


def dtype_name(dtype: torch.dtype) -> str:
    """As ``config.json`` and users write it: ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def stated_dtype(config: Mapping[str, Any]) -> str | None:
    """The dtype that a ``config.json`` states; None when it states none.

    transformers 5 writes ``dtype``, those before it ``torch_dtype``.
    """
    found = config.get("dtype") or config.get("torch_dtype")
    return str(found) if found else None


def with_dtype(config: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The same ``config.json``, stating a dtype under the key that it has for it."""
    key = "dtype" if "dtype" in config else "torch_dtype"
    return {**config, key: dtype_name(dtype)}
