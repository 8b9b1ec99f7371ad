"""Which tensors go into which file, and what they take there."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from axtune.weights.output_tensor import BlockFormat, OutputTensor, resharded, total_bytes


class Sized(NamedTuple):
    """All that spreading tensors over files looks at."""

    number: int
    nbytes: int


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 100))
def test_tensors_are_spread_over_files_in_order(sizes: list[int], limit: int) -> None:
    pieces = [Sized(number, size) for number, size in enumerate(sizes)]
    files = resharded(pieces, limit)
    assert [piece for file in files.values() for piece in file] == pieces
    assert list(files) == sorted(files)
    filled = [sum(piece.nbytes for piece in file) for file in files.values()]
    assert all(
        size <= limit or len(file) == 1 for size, file in zip(filled, files.values(), strict=True)
    )
    # No file ends while the next tensor still had room in it.
    following = list(files.values())[1:]
    assert all(size + file[0].nbytes > limit for size, file in zip(filled, following, strict=False))
    assert (list(files) == ["model.safetensors"]) == (len(files) == 1)


@pytest.mark.parametrize(
    ("shape", "row", "whole"), [((6, 64), 128, 768), ((7,), 2, 14), ((), 2, 2), ((0, 64), 128, 0)]
)
def test_the_size_of_a_tensor(shape: tuple[int, ...], row: int, whole: int) -> None:
    tensor = OutputTensor("a", torch.bfloat16, shape, None)
    assert (tensor.row_bytes, tensor.nbytes) == (row, whole)
    assert total_bytes({"one": [tensor, tensor], "two": [tensor]}) == 3 * whole


def test_the_size_of_packed_rows() -> None:
    blocks = BlockFormat("q", 32, 34, 1e4, lambda rows: rows.to(torch.uint8))
    tensor = OutputTensor("a", torch.uint8, (6, 64), None, packed=blocks)
    assert (tensor.row_bytes, tensor.nbytes, tensor.as_stored) == (68, 408, False)
