"""The runs in a folder, a line each: what they are, how far they came, what they take."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from axtune.checkpoint.leftovers import size_of, spare_bytes
from axtune.checkpoint.run_dir import (
    EVALUATION,
    read_manifest,
    read_metrics,
    require_whole,
    stages_of,
)
from axtune.checkpoint.run_lock import is_held
from axtune.config.paths import is_run
from axtune.errors import AxtuneError
from axtune.evaluate.results import RESULT, read_result
from axtune.report.facts import ABSENT
from axtune.units import gigabytes, plural

_COLUMNS = ("run", "status", "task", "base", "data", "steps", "loss", "held out", "evaluation",
            "size", "spare")  # fmt: skip
# What a terminal does without that is too narrow for all of them, the first one first.
_LESS = ("data", "base", "task", "held out", "spare", "evaluation", "size", "loss")
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Listed:
    """A run folder.

    Attributes:
        path: From the folder that was asked for; ``.`` for that folder itself.
        status: ``finished``, ``interrupted``, ``failed``, ``running``, ``killed`` (it says running,
            and no process holds it) or ``damaged``.
        task: Of its recipe.
        base: The model it was trained from.
        data: The first eight digits of the digest of what it was trained on.
        steps: That it made, of how many it was to make where that is known.
        loss: The last one of training, in nats a token.
        held_out: The lowest one of held-out rows.
        evaluation: The first figure of its evaluation: metric, value, number of questions.
        bytes: On the disk.
        checkpoints: Of them in checkpoints.
        spare: Of those that ``axtune clean --checkpoints`` would remove.
        fault: What is wrong with a damaged one.
    """

    path: str
    status: str
    task: str | None = None
    base: str | None = None
    data: str | None = None
    steps: tuple[int, int | None] | None = None
    loss: float | None = None
    held_out: float | None = None
    evaluation: tuple[str, float, int] | None = None
    bytes: int = 0
    checkpoints: int = 0
    spare: int = 0
    fault: str | None = None


def list_runs(folder: str | Path) -> list[Listed]:
    """The runs in a folder and in the folders below it, by name.

    Args:
        folder: A run itself, or what runs lie in.

    Raises:
        AxtuneError: When it is no folder.
    """
    top = Path(folder)
    if not top.is_dir():
        found = f"{folder} is not a folder." if top.exists() else f"There is no folder {folder}."
        raise AxtuneError(found, "Give one that runs lie in: axtune runs FOLDER.")
    return [_listed(run, str(run.relative_to(top))) for run in _runs_below(top)]


def _runs_below(top: Path) -> Iterator[Path]:
    """Run folders, whole and damaged; what lies in a run is its own."""
    for place, folders, _ in os.walk(top):
        here = Path(place)
        if is_run(here) or (not stages_of(here) and _lost_a_part(here)):
            folders.clear()
            yield here
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _lost_a_part(folder: Path) -> bool:
    try:
        require_whole(folder)
    except AxtuneError:
        return True
    return False


def _listed(run: Path, path: str) -> Listed:
    size, of_checkpoints = size_of(run), size_of(run / "checkpoints")
    try:
        require_whole(run)
        manifest = read_manifest(run)
        losses = read_metrics(run / "metrics.jsonl")
        evaluation = _evaluation(run)
    except AxtuneError as error:
        return Listed(
            path, "damaged", bytes=size, checkpoints=of_checkpoints, fault=str(error.found)
        )
    status = str(manifest.get("status"))
    if status == "running" and not is_held(run):
        status = "killed"
    trained, held_out = _numbers(losses, "loss"), _numbers(losses, "eval_loss")
    made = max((int(event.get("step") or 0) for event in losses), default=0)
    return Listed(
        path=path,
        status=status,
        task=manifest.get("task"),
        base=(manifest.get("base") or {}).get("name"),
        data=_digest(manifest),
        steps=(made, (manifest.get("plan") or {}).get("steps")),
        loss=trained[-1] if trained else None,
        held_out=min(held_out, default=None),
        evaluation=evaluation,
        bytes=size,
        checkpoints=of_checkpoints,
        spare=spare_bytes(run),
    )


def _numbers(events: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [event[key] for event in events if isinstance(event.get(key), (int, float))]


def _evaluation(run: Path) -> tuple[str, float, int] | None:
    if not (run / EVALUATION / RESULT).is_file():
        return None
    first = next(iter(read_result(run / EVALUATION).measured), None)
    return (first.metric, first.value.value, first.n) if first else None


def _digest(manifest: dict[str, Any]) -> str | None:
    """One for all training files, whatever their names and their order."""
    digests = ((manifest.get("data") or {}).get("train") or {}).get("digests") or {}
    if not digests:
        return None
    return hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()[:8]


def show_runs(console: Console, runs: Sequence[Listed], folder: str) -> None:
    """Print the runs as a table, and below it what may be cleaned.

    Args:
        console: Where to.
        runs: Of `list_runs`.
        folder: As the user named it.
    """
    if not runs:
        console.print(f"There are no runs in {folder}.", highlight=False)
        return
    lines = [_cells(run) for run in runs]
    columns = [name for name in _COLUMNS if any(line[name] != ABSENT for line in lines)]
    unbroken = console.options.update(max_width=_NO_LIMIT)
    for name in ("", *_LESS):
        columns = [column for column in columns if column != name]
        table = _table(columns, lines)
        if Measurement.get(console, unbroken, table).maximum <= console.width:
            break
    console.print(table)
    for run in runs:
        if run.fault:
            console.print(Text(f"{run.path}: {run.fault}", "yellow"))
    finished = [run for run in runs if run.spare]
    if finished:
        total = gigabytes(sum(run.spare for run in finished))
        console.print(
            f"Checkpoints of {plural(len(finished), 'finished run')} take {total}; "
            "axtune clean RUN --checkpoints removes a run's.",
            highlight=False,
        )


def _table(columns: Sequence[str], lines: Sequence[dict[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        words = name in ("run", "base")
        right = name in ("steps", "loss", "held out", "size", "spare")
        table.add_column(
            name,
            overflow="fold" if words else "ellipsis",
            no_wrap=not words,
            justify="right" if right else "left",
        )
    for line in lines:
        table.add_row(*(Text(line[name]) for name in columns))
    return table


def _cells(run: Listed) -> dict[str, str]:
    steps = ABSENT
    if run.steps:
        made, planned = run.steps
        steps = f"{made:,}/{planned:,}" if planned and planned != made else f"{made:,}"
    evaluation = ABSENT
    if run.evaluation:
        metric, value, _ = run.evaluation
        evaluation = f"{metric} {value:.0%}" if value <= 1 else f"{metric} {value:.1f}"
    return {
        "run": run.path,
        "status": run.status,
        "task": run.task or ABSENT,
        "base": _short(run.base),
        "data": run.data or ABSENT,
        "steps": steps,
        "loss": ABSENT if run.loss is None else f"{run.loss:.3f}",
        "held out": ABSENT if run.held_out is None else f"{run.held_out:.3f}",
        "evaluation": evaluation,
        "size": gigabytes(run.bytes),
        "spare": gigabytes(run.spare) if run.spare else ABSENT,
    }


def _short(base: str | None) -> str:
    """A base by its last name: what tells models apart stands there."""
    return Path(base).name if base else ABSENT
