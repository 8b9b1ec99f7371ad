"""The checkpoints of a run, ``checkpoints/checkpoint-STEP``: written whole, checked, rotated.

A checkpoint gets its name when everything is in it and on the disk. Names that begin with a dot are
of one that is being written or removed; a killed run leaves them, and the next one clears them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axtune.checkpoint.atomic import flush, fsync, reason_of, write_text
from axtune.checkpoint.record import RECORD, Record, differences, record_of
from axtune.errors import AxtuneError

STATE = "trainer_state.json"  # of transformers' Trainer
OPTIMIZER = "optimizer"  # as `axtune.training.plain_state` names its files
_SAVING = ".saving"
_REMOVING = ".removing"
_DAMAGED = ".damaged"


@dataclass(frozen=True)
class Newest:
    """What training may go on from.

    Attributes:
        checkpoint: The newest checkpoint that is as it was written; None when there is none.
        damaged: The newer ones, each with what is wrong with it.
    """

    checkpoint: Path | None
    damaged: dict[Path, str]

    def notes(self) -> list[str]:
        """What a user should know of it, a sentence each."""
        instead = self.checkpoint.name if self.checkpoint else "the beginning"
        return [
            f"{folder} is damaged: {what}. Going on from {instead} instead."
            for folder, what in self.damaged.items()
        ]


def step_of(checkpoint: Path) -> int:
    """The optimiser step that a checkpoint folder's name tells."""
    return int(checkpoint.name.partition("-")[2])


def all_checkpoints(checkpoints: Path) -> list[Path]:
    """The checkpoints of a run that have their names, oldest first, sound or not."""
    found = [
        folder
        for folder in checkpoints.glob("checkpoint-*")
        if folder.name.partition("-")[2].isdecimal() and folder.is_dir()
    ]
    return sorted(found, key=step_of)


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is whole by its names; nothing of it is read."""
    whole = [
        folder
        for folder in all_checkpoints(checkpoints)
        if (folder / RECORD).is_file() or (folder / STATE).is_file()
    ]
    return whole[-1] if whole else None


def newest_sound(checkpoints: Path) -> Newest:
    """The newest checkpoint whose every byte is what was written."""
    damaged = {}
    for folder in reversed(all_checkpoints(checkpoints)):
        if faults := _faults(folder):
            damaged[folder] = "; ".join(faults)
        else:
            return Newest(folder, damaged)
    return Newest(None, damaged)


def _faults(checkpoint: Path) -> list[str]:
    if (checkpoint / RECORD).is_file():
        if faults := differences(checkpoint):
            return faults
        step = facts_of(checkpoint).get("step")
        return [] if step == step_of(checkpoint) else [f"it is the checkpoint of step {step}"]
    if (checkpoint / f"{OPTIMIZER}.json").is_file():
        return [f"{RECORD} is missing"]
    # Versions that kept no record wrote this file last; `require_resumable` has more to say.
    return [] if (checkpoint / STATE).is_file() else ["it is incomplete"]


def facts_of(checkpoint: Path) -> dict[str, Any]:
    """What the run that wrote a checkpoint said of it; empty where it left no record."""
    record = Record.read(checkpoint)
    return record.facts if record else {}


def require_resumable(checkpoint: Path) -> None:
    """Refuse a checkpoint from which the same run cannot go on.

    Raises:
        AxtuneError: When it holds no optimizer, or one that an older version pickled.
    """
    fork = "Begin a new run from its weights: resume=fork."
    if not (checkpoint / RECORD).is_file():
        raise AxtuneError(
            f"{checkpoint} was saved by an older version of axtune: its optimizer is in pickle "
            "files, which can run code and are not read.",
            f"{fork} Merging and exporting it work as before.",
        )
    if not (checkpoint / f"{OPTIMIZER}.json").is_file():
        raise AxtuneError(
            f"{checkpoint} holds weights alone (training.save_only_model=true): without optimizer "
            "and schedule the run cannot go on as it was.",
            fork,
        )


def begin_saving(checkpoints: Path) -> Path:
    """The hidden folder in which the next checkpoint is made, empty."""
    folder = checkpoints / _SAVING
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def saving_in(checkpoints: Path) -> Path:
    """Where `begin_saving` made that folder, for the processes beside."""
    return checkpoints / _SAVING


def publish(made: Path, facts: Mapping[str, Any]) -> Path:
    """Give a checkpoint that `begin_saving` had made its record and its name.

    Args:
        made: ``.saving/checkpoint-STEP``, with all of its files.
        facts: What is to be known of it besides its step.

    Returns:
        Where it is now.
    """
    target = made.parents[1] / made.name
    state = made / STATE
    values = json.loads(state.read_text(encoding="utf-8"))
    # The best checkpoint's path is one of this machine, and wrong once the folder moves; the run
    # finds it again by its step.
    values["best_model_checkpoint"] = None
    write_text(state, json.dumps(values, indent=2) + "\n")
    with ThreadPoolExecutor(1) as pool:  # while the disk is waited for, all is hashed
        flushed = pool.submit(flush, made)
        record = record_of(made, facts={"step": step_of(made), **facts})
        flushed.result()
    record.write(made)
    fsync(made / RECORD)
    fsync(made)
    _remove(target)  # of a run that came further before and went back to an older checkpoint
    made.rename(target)
    fsync(target.parent)
    discard_saving(target.parent)
    return target


def discard_saving(checkpoints: Path) -> None:
    """Remove what a save left that was not finished."""
    shutil.rmtree(checkpoints / _SAVING, ignore_errors=True)


def not_saved(checkpoints: Path, step: int, error: Exception) -> AxtuneError:
    """What to tell of a checkpoint that could not be written."""
    before = last_checkpoint(checkpoints)
    kept = f"{before.name} is whole" if before else "no checkpoint was saved before it"
    return AxtuneError(
        f"The checkpoint of step {step} cannot be written to {checkpoints}: {reason_of(error)}; "
        f"{kept}.",
        "Free some space, and go on with the same command and resume=true.",
    )


def rotate(newest: Path, best_step: int | None, limit: int | None) -> None:
    """Remove the oldest checkpoints.

    Args:
        newest: The one that was just written; it stays.
        best_step: Of the best one, which stays as well.
        limit: How many to keep; None or 0 keeps all.
    """
    if not limit:
        return
    others = [
        folder
        for folder in all_checkpoints(newest.parent)
        if folder != newest and step_of(folder) != best_step
    ]
    kept = len(all_checkpoints(newest.parent))
    for folder in others:
        if kept > max(limit, 1):
            _remove(folder)
            kept -= 1


def clear(checkpoints: Path, after: int) -> None:
    """Make the folder ready for a run that begins, or goes on, at a step.

    Args:
        checkpoints: The run's.
        after: The step; checkpoints beyond it are damaged, and get a name that says so.
    """
    for leftover in (_SAVING, _REMOVING):
        shutil.rmtree(checkpoints / leftover, ignore_errors=True)
    for folder in all_checkpoints(checkpoints):
        if step_of(folder) > after:
            aside = folder.with_name(folder.name + _DAMAGED)
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)


def _remove(folder: Path) -> None:
    """Remove a checkpoint; killed on the way, it has lost its name."""
    if not folder.exists():
        return
    doomed = folder.with_name(_REMOVING)
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
