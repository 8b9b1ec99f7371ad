"""Folders as strangers may hand them on: small edits of a sound checkpoint or adapter."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

CANARY = "AXTUNE_CANARY"  # the variable that holds the place of the file that hostile code makes
CODE = f"import os, pathlib\npathlib.Path(os.environ[{CANARY!r}]).touch()\n"

Edit = Callable[[Path], None]


class _Executes:
    """What a pickle runs when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (CODE,)


PICKLE = pickle.dumps(_Executes())


@contextmanager
def canary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails when code of a stranger runs in it."""
    place = folder / "canary"
    monkeypatch.setenv(CANARY, str(place))
    yield
    assert not place.exists(), "code of the folder was executed"


# --- edits ------------------------------------------------------------------------------------


def merged(file: str, **values: Any) -> Edit:
    """Keys set in a JSON file; those of the value None taken out."""

    def edit(folder: Path) -> None:
        path = folder / file
        content = {**(json.loads(path.read_text()) if path.is_file() else {}), **values}
        path.write_text(json.dumps(content))

    return edit


def written(file: str, content: str | bytes) -> Edit:
    """A file of that content."""

    def edit(folder: Path) -> None:
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return edit


def without(*files: str) -> Edit:
    """Files taken out."""

    def edit(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return edit


def both(*edits: Edit) -> Edit:
    """One after the other."""

    def edit(folder: Path) -> None:
        for each in edits:
            each(folder)

    return edit


def header(file: str, change: Callable[[dict[str, Any]], object]) -> Edit:
    """The header of a safetensors file changed, its tensors left as they are."""

    def edit(folder: Path) -> None:
        raw = (folder / file).read_bytes()
        end = 8 + int.from_bytes(raw[:8], "little")
        content = json.loads(raw[8:end])
        change(content)
        text = json.dumps(content).encode()
        (folder / file).write_bytes(len(text).to_bytes(8, "little") + text + raw[end:])

    return edit


def header_text(file: str, text: bytes, length: int | None = None) -> Edit:
    """A safetensors file of that header, and nothing behind it."""
    return written(file, (len(text) if length is None else length).to_bytes(8, "little") + text)


def numbers(file: str, name: str, value: float, count: int = 1) -> Edit:
    """The first numbers of a tensor set."""

    def edit(folder: Path) -> None:
        tensors = load_file(folder / file)
        found = next(key for key in sorted(tensors) if name in key)
        tensors[found].view(-1)[:count] = value
        save_file(tensors, folder / file, metadata={"format": "pt"})

    return edit


def tensors(
    file: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> Edit:
    """A safetensors file's tensors changed."""

    def edit(folder: Path) -> None:
        save_file(change(load_file(folder / file)), folder / file, metadata={"format": "pt"})

    return edit


def fifo(file: str) -> Edit:
    """A pipe that nobody writes into, in a file's place: opening it would wait for ever."""

    def edit(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return edit


def link(file: str, target: str) -> Edit:
    """A symbolic link in a file's place."""

    def edit(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(target)

    return edit


def directory(file: str) -> Edit:
    """A folder in a file's place."""

    def edit(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).mkdir()

    return edit
