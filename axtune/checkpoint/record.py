"""The record of a folder: what each of its files was when the folder was written.

Whatever axtune writes to be read again (checkpoints of a run, adapters, merged, exported and
quantised folders) holds a small JSON file with the size and the SHA-256 of every other file. It is
written last and read before the folder is used, so that a flipped bit, a lost file or half a copy
has a name before it costs a run. Folders without a record, from elsewhere, are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axtune.checkpoint.atomic import RESUMES, write_text
from axtune.errors import CheckpointError

RECORD = "axtune-files.json"

_FORMAT = 1
# Cards are for people, who may write into them.
_NOT_RECORDED = (RECORD, RESUMES, "README.md", "SERVING.md", "Modelfile")
# SHA-256 lets go of Python's lock; more threads than this only compete with what runs besides.
_THREADS = 4


@dataclass(frozen=True)
class Record:
    """What a folder was when it was written.

    Attributes:
        files: Size and SHA-256 of each file, by its path in the folder.
        facts: What else its writer wanted to be known, such as the run a checkpoint is of.
    """

    files: dict[str, tuple[int, str]]
    facts: dict[str, Any] = field(default_factory=dict)

    def _seal(self) -> str:
        """The record's own SHA-256: it is a file like the others."""
        text = json.dumps([_FORMAT, self.files, self.facts], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Leave the record in its folder."""
        files = {name: {"bytes": size, "sha256": sha} for name, (size, sha) in self.files.items()}
        value = {"format": _FORMAT, "files": files, "facts": self.facts, "sha256": self._seal()}
        write_text(folder / RECORD, json.dumps(value, ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record of a folder; None when it has none.

        Raises:
            CheckpointError: When the record itself is damaged.
        """
        file = folder / RECORD
        if not file.is_file():
            return None
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
            files = {
                str(name): (int(entry["bytes"]), str(entry["sha256"]))
                for name, entry in value["files"].items()
            }
            record = cls(files, dict(value["facts"]))
            intact = value["format"] == _FORMAT and value["sha256"] == record._seal()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            intact = False
        if not intact:
            raise CheckpointError(f"{file} is damaged.", "Copy the folder again.")
        return record


def record_of(
    folder: Path, *, facts: Mapping[str, Any] | None = None, known: Mapping[str, str] | None = None
) -> Record:
    """The record of a folder whose files are all written; nothing is written here.

    Args:
        folder: The folder.
        facts: JSON to keep in the record.
        known: SHA-256 of files that were hashed while they were written, by name.
    """
    names = [
        file.relative_to(folder).as_posix()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in _NOT_RECORDED
    ]
    digests = _hashed(folder, [name for name in names if name not in (known or {})])
    digests.update(known or {})
    files = {name: ((folder / name).stat().st_size, digests[name]) for name in names}
    return Record(files, dict(facts or {}))


def write_record(
    folder: Path,
    *,
    known: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Record a folder whose files are all written, as `record_of` has it."""
    record_of(folder, known=known, facts=facts).write(folder)


def differences(folder: Path, besides: Collection[str] = ()) -> list[str]:
    """What is not as the folder's record says, a clause each; nothing where it has no record.

    Args:
        folder: With a record or without.
        besides: Files that are not looked at, since nobody takes them from there.
    """
    try:
        record = Record.read(folder)
    except CheckpointError:
        return [f"{RECORD} is damaged"]
    if record is None:
        return []
    found, same_size = {}, []
    for name, (size, _) in record.files.items():
        if name in besides:
            continue
        file = folder / name
        if not file.is_file():
            found[name] = f"{name} is missing"
        elif (now := file.stat().st_size) != size:
            found[name] = f"{name} has {now:,} bytes instead of {size:,}"
        else:
            same_size.append(name)
    for name, digest in _hashed(folder, same_size).items():
        if digest != record.files[name][1]:
            found[name] = f"{name} is not what was written (its SHA-256 differs)"
    return [found[name] for name in record.files if name in found]


def require_as_written(folder: Path, remedy: str = "", besides: Collection[str] = ()) -> None:
    """Refuse a folder that is not as its record says.

    Args:
        folder: With a record or without.
        remedy: What to do instead, a sentence.
        besides: As for `differences`.

    Raises:
        CheckpointError: With every difference.
    """
    if found := differences(folder, besides):
        raise CheckpointError(
            f"{folder} is damaged: {'; '.join(found)}.",
            f"{remedy or 'Copy or make it again.'} If you changed it on purpose, remove {RECORD}.",
        )


@contextmanager
def checked(folder: Path, besides: Collection[str] = ()) -> Iterator[None]:
    """Check a folder against its record while it is being read.

    Args:
        folder: With a record or without.
        besides: As for `differences`.

    Raises:
        CheckpointError: On leaving, with every difference; also in place of what reading raised.
    """
    with ThreadPoolExecutor(1) as pool:
        check = pool.submit(require_as_written, folder, besides=besides)
        try:
            yield
        except Exception:
            check.result()  # what it says comes before what a library says of the damage
            raise
        check.result()


def _hashed(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of some files of a folder."""
    if not names:
        return {}
    with ThreadPoolExecutor(min(_THREADS, len(names), os.cpu_count() or 1)) as pool:
        return dict(
            zip(names, pool.map(lambda name: file_sha256(folder / name), names), strict=True)
        )


def file_sha256(file: Path) -> str:
    """SHA-256 of a file; of nothing where it cannot be read, which is then a difference."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""
