"""Safetensors files: what the library writes is read, what is damaged is said."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save_file

from axtune.errors import CheckpointError
from axtune.weights import safetensors_file
from axtune.weights.safetensors_file import (
    DTYPES,
    INDEX,
    SINGLE,
    blocks,
    header_bytes,
    read_checkpoint,
    read_header,
    require_floats,
)

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
tensors = st.dictionaries(
    names.filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(sorted(DTYPES)), shapes),
    max_size=4,
)


@given(tensors, st.sampled_from([0, 4096]))
def test_a_header_is_what_the_library_reads(
    given_: dict[str, tuple[str, tuple[int, ...]]], length: int
) -> None:
    entries, end = [], 0
    for name, (kind, shape) in given_.items():
        entries.append((name, DTYPES[kind], shape, end))
        end += torch.empty(shape, dtype=DTYPES[kind]).nbytes
    header = header_bytes(entries, length)
    assert len(header) >= length
    assert len(header) % 8 == 0  # so that tensors are aligned
    content = os.urandom(end)
    found = load(header + content)
    assert {name: (t.dtype, tuple(t.shape)) for name, t in found.items()} == {
        name: (DTYPES[kind], shape) for name, (kind, shape) in given_.items()
    }
    for name, dtype, shape, start in entries:
        size = torch.empty(shape, dtype=dtype).nbytes
        raw = found[name].contiguous().view(-1).view(torch.uint8) if size else torch.empty(0)
        assert bytes(raw.tolist()) == content[start : start + size]


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "matrix": torch.randn(7, 13).bfloat16(),
        "vector": torch.randn(5),
        "scalar": torch.tensor(3),
        "nothing": torch.empty(0, 4),
    }


def test_what_the_library_wrote_is_read(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / SINGLE, {"format": "pt"})
    read = read_checkpoint(tmp_path)[SINGLE]
    assert [tensor.offset for tensor in read] == sorted(tensor.offset for tensor in read)
    assert {tensor.name for tensor in read} == state.keys()
    for tensor in read:
        assert tensor.nbytes == state[tensor.name].nbytes
        loaded = safetensors_file.load(tensor)
        assert loaded.dtype == state[tensor.name].dtype
        assert torch.equal(loaded, state[tensor.name])


@pytest.mark.parametrize("multiple", [1, 3, 64])
def test_blocks_are_the_tensor_in_order(
    multiple: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_file, "BLOCK_BYTES", 1000)
    numbers = torch.arange(1234, dtype=torch.float32)
    save_file({"a": numbers.view(2, 617)}, tmp_path / "a")
    read = [block.clone() for block in blocks(read_header(tmp_path / "a")[0], multiple)]
    assert torch.equal(torch.cat(read), numbers)
    assert len(read) > 3
    assert all(len(block) % multiple == 0 for block in read[:-1])


def rewrite(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Damage that changes a file's header and leaves its tensors."""

    def damage(file: Path) -> None:
        raw = file.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(b""), "not a safetensors file"),
        (lambda file: file.write_bytes(b"version https://git-lfs"), "not a safetensors file"),
        (lambda file: file.write_bytes(bytes(64)), "not a safetensors file"),
        (lambda file: os.truncate(file, file.stat().st_size - 1), "its header declares"),
        (lambda file: file.write_bytes(file.read_bytes() + b"x"), "its header declares"),
        (rewrite(lambda header: header["matrix"].pop("shape")), "not a safetensors file"),
        (rewrite(lambda header: header["matrix"].update(dtype="F3")), "is of the dtype F3"),
        (
            rewrite(lambda header: header["matrix"].update(shape=[7, 12])),
            "shape and size of matrix",
        ),
    ],
)
def test_a_damaged_file_is_named(
    damage: Callable[[Path], None],
    message: str,
    state: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    save_file(state, tmp_path / SINGLE)
    damage(tmp_path / SINGLE)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(tmp_path)
    assert SINGLE in caught.value.found
    assert "again" in caught.value.remedy


ONE = "one.safetensors"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "weight_map: it is missing"),
        ({"weight_map": {"a": ONE, "b": "two.safetensors"}}, "lacks two.safetensors"),
        ({"weight_map": {"a": ONE, "b": ONE}}, "disagree on 1 tensors, b first"),
        ({"weight_map": {"a": f"../{ONE}"}}, "name of a .safetensors file in the same folder"),
        ({"weight_map": {"a": f"/tmp/{ONE}"}}, "name of a .safetensors file in the same folder"),
        ({"weight_map": {"a": "one.bin"}}, "name of a .safetensors file in the same folder"),
        ({"weight_map": {"a": 1}}, "weight_map.a: input should be a valid string"),
        ({"weight_map": {}}, None),
    ],
    ids=str,
)
def test_shards_and_their_index(index: Any, message: str | None, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / ONE)
    (tmp_path / INDEX).write_text(json.dumps(index))
    if message is None:
        assert read_checkpoint(tmp_path) == {}
        return
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path)


def test_packed_weights_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / SINGLE)
    read = read_header(tmp_path / SINGLE)
    require_floats([tensor for tensor in read if tensor.name != "scalar"], "mine")
    with pytest.raises(CheckpointError, match=r"mine: scalar is torch\.int64"):
        require_floats(read, "mine")
