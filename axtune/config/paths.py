"""The local files and folders that a recipe names, and those of them that are not there.

Recipes are looked at as plain values, before they are known to be valid, so that a missing file is
reported together with every other fault. Only this machine is looked at, never the Hub.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from axtune.errors import AxtuneError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
HUB = "hf:"  # such a source is a data set of the Hugging Face Hub, and no path

KeyPath = tuple[str | int, ...]  # where a value stands in a recipe: keys, and indices of lists

_CODE = "bad-path"


def local_files(given: str) -> list[Path]:
    """The data files that a path stands for, sorted by name.

    Args:
        given: A file, a folder, or a glob; relative to the current folder.

    Raises:
        AxtuneError: When there is no such file, or none of a format that axtune reads.
    """
    try:
        path = Path(given).expanduser()
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no such user"
        raise AxtuneError(
            f"{given} cannot be looked up: {reason}.", "Give a file, a folder or a glob."
        ) from None
    if is_file:
        if path.suffix.lower() not in SUFFIXES:
            raise AxtuneError(
                f"{given} is not of a format that axtune reads.",
                f"It reads {', '.join(SUFFIXES)}.",
            )
        return [path]
    matches = path.rglob("*") if is_folder else map(Path, glob.glob(str(path), recursive=True))
    files = sorted(file for file in matches if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        what = "holds no" if is_folder else "is no file, folder or pattern of"
        raise AxtuneError(
            f"{given} {what} data files ({', '.join(SUFFIXES)}).",
            f"Paths are relative to the current folder, {Path.cwd()}.",
        )
    return files


def require_writable(output_dir: str) -> None:
    """Find out at once whether a run's folder can be made; nothing is left behind.

    Args:
        output_dir: As the recipe has it; it need not exist yet.

    Raises:
        AxtuneError: When it cannot, with the system's reason.
    """
    folder = Path(output_dir).absolute()
    try:
        if "\0" in output_dir:
            raise ValueError
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        with TemporaryDirectory(prefix=".axtune-", dir=nearest):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no name of a folder"
        raise AxtuneError(
            f"output_dir {output_dir} cannot be written: {reason}.", "Set another output_dir."
        ) from None


def missing_paths(values: dict[str, Any]) -> Iterator[tuple[KeyPath, str, str]]:
    """What ``data``, ``model`` and ``preference.start_from`` name and is not there.

    Args:
        values: A recipe's plain values, valid or not.

    Yields:
        The place of the key, a fault's code, and its message.
    """
    data, preference = values.get("data"), values.get("preference")
    if isinstance(data, dict):
        for part in ("train", "eval"):
            yield from _missing_data(("data", part), data.get(part))
    model = values.get("model")
    if isinstance(model, str) and model.startswith((".", "/", "~")) and not _is_folder(model):
        yield ("model",), _CODE, f"there is no folder {model}. {_where()}"
    start = preference.get("start_from") if isinstance(preference, dict) else None
    if isinstance(start, str) and not _is_folder(start):
        yield ("preference", "start_from"), _CODE, f"there is no folder {start}. {_where()}"


def _missing_data(place: KeyPath, given: Any) -> Iterator[tuple[KeyPath, str, str]]:
    """What a path, a ``{path: …}``, or a list of these names and is not there."""
    if isinstance(given, list):
        for index, item in enumerate(given):
            yield from _missing_data((*place, index), item)
    elif isinstance(given, dict):
        if isinstance(path := given.get("path"), str):
            yield from _missing_data((*place, "path"), path)
    elif isinstance(given, str) and not given.startswith(HUB):
        try:
            local_files(given)
        except AxtuneError as error:
            yield place, _CODE, f"{error.found} {error.remedy}"


def _is_folder(path: str) -> bool:
    try:
        return Path(path).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):  # no such user, too long for a path
        return False


def _where() -> str:
    return f"Paths are relative to the current folder, {Path.cwd()}."
