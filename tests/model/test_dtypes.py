"""Dtypes by name, in the keys of transformers 5 and of those before it."""

from __future__ import annotations

import torch

from axtune.model.dtypes import PRECISIONS, dtype_name, stated_dtype, with_dtype


def test_names_are_torchs_own() -> None:
    for dtype in PRECISIONS.values():
        assert getattr(torch, dtype_name(dtype)) is dtype


def test_either_key_is_read() -> None:
    assert stated_dtype({"dtype": "bfloat16"}) == "bfloat16"
    assert stated_dtype({"torch_dtype": "float16"}) == "float16"
    assert stated_dtype({"dtype": None}) is None
    assert stated_dtype({}) is None


def test_the_key_that_is_there_is_written() -> None:
    for key in ("dtype", "torch_dtype"):
        before = {key: "bfloat16", "model_type": "llama"}
        assert with_dtype(before, torch.float16) == {key: "float16", "model_type": "llama"}
        assert before[key] == "bfloat16"
    assert stated_dtype(with_dtype({}, torch.float32)) == "float32"
