"""Where rows come from: files, folders, globs and Hub data sets become a list of files.

A Hub data set is read from its own files, not through column types that would turn a date string
into a timestamp or fill absent keys with null.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from axtune.config.paths import HUB, SUFFIXES, local_files
from axtune.config.recipe import Source
from axtune.errors import AxtuneError


def files_of(source: Source) -> list[Path]:
    """The files that a source stands for, sorted by name.

    Raises:
        AxtuneError: When there is no such file, or none of a format that axtune reads.
    """
    if source.path.startswith(HUB):
        return _split_files(_download(source), source.split, source.path)
    return local_files(source.path)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        AxtuneError: When the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise AxtuneError(
            f"{path} cannot be read: {error.strerror}.", "Give a file that you may read."
        ) from None


def _download(source: Source) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    name = source.path.removeprefix(HUB)
    patterns = [f"*{suffix}" for suffix in SUFFIXES]
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
    except RepositoryNotFoundError:
        raise AxtuneError(
            f"The Hugging Face Hub has no data set {name}.",
            "Check its name; for a private one, run `hf auth login`.",
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        raise AxtuneError(
            f"The data set {name} is neither in the cache of this machine nor reachable on the "
            "Hugging Face Hub.",
            "Copy its files here and give their folder.",
        ) from None


def _split_files(folder: Path, split: str, name: str) -> list[Path]:
    """The data files of a split: those with its name in theirs, or all when no split is named."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    files = [file for file in files if file.name not in ("dataset_infos.json", "dataset_dict.json")]
    splits = ("train", "test", "validation", "valid", "dev", "eval")

    def named(words: Iterable[str]) -> list[Path]:
        return [f for f in files if any(w in str(f.relative_to(folder)).lower() for w in words)]

    chosen = named([split]) or ([] if named(splits) else files)
    if not chosen:
        raise AxtuneError(f"{name} has no split {split}.", "Set split to one that it has.")
    return chosen
