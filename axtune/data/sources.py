"""Where rows come from: files, folders, globs and Hub data sets become a list of files.

A Hub data set is read from its own files, not through column types that would turn a date string
into a timestamp or fill absent keys with null.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from axtune.config.paths import (
    COMPRESSED,
    HUB,
    SUFFIXES,
    TEXTS,
    data_suffix,
    left_out,
    local_files,
    visible_files,
)
from axtune.config.recipe import Source
from axtune.errors import AxtuneError, Fault

# How `datasets` names splits, in the names of files and folders.
_KEYWORDS = {
    "train": frozenset(("train", "training")),
    "validation": frozenset(("validation", "valid", "val", "dev")),
    "test": frozenset(("test", "testing", "eval", "evaluation")),
}
_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(?!\d)")  # train_sft-00000-of-00003.parquet
_DELIMITERS = re.compile(r"[-._ 0-9/]+")


def files_of(source: Source) -> list[Path]:
    """The files that a source stands for, sorted by name.

    Raises:
        AxtuneError: When there is no such file, or none of a format that axtune reads.
    """
    if source.path.startswith(HUB):
        return _split_files(_download(source), source.split, source.path)
    return local_files(source.path, source.split)


def unread_files(source: Source) -> list[Fault]:
    """A warning for each file of a source that may hold data and is not read.

    Raises:
        AxtuneError: When the source cannot be looked up.
    """
    if source.path.startswith(HUB):
        return []  # of a Hub data set only what axtune reads is downloaded
    message = (
        "the file is left out: it is of no format that axtune reads "
        f"({', '.join(SUFFIXES)}; texts also as {' and '.join(COMPRESSED)})."
    )
    return [
        Fault(str(path), 0, "left-out", message, "warning")
        for path in left_out(source.path, source.split)
    ]


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

    owner, _, rest = source.path.removeprefix(HUB).partition("/")
    repository, _, below = rest.partition("/")
    name = f"{owner}/{repository}" if repository else owner
    patterns = [f"*{suffix}" for suffix in SUFFIXES]
    patterns += [f"*{text}{packed}" for text in TEXTS for packed in COMPRESSED]
    try:
        folder = Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
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
    if not (folder / below).is_dir() or ".." in Path(below).parts:
        raise AxtuneError(
            f"The data set {name} has no folder {below}.", f"Give {HUB}{name}/FOLDER of one."
        )
    return folder / below


def _split_files(folder: Path, split: str, name: str) -> list[Path]:
    """The data files of a split, by their names; all of them when no name says a split.

    Raises:
        AxtuneError: When there is none, or when they are those of several subsets.
    """
    files = sorted(file for file in visible_files(folder) if data_suffix(file))
    splits = {file: _splits_of(file.relative_to(folder)) for file in files}
    wanted = next((key for key, words in _KEYWORDS.items() if split in words), split)
    chosen = [file for file in files if wanted in splits[file]]
    if not chosen and not any(splits.values()):
        # A split of a name of its own, as a word of the file's name.
        words = {file: _words(str(file.relative_to(folder))) for file in files}
        chosen = [file for file in files if split in words[file]]
        chosen = chosen or (files if split == "train" else [])
    if not chosen:
        known = sorted(set().union(*splits.values()))
        raise AxtuneError(
            f"{name} has no split {split}.",
            f"Set split to one that it has{': ' if known else ''}{', '.join(known)}.",
        )
    subsets = {_subset_of(file.relative_to(folder)) for file in chosen} - {""}
    if len(subsets) > 1:
        raise AxtuneError(
            f"{name} has several subsets: {', '.join(sorted(subsets))}.",
            f"Name the one that is meant: {name}/{min(subsets)}; or list those that are.",
        )
    return chosen


def _splits_of(path: Path) -> frozenset[str]:
    """The splits that the name of a file says, or else the nearest folder's that says one."""
    if shard := _SHARD.match(path.name):
        said = shard[1]
        return frozenset((next((k for k, words in _KEYWORDS.items() if said in words), said),))
    for part in reversed(path.parts):
        words = _words(part)
        if found := frozenset(k for k, known in _KEYWORDS.items() if known & words):
            return found
    return frozenset()


def _subset_of(path: Path) -> str:
    """The first folder above a file that neither is ``data`` nor says a split."""
    folders = (part for part in path.parts[:-1] if part != "data")
    return next((part for part in folders if not _splits_of(Path(part))), "")


def _words(name: str) -> set[str]:
    return {word for word in _DELIMITERS.split(name.lower()) if word}
