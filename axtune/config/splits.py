"""Which files of a folder are those of a split: by their names, or as a data set's card says.

Names are read as ``datasets`` documents it: ``train``, ``test``, ``dev`` and their like between
delimiters, in the name of a file or of the nearest folder that says one. What is held out must not
be trained on because it lies in the same folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from axtune.errors import AxtuneError

KEYWORDS = {
    "train": frozenset(("train", "training")),
    "validation": frozenset(("validation", "valid", "val", "dev")),
    "test": frozenset(("test", "testing", "eval", "evaluation")),
}
# The split of what is evaluated on, where a recipe names none: the first of these, or else train.
AUTO = "auto"
HELD_OUT = ("validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")
SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(?!\d)")  # train_sft-00000-of-00003.parquet
_DELIMITERS = re.compile(r"[-._ 0-9/]+")
_CARD = "README.md"
_FRONT = re.compile(r"---\s*\n(.*?)\n---\s*(?:\n|$)", re.DOTALL)

Splits = dict[str, list[Path]]


def keyword(split: str) -> str:
    """The name under which a split is known: ``validation`` of ``dev``; another as it is."""
    return next((key for key, words in KEYWORDS.items() if split in words), split)


def words(name: str) -> set[str]:
    """The parts of a path between its delimiters, in lower case."""
    return {word for word in _DELIMITERS.split(name.lower()) if word}


def splits_said(path: Path) -> frozenset[str]:
    """The splits that the name of a file says, or else the nearest folder's that says one."""
    for part in reversed(path.parts):
        said = words(part)
        if found := frozenset(k for k, known in KEYWORDS.items() if known & said):
            return found
    return frozenset()


def of_split(folder: Path, files: Sequence[Path], split: str) -> tuple[list[Path], Splits]:
    """The files of a local folder that belong to a split, and those that belong to others.

    A file whose name says no split belongs to ``train``; one that a card does not map, to the split
    without a name.

    Args:
        folder: Where the files lie, at whatever depth.
        files: All of its data files.
        split: The one that is wanted.

    Raises:
        AxtuneError: When the folder has no such split, or a card that names several subsets.
    """
    wanted = keyword(split)
    found = _by_card(folder, files) or _by_name(folder, files, split)
    chosen = found.pop(wanted, [])
    if not chosen and files:
        names = sorted(filter(None, found)) or [split]
        raise AxtuneError(
            f"{folder} has no split {split}; it has {', '.join(names)}.",
            f"Give its files, or {{path: {folder}, split: {names[0]}}} in a recipe.",
        )
    return chosen, found


def _by_name(folder: Path, files: Sequence[Path], split: str) -> Splits:
    wanted = keyword(split)
    out: Splits = {}
    for file in files:
        place = file.relative_to(folder)
        shard = SHARD.match(file.name)
        said = splits_said(place) or {"train"}
        own = wanted not in KEYWORDS and split in (shard[1] if shard else "", *words(str(place)))
        out.setdefault(wanted if own or wanted in said else min(said), []).append(file)
    return out


# --- the card of a data set -------------------------------------------------------------------


def _by_card(folder: Path, files: Sequence[Path]) -> Splits:
    """The files of each split as the card's ``configs`` map them; nothing without such a card.

    Raises:
        AxtuneError: When it has several subsets and says of none that it is the usual one.
    """
    configs = [config for config in _configs(folder / _CARD) if config.get("data_files")]
    usual = [c for c in configs if c.get("default") is True or c.get("config_name") == "default"]
    if len(configs) > 1 and not usual:
        names = ", ".join(str(config.get("config_name")) for config in configs)
        raise AxtuneError(
            f"{folder} has several subsets, by its {_CARD}: {names}.",
            "Give the files or the folder of one of them.",
        )
    out: Splits = {}
    for config in (usual or configs)[:1]:
        for split, pattern in _patterns(config["data_files"]):
            known = out.setdefault(keyword(split), [])
            known += [file for file in files if file not in known and _fits(folder, file, pattern)]
    out = {split: found for split, found in out.items() if found}
    if unmapped := [file for file in files if out and not any(file in f for f in out.values())]:
        out[""] = unmapped
    return out


def _configs(card: Path) -> list[dict[str, Any]]:
    try:
        front = _FRONT.match(card.read_text(encoding="utf-8"))
        said = YAML(typ="safe").load(front[1]) if front else None
    except (OSError, ValueError, YAMLError, RecursionError):
        return []
    configs = said.get("configs") if isinstance(said, dict) else None
    return [c for c in configs if isinstance(c, dict)] if isinstance(configs, list) else []


def _patterns(data_files: Any) -> list[tuple[str, str]]:
    """Each split and pattern of ``data_files``: a pattern, a list of them, or by splits."""
    if isinstance(data_files, str):
        return [("train", data_files)]
    if isinstance(data_files, dict):
        data_files = [{"split": split, "path": paths} for split, paths in data_files.items()]
    out: list[tuple[str, str]] = []
    for item in data_files if isinstance(data_files, list) else []:
        split, paths = ("train", item)
        if isinstance(item, dict):
            split, paths = str(item.get("split", "train")), item.get("path")
        each = paths if isinstance(paths, list) else [paths]
        out += [(split, pattern) for pattern in each if isinstance(pattern, str)]
    return out


def _fits(folder: Path, file: Path, pattern: str) -> bool:
    """Whether a file is one that a pattern of a card means; ``**`` goes through folders."""
    parts = [
        ".*" if part == "**" else re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        for part in pattern.removeprefix("./").split("/")
    ]
    form = "/".join(parts).replace(".*/", "(?:.*/)?")
    return re.fullmatch(form, file.relative_to(folder).as_posix()) is not None
