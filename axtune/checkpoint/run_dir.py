"""The run folder: what a training run leaves behind, and how others open it.

    output_dir/
        adapter/        a plain PEFT adapter for the original base, with the tokenizer's files
        recipe.yaml     the recipe as resolved
        manifest.json   what was trained on what, with which versions, and how it ended
        metrics.jsonl   one JSON object for each log event
        loss.png        the curves
        checkpoints/    what training resumes from, the best one among them

Everything is written next to its place and renamed into it, so a reader never sees half a file. The
folder can be given to a stranger: it holds no rows, and no path but those that the user typed.
"""

from __future__ import annotations

import json
import math
import os
import platform
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axtune.checkpoint.atomic import replaced, write_text
from axtune.checkpoint.catalog import ADAPTER_CONFIG, Checkpoint, read_json
from axtune.checkpoint.provenance import base_facts
from axtune.config import loader
from axtune.config.recipe import Recipe
from axtune.errors import AxtuneError
from axtune.units import package_version

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "tokenizers")

# A resumed run must mean the same by its steps; everything else of a recipe may change.
_RESUME_KEYS = (
    "task", "model", "revision", "seed", "precision", "data", "lora", "quantization", "preference"
)  # fmt: skip


@dataclass(frozen=True)
class RunDir:
    """The folder of one run, while it trains.

    Attributes:
        path: The folder.
        resumes_from: The checkpoint that training goes on from, or None for a fresh run.
    """

    path: Path
    resumes_from: Path | None

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps its checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        """One JSON object for each log event."""
        return self.path / "metrics.jsonl"

    def begin(self, recipe: Recipe, manifest: dict[str, Any]) -> None:
        """Create the folder, or take up where the resumed run left off.

        Args:
            recipe: As resolved.
            manifest: As `describe` made it.
        """
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_text(self.path / "recipe.yaml", loader.dump(recipe))
        self.write_manifest(manifest)
        # What came after the checkpoint is trained again, and would stand in the file twice.
        last = step_of(self.resumes_from) if self.resumes_from else -1
        kept = [event for event in self.metrics() if event.get("step", 0) <= last]
        write_text(self.metrics_file, "".join(_json_line(event) for event in kept))

    def log(self, event: dict[str, Any]) -> None:
        """Append one event to ``metrics.jsonl``; numbers that are not finite become null."""
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(_json_line(event))

    def metrics(self) -> list[dict[str, Any]]:
        """All events so far."""
        return read_metrics(self.metrics_file)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace ``manifest.json``."""
        text = json.dumps(_finite(manifest), ensure_ascii=False, indent=2)
        write_text(self.path / "manifest.json", text + "\n")

    def write_adapter(self, fill: Callable[[Path], None]) -> Path:
        """Write ``adapter/`` whole or not at all.

        Args:
            fill: Writes the files into the empty folder that it is given.

        Returns:
            The finished folder.
        """
        target = self.path / "adapter"
        with replaced(target) as folder:  # a resumed run has the adapter of the one before
            fill(folder)
            for file in folder.iterdir():  # safetensors writes for the owner only
                file.chmod(stat.S_IMODE(self.path.stat().st_mode) & 0o666)
        return target


@dataclass(frozen=True)
class Run:
    """A run that finished, or stopped after its first checkpoint, as others read it.

    Attributes:
        path: The run folder.
        adapter: The adapter: ``adapter/``, or the newest checkpoint of a run that has not finished.
        recipe: The recipe as it was resolved.
        manifest: What `describe` wrote, with the run's end.
    """

    path: Path
    adapter: Path
    recipe: Recipe
    manifest: dict[str, Any]


def open_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        AxtuneError: When the folder is not a run's, or holds no trained adapter yet.
    """
    folder = Path(path)
    if not is_run(folder):
        what = "is not a run folder" if folder.is_dir() else "does not exist"
        raise AxtuneError(
            f"{path} {what}.", "Give the folder that output_dir named; it holds manifest.json."
        )
    manifest = read_manifest(folder)
    adapter: Path | None = folder / "adapter"
    if not (folder / "adapter" / ADAPTER_CONFIG).is_file():
        if manifest.get("status") == "finished":
            raise AxtuneError(
                f"The run in {path} has finished, and its adapter is not there: "
                f"{folder / 'adapter' / ADAPTER_CONFIG} is missing.",
                "Restore the folder from a copy, or give one of its checkpoints: "
                f"{folder / 'checkpoints'}.",
            )
        adapter = last_checkpoint(folder / "checkpoints")
    if adapter is None:
        raise AxtuneError(
            f"The run in {path} ({manifest.get('status', 'unknown')}) saved no adapter.",
            "It stopped before its first checkpoint, so train it again.",
        )
    recipe = loader.load(folder / "recipe.yaml", check_paths=False)
    if adapter.name != "adapter" and recipe.preference and recipe.preference.start_merged:
        raise AxtuneError(
            f"The run in {path} has not finished, and its checkpoints fit the base that "
            f"{recipe.preference.start_from} was merged into, not the original one.",
            "Finish it: train the same recipe with resume=true.",
        )
    return Run(folder, adapter, recipe, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """A run's ``manifest.json``."""
    return read_json(folder / "manifest.json")


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return (folder / "manifest.json").is_file() and (folder / "recipe.yaml").is_file()


def claim(recipe: Recipe) -> RunDir:
    """Decide where a run writes, before anything is loaded; writes nothing.

    Raises:
        AxtuneError: When ``output_dir`` cannot be written or holds a run that this one would
            overwrite, or the run to resume has no checkpoint or was another one.
    """
    folder = Path(recipe.output_dir)
    if files := [place for place in (folder, *folder.parents) if place.is_file()]:
        which = "it" if files[0] == folder else files[0]
        raise AxtuneError(
            f"output_dir {folder} cannot be a folder: {which} is a file.", "Set another output_dir."
        )
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise AxtuneError(
            f"output_dir {folder} cannot be written: you may not write into {nearest}.",
            "Set another output_dir.",
        )
    checkpoint = last_checkpoint(folder / "checkpoints")
    if recipe.resume:
        if checkpoint is None:
            raise AxtuneError(
                f"resume is true, but {folder} holds no checkpoint to continue from.",
                "Set resume=false to start from the beginning.",
            )
        _check_same_run(recipe, folder)
        return RunDir(folder, checkpoint)
    if is_run(folder):
        status = read_manifest(folder).get("status")
        # A run that broke before its first checkpoint left nothing worth keeping.
        if checkpoint is not None or status not in ("failed", "interrupted"):
            raise AxtuneError(
                f"{folder} already holds a run ({status}).",
                "Continue it with resume=true, or train another with output_dir=…",
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise AxtuneError(
            f"output_dir {folder} holds other files.", "Set output_dir to a folder of its own."
        )
    return RunDir(folder, None)


def _check_same_run(recipe: Recipe, folder: Path) -> None:
    """Refuse to resume with a recipe whose steps would mean something else."""
    before = loader.load(folder / "recipe.yaml", check_paths=False)
    changed = [key for key in _RESUME_KEYS if getattr(before, key) != getattr(recipe, key)]
    if changed:
        raise AxtuneError(
            f"The run in {folder} was started with another {', '.join(changed)}.",
            "Resume it with the recipe it was started with, or start a new run: output_dir=…",
        )


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is whole; the trainer writes its state file last."""
    found = [
        folder
        for folder in checkpoints.glob("checkpoint-*")
        if folder.name.partition("-")[2].isdigit() and (folder / "trainer_state.json").is_file()
    ]
    return max(found, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """The optimiser step that a checkpoint folder's name tells."""
    return int(checkpoint.name.partition("-")[2])


def describe(recipe: Recipe, checkpoint: Checkpoint, extra: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a run that is about to begin.

    Args:
        recipe: As resolved.
        checkpoint: What is loaded: the base, or a folder quantised from it.
        extra: The run's own facts: precision, counts, accounts of the data.
    """
    return {
        "axtune": package_version("axtune"),
        "status": "running",
        "task": recipe.task,
        "base": base_facts(checkpoint, recipe.revision),
        "seed": recipe.seed,
        **extra,
        "versions": {"python": platform.python_version()}
        | {name: version for name in _PACKAGES if (version := package_version(name))},
    }


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The events of a ``metrics.jsonl``; a last line cut short by a crash is left out."""
    if not file.is_file():
        return []
    return list(_whole_lines(file.read_text(encoding="utf-8")))


def _whole_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def _json_line(event: dict[str, Any]) -> str:
    return json.dumps(_finite(event), ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
