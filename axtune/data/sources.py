"""Where rows come from: files, folders, globs and Hub data sets become a list of files.

A Hub data set is read from its own files, not through column types that would turn a date string
into a timestamp or fill absent keys with null.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from axtune.config.paths import (
    COMPRESSED,
    HUB,
    READ,
    SUFFIXES,
    TEXTS,
    data_suffix,
    first_split,
    held_out,
    left_out,
    local_files,
    split_read,
    visible_files,
    why_unread,
)
from axtune.config.recipe import Source
from axtune.config.splits import AUTO, SHARD, Splits, keyword, splits_said, words
from axtune.data.llama_factory import DATASET_INFO, unread_mapping
from axtune.errors import AxtuneError, Fault

_NOT_NAMED = re.compile(r"[^\w.-]+")


def files_of(source: Source) -> list[Path]:
    """The files that a source stands for, sorted by name.

    Raises:
        AxtuneError: When there is no such file, or none of a format that axtune reads.
    """
    if source.path.startswith(HUB):
        folder = _download(source)
        split = first_split(source.split, lambda one: _split_files(folder, one, source.path))
        return _split_files(folder, split, source.path)
    return local_files(source.path, source.split)


def source_names(sources: Sequence[Source]) -> list[str]:
    """What sources are called where figures are told by source: without folders, each its own.

    Trackers take such a name into a metric's, so that it holds letters, digits, ``-``, ``_`` and
    ``.`` alone.
    """
    seen: Counter[str] = Counter()
    names = []
    for source in sources:
        name = _NOT_NAMED.sub("_", Path(source.path.removeprefix(HUB)).absolute().name)
        seen[name] += 1
        names.append(f"{name}-{seen[name]}" if seen[name] > 1 else name)
    return names


def unread_files(source: Source) -> list[Fault]:
    """A warning for each thing beside the rows of a source that says of them and is not read.

    Files that may hold data, other splits, and a mapping of columns.

    Raises:
        AxtuneError: When the source cannot be looked up.
    """
    if source.path.startswith(HUB):
        return []  # of a Hub data set only what axtune reads is downloaded
    splits, split = held_out(source.path, source.split), split_read(source.path, source.split)
    if source.split == AUTO and split != "train":
        others = [Fault(source.path, 0, "left-out", _evaluated_on(split, splits), "warning")]
    else:
        others = [
            Fault(source.path, 0, "left-out", _other_split(name, len(files), split), "warning")
            for name, files in splits.items()
        ]
    mapped = {file: unread_mapping(file) for file in files_of(source)}
    others += [
        Fault(str(file), 0, "unread-mapping", _mapping_says(said), "warning")
        for file, said in mapped.items()
        if said
    ]
    return others + [
        Fault(str(path), 0, "left-out", _left_out(path), "warning")
        for path in left_out(source.path, source.split)
    ]


def _left_out(path: Path) -> str:
    if path.is_dir():
        return f"it is left out: {why_unread(path)}."
    return f"the file is left out: {why_unread(path)}; axtune reads {READ}."


def _mapping_says(said: list[str]) -> str:
    return (
        f"{DATASET_INFO} beside it (LLaMA-Factory's) says {', '.join(said)}, which is not read: "
        "each key is taken by its name. Rename the keys in the rows; data_templates/README.md has "
        "their names."
    )


def _other_split(name: str, files: int, split: str) -> str:
    what = "1 file or folder is" if files == 1 else f"{files} files are"
    if not name:
        return f"{what} left out: the card maps them to no split. Give their names to read them."
    return (
        f"{what} left out, of the split {name}; {split} is read. To read it as well, give its "
        f"files, or {{path: …, split: {name}}} in a recipe."
    )


def _evaluated_on(split: str, others: Splits) -> str:
    left = f", and {', '.join(sorted(filter(None, others)))} left out" if any(others) else ""
    return (
        f"its split {split} is evaluated on{left}. For another one give its files, or "
        "{path: …, split: …} as data.eval."
    )


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
    wanted = keyword(split)
    chosen = [file for file in files if wanted in splits[file]]
    if not chosen and not any(splits.values()):
        # A split of a name of its own, as a word of the file's name.
        chosen = [file for file in files if split in words(str(file.relative_to(folder)))]
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
    """The splits that a name says; of a shard the one that it names."""
    shard = SHARD.match(path.name)
    return frozenset((keyword(shard[1]),)) if shard else splits_said(path)


def _subset_of(path: Path) -> str:
    """The first folder above a file that neither is ``data`` nor says a split."""
    folders = (part for part in path.parts[:-1] if part != "data")
    return next((part for part in folders if not _splits_of(Path(part))), "")
