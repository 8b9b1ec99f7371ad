"""The run folder: what a training run leaves behind, and how others open it.

    output_dir/
        adapter/        a plain PEFT adapter for the original base, with the tokenizer's files
        recipe.yaml     the recipe as resolved
        manifest.json   what was trained on what, with which versions, and how it ended
        metrics.jsonl   one JSON object for each log event
        loss.png        the curves
        report.html     all of this as one page (`axtune.report`)
        checkpoints/    what training resumes from, the best one among them
        evaluation/     what `axtune eval` asked and found
        logs/           TensorBoard's, for those who asked for them

Everything is written next to its place and renamed into it, so a reader never sees half a file. The
folder can be given to a stranger: it holds no rows, and no path but those that the user typed; only
``evaluation`` holds answers.
"""

from __future__ import annotations

import itertools
import json
import math
import platform
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axtune.checkpoint.atomic import replaced, write_text
from axtune.checkpoint.identity import changes, fork_facts, recipe_facts
from axtune.checkpoint.locate import ADAPTER_CONFIG, Checkpoint, read_json
from axtune.checkpoint.provenance import base_facts
from axtune.checkpoint.record import RECORD, Record, require_as_written, write_record
from axtune.checkpoint.saved_adapter import WEIGHTS
from axtune.checkpoint.schemas import RunManifest, StagesRecord
from axtune.checkpoint.steps import (
    clear,
    facts_of,
    last_checkpoint,
    newest_sound,
    require_resumable,
    step_of,
)
from axtune.config import loader
from axtune.config.paths import RUN_FILES, is_run
from axtune.config.recipe import Recipe
from axtune.errors import AxtuneError, CheckpointError
from axtune.units import package_version

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "tokenizers")

_FILES = ("recipe.yaml", "manifest.json", "metrics.jsonl")
MERGED = "merged"  # what `after` makes in the run's folder: the base's own layout
SERVED = "vllm"  # for a plain `vllm serve`
PRODUCTS = (MERGED, SERVED)
REPORT = "report.html"
EVALUATION = "evaluation"
LOGS = "logs"
STAGES = "stages.json"  # of a folder that holds the runs of stages: what was begun and what is done


@dataclass(frozen=True)
class RunDir:
    """The folder of one run, while it trains.

    Attributes:
        path: The folder.
        resumes_from: The checkpoint that training goes on from, or None for a fresh run.
        notes: What a user should know of how it was chosen, a sentence each.
    """

    path: Path
    resumes_from: Path | None
    notes: tuple[str, ...] = ()

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
        if self.resumes_from is None:
            shutil.rmtree(self.path / LOGS, ignore_errors=True)  # of a run that is begun again
        last = step_of(self.resumes_from) if self.resumes_from else -1
        clear(self.checkpoints, last)
        write_text(self.path / "recipe.yaml", loader.dump(recipe))
        self.write_manifest(manifest)
        # What came after the checkpoint is trained again, and would stand in the file twice.
        kept = [event for event in self.metrics() if event.get("step", 0) <= last]
        write_text(self.metrics_file, "".join(_json_line(event) for event in kept))

    def before(self) -> dict[str, dict[str, Any]]:
        """What the run was, as the checkpoint that it goes on from has it."""
        return dict(facts_of(self.resumes_from).get("run", {})) if self.resumes_from else {}

    def require_same(self, now: dict[str, dict[str, Any]]) -> None:
        """Refuse to go on with a run whose steps would mean something else.

        Args:
            now: Of `axtune.checkpoint.identity.identity`, all or some of its sections.

        Raises:
            AxtuneError: With every difference.
        """
        if self.resumes_from and (found := changes(self.before(), now)):
            raise AxtuneError(
                f"The run in {self.path} was another one: {'; '.join(found)}.",
                "Resume it with what it was started with; or begin a new run, from its weights "
                "with resume=fork or from nothing with output_dir=…",
            )

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
            write_record(folder)
        return target


@dataclass(frozen=True)
class Fork:
    """Where a forked run's weights come from.

    Attributes:
        weights: A checkpoint, or a finished run's adapter.
        facts: What the new run's manifest says of it.
        base: Digests of the files of the base that they are for.
    """

    weights: Path
    facts: dict[str, str]
    base: dict[str, str]


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

    @property
    def learned_documents(self) -> bool:
        """Whether it learned documents, and so how they end."""
        return self.recipe.objective.learns_documents


def open_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        AxtuneError: When the folder is not a run's, lost a part, or holds no trained adapter yet.
    """
    folder = require_run(path)
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
        newest = newest_sound(folder / "checkpoints")
        adapter = newest.checkpoint
        for damaged, what in newest.damaged.items():
            raise AxtuneError(
                f"{damaged} is damaged: {what}.",
                f"Give the one before it: {adapter}." if adapter else "Train it again.",
            )
    if adapter is None:
        raise AxtuneError(
            f"The run in {path} ({manifest.get('status', 'unknown')}) saved no adapter.",
            "It stopped before its first checkpoint, so train it again.",
        )
    if adapter.name == "adapter" and (trained := manifest.get("adapter_sha256")):
        _require_trained(adapter, trained)
    recipe = loader.load(folder / "recipe.yaml", check_paths=False)
    if adapter.name != "adapter" and recipe.start_merged:
        raise AxtuneError(
            f"The run in {path} has not finished, and its checkpoints fit the base that "
            f"{recipe.start_from} was merged into, not the original one.",
            "Finish it: train the same recipe with resume=true.",
        )
    return Run(folder, adapter, recipe, manifest)


def recorded_weights(adapter: Path) -> str | None:
    """The SHA-256 that an adapter's record gives its weights; None where it has no record.

    Raises:
        CheckpointError: When the record itself is damaged.
    """
    record = Record.read(adapter)
    return record.files.get(WEIGHTS, (0, None))[1] if record else None


def _require_trained(adapter: Path, trained: str) -> None:
    """Refuse another adapter in the place of a run's own, or one that nobody can check."""
    recorded = recorded_weights(adapter)
    if recorded != trained:
        found = "is not the one that this run trained"
        if recorded is None:
            found = f"lacks its record, {RECORD}, so it cannot be checked"
        raise AxtuneError(
            f"{adapter} {found}.",
            "Copy the run again. To take the adapter as it is, give a copy of it outside the run.",
        )


def require_run(path: str | Path) -> Path:
    """The folder of a run, finished or not.

    Raises:
        AxtuneError: When it is none, or lost a part.
    """
    folder = Path(path)
    require_whole(folder)
    if not is_run(folder):
        what = "is not a run folder" if folder.exists() else "does not exist"
        raise AxtuneError(
            f"{path} {what}.", "Give the folder that output_dir named; it holds manifest.json."
        )
    return folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """A run's ``manifest.json``."""
    return read_json(folder / "manifest.json", RunManifest)


def stages_of(folder: Path) -> list[Path]:
    """The runs of a folder of stages (`axtune.stages`), in their order; none of any other folder.

    What a run was before its stage changed is kept beside it, and no stage.
    """
    try:
        begun = read_json(folder / STAGES, StagesRecord)["begun"]
    except CheckpointError:  # there is none, or it is somebody else's
        return []
    return [path for name in begun if is_run(path := folder / name)]


def require_whole(folder: Path) -> None:
    """Refuse the folder of a run that was copied in part, or lost a file, and one of several runs.

    Any other folder passes.

    Raises:
        AxtuneError: When one of the two files that make it a run's is there, and not the other; or
            when it holds the runs of stages, which are named.
    """
    absent = _absent(folder)
    if absent and (stages := stages_of(folder)):
        names = ", ".join(stage.name for stage in stages)
        finished = [run for run in stages if read_manifest(run).get("status") == "finished"]
        raise AxtuneError(
            f"{folder} holds the runs of a recipe of stages: {names}.",
            f"Name one of them: {(finished or stages)[-1]}.",
        )
    if len(absent) == 1 and (folder / "metrics.jsonl").is_file():
        raise AxtuneError(
            f"The run in {folder} lacks {absent[0]}, which says how it was trained.",
            "Copy the folder again, with that file; or merge or export the adapter alone: "
            f"{folder / 'adapter'}.",
        )


def _absent(folder: Path) -> list[str]:
    """Which of the files that make a folder a run's are not there."""
    return [name for name in RUN_FILES if not (folder / name).is_file()]


def fork(recipe: Recipe) -> tuple[Recipe, Fork]:
    """A new run from the weights of the one in ``output_dir``, in a folder of its own beside it.

    Returns:
        The recipe with the new folder, ``NAME-fork`` or the next such name that is free, and where
        the weights are.

    Raises:
        AxtuneError: When there is no run, it has no sound weights, or the recipe's adapter or base
            is another one.
    """
    folder = Path(recipe.output_dir)
    require_whole(folder)
    if not is_run(folder):
        raise AxtuneError(
            f"resume is fork, but {folder} holds no run.",
            "Set output_dir to the run to begin from; the new one is made beside it.",
        )
    newest = newest_sound(folder / "checkpoints")
    weights = newest.checkpoint or folder / "adapter"
    if not (weights / ADAPTER_CONFIG).is_file():
        raise AxtuneError(
            f"{folder} holds no weights to begin from: "
            + ("; ".join(newest.notes()) or "it stopped before its first checkpoint."),
            "Train it anew with resume=false in another output_dir.",
        )
    if weights.name == "adapter":
        require_as_written(weights)
    before = loader.load(folder / "recipe.yaml", check_paths=False)
    if found := changes({"": fork_facts(before)}, {"": fork_facts(recipe)}):
        raise AxtuneError(
            f"The weights of {folder} do not fit this recipe: {'; '.join(found)}.",
            "Give these keys the values that they had.",
        )
    ends = itertools.chain(("",), itertools.count(2))
    places = (folder.with_name(f"{folder.name}-fork{end}") for end in ends)
    free = next(place for place in places if not (_holds_result(place) or _foreign(place)))
    base = read_manifest(folder)["base"]["digests"]
    update = {"output_dir": str(free), "resume": False}
    facts = {"run": recipe.output_dir, "weights": weights.name}
    return recipe.model_copy(update=update), Fork(weights, facts, base)


def claim(recipe: Recipe) -> RunDir:
    """Decide what a run does with its folder, before anything is loaded; writes nothing.

    Raises:
        AxtuneError: When ``output_dir`` holds a run that this one would overwrite, or somebody
            else's files; or the run to resume was another one, or saved too little to go on from.
    """
    folder = Path(recipe.output_dir)
    begun = _holds_result(folder)
    if not is_run(folder) and (foreign := _foreign(folder)):
        raise AxtuneError(
            f"output_dir {folder} holds other files: {', '.join(foreign[:3])}.",
            "Set output_dir to a folder of its own.",
        )
    if not recipe.resume:
        if begun:
            raise AxtuneError(
                f"{folder} already holds a run ({_status(folder)}).",
                "Continue it with resume=true, or train another with output_dir=…",
            )
        return RunDir(folder, None)
    newest = newest_sound(folder / "checkpoints")
    if newest.checkpoint is None:
        if (folder / "adapter" / ADAPTER_CONFIG).is_file():
            raise AxtuneError(
                f"The run in {folder} has an adapter, and no checkpoint to continue from.",
                "Begin a new run from its weights: resume=fork.",
            )
        notes = newest.notes() or [f"{folder} holds no checkpoint yet; beginning from the start."]
        return RunDir(folder, None, tuple(notes))
    require_resumable(newest.checkpoint)
    run_dir = RunDir(folder, newest.checkpoint, tuple(newest.notes()))
    run_dir.require_same({"recipe": recipe_facts(recipe)})
    _check_written_recipe(run_dir)
    return run_dir


def _check_written_recipe(run_dir: RunDir) -> None:
    """Refuse a ``recipe.yaml`` that is no longer what the run was started with."""
    file = run_dir.path / "recipe.yaml"
    remedy = f"Undo the change, or remove {file}: it is written anew."
    if not file.is_file():
        return
    try:
        written = loader.load(file, check_paths=False)
    except AxtuneError as error:
        raise AxtuneError(f"{file} is damaged: {error.found}", remedy) from None
    if found := changes(run_dir.before(), {"recipe": recipe_facts(written)}):
        raise AxtuneError(f"{file} has been changed: {'; '.join(found)}.", remedy)


def _holds_result(folder: Path) -> bool:
    """Whether a run left in a folder what somebody may want to keep."""
    results = [folder / "adapter" / ADAPTER_CONFIG, *(folder / name for name in PRODUCTS)]
    return last_checkpoint(folder / "checkpoints") is not None or any(map(Path.exists, results))


def _foreign(folder: Path) -> list[str]:
    """The names in a folder that no run writes."""
    if not folder.is_dir():
        return []
    own = {"adapter", "checkpoints", "loss.png", REPORT, EVALUATION, LOGS, *_FILES, *PRODUCTS}
    hidden = tuple(f".{name}." for name in own)  # what is written before it gets its name
    names = sorted(entry.name for entry in folder.iterdir())
    return [name for name in names if name not in own and not name.startswith(hidden)]


def _status(folder: Path) -> str:
    try:
        return str(read_manifest(folder).get("status"))
    except AxtuneError:  # damaged, or not yet written
        return "unknown"


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
    return list(_whole_lines(file.read_text(encoding="utf-8", errors="replace")))


def _whole_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            return
        if isinstance(event, dict) and isinstance(event.get("step"), int):
            yield event


def _json_line(event: dict[str, Any]) -> str:
    return json.dumps(_finite(event), ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
