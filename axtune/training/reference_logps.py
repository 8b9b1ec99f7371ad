"""Reference log-probabilities: of the model before the run, computed once and kept on disk.

They depend on the rows' token ids, the base's files, the adapter the run begins from, and how it
all is computed; the digest of these is the name of a file in the user's cache folder. The file
holds numbers only. Later epochs, resumed runs and runs with other learning rates take it up.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from axtune.checkpoint.atomic import written_whole
from axtune.checkpoint.leftovers import private_files
from axtune.training.progress import Report
from axtune.units import plural


class Rows(Protocol):
    """A map-style data set of rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


# By name, one float32 array for each row.
Numbers = dict[str, list[NDArray[np.float32]]]

_FORMAT = 2  # of the file; part of its name's digest


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/axtune/reference``, or ``~/.cache/axtune/reference``."""
    root = os.environ.get("XDG_CACHE_HOME")
    if not root:
        try:
            root = str(Path.home() / ".cache")
        except RuntimeError:  # a user without a home: nothing can be kept, and nothing is found
            root = os.devnull
    return Path(root) / "axtune" / "reference"


def digest_rows(rows: Rows) -> str:
    """SHA-256 of the token ids of rows and of which are learned, in the rows' order."""
    digest = hashlib.sha256()
    for index in range(len(rows)):
        row = rows[index]
        for name in sorted(name for name in row if name.endswith(("_ids", "_labels"))):
            ids = np.asarray(row[name], np.int32)
            digest.update(f"{name} {len(ids)} ".encode())
            digest.update(ids.tobytes())
    return digest.hexdigest()


def digest_tensors(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of named tensors, bit by bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class WithReference(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows with their reference log-probabilities, as map-style data set.

    Args:
        rows: The rows.
        numbers: Of each of them.
    """

    def __init__(self, rows: Rows, numbers: Numbers) -> None:
        self.rows = rows
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self.rows[index]
        return row | {name: values[index] for name, values in self.numbers.items()}


def obtain(
    rows: Rows,
    compute: Callable[[list[dict[str, Any]]], Numbers],
    *,
    identity: dict[str, Any],
    batch_size: int,
    report: Report,
) -> Numbers:
    """The reference log-probabilities of rows, from the cache or computed by all processes.

    Args:
        rows: The rows.
        compute: Numbers of a batch of rows; called with consecutive rows, the same ones whatever
            the number of processes.
        identity: What else the numbers depend on; JSON.
        batch_size: Rows that are computed together.
        report: Shows the progress, and says where the numbers came from.
    """
    state = PartialState()
    file = Path()
    found: list[Numbers | None] = [None]
    if state.is_main_process:
        about = {
            "format": _FORMAT,
            "rows": digest_rows(rows),
            "batch_size": batch_size,
            **identity,
        }
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        file = cache_folder() / f"{name}.safetensors"
        found = [_read(file, len(rows))]
    if state.num_processes > 1:
        broadcast_object_list(found)
    if (numbers := found[0]) is not None:
        report.say(
            f"Reference log-probabilities of {plural(len(rows), 'row')} taken from the cache"
        )
        return numbers
    numbers = _compute(rows, compute, batch_size, report)
    if state.is_main_process:
        try:
            _write(file, numbers)
        except OSError as error:  # a home that cannot be written to stops no training
            text = f"Reference log-probabilities cannot be kept in {file.parent}: {error.strerror}."
            report.say(text, "yellow")
    return numbers


def _compute(
    rows: Rows,
    compute: Callable[[list[dict[str, Any]]], Numbers],
    batch_size: int,
    report: Report,
) -> Numbers:
    state = PartialState()
    starts = range(0, len(rows), batch_size)
    mine = starts[state.process_index :: state.num_processes]
    parts: list[tuple[int, Numbers]] = []
    what = f"Reference log-probabilities of {plural(len(rows), 'row')}"
    with report.counting(what, len(mine)) as count:
        for start in mine:
            batch = [rows[index] for index in range(start, min(start + batch_size, len(rows)))]
            parts.append((start, compute(batch)))
            count()
    if state.num_processes > 1:
        parts = gather_object(parts)
    numbers: Numbers = {}
    for _, part in sorted(parts, key=lambda item: item[0]):
        for name, values in part.items():
            numbers.setdefault(name, []).extend(values)
    return numbers


def _read(file: Path, count: int) -> Numbers | None:
    """A cached file's numbers; None when there is none, or it is damaged."""
    try:
        with safe_open(file, framework="numpy") as opened:
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            recorded = (opened.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    if recorded != _digest(arrays):  # a flipped bit would change the run in silence
        return None
    numbers: Numbers = {}
    for name in {key.partition(".")[0] for key in arrays}:
        lengths, values = arrays[f"{name}.lengths"], arrays[f"{name}.values"]
        if len(lengths) != count or lengths.sum() != len(values):
            return None
        numbers[name] = np.split(values, np.cumsum(lengths)[:-1])
    return numbers


def _write(file: Path, numbers: Numbers) -> None:
    """Write a file whole or not at all, for this user only."""
    arrays = {}
    for name, values in numbers.items():
        arrays[f"{name}.lengths"] = np.array([len(value) for value in values], np.int64)
        arrays[f"{name}.values"] = np.concatenate(values).astype(np.float32)
    with private_files():
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as staged:
            save_file(arrays, staged, metadata={"sha256": _digest(arrays)})


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    return digest_tensors({name: torch.from_numpy(array) for name, array in arrays.items()})
