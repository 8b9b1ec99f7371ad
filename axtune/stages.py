"""The story of a recipe of stages: train each from the one before, then merge, export and ask.

A step is done once: ``stages.json`` in the common folder keeps, of each that is finished, a digest
of all that it hangs on: the keys of its recipe, the contents of its data, the base, the stages
before it. The same command passes over what is done and goes on within what was stopped; a stage
that has changed is trained anew, and the run that it was is kept beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from axtune.after import export_run, merge_run, verify_run
from axtune.checkpoint import locate
from axtune.checkpoint.atomic import write_text
from axtune.checkpoint.identity import recipe_facts
from axtune.checkpoint.leftovers import private_files
from axtune.checkpoint.locate import read_json
from axtune.checkpoint.provenance import original_digests
from axtune.checkpoint.record import differences
from axtune.checkpoint.run_dir import (
    EVALUATION,
    MERGED,
    REPORT,
    SERVED,
    STAGES,
    Run,
    open_run,
    read_manifest,
)
from axtune.checkpoint.run_lock import locked
from axtune.checkpoint.schemas import StagesRecord
from axtune.config.loader import data_options
from axtune.config.paths import HUB, require_writable
from axtune.config.recipe import Recipe, Source
from axtune.config.stages import Stages
from axtune.data.sources import digest, files_of
from axtune.errors import AxtuneError, CheckpointError
from axtune.evaluate.answers import ANSWERS
from axtune.evaluate.evaluate import BASE, Settings, evaluate
from axtune.evaluate.generate import Sampling
from axtune.evaluate.losses import LOSSES
from axtune.evaluate.results import RESULT, read_result
from axtune.evaluate.show import show_beside
from axtune.report.page import write_report
from axtune.run import train
from axtune.training.progress import Report
from axtune.verify.certificate import FILE as CERTIFICATE

# What can follow the last stage: where its result is, and what makes it of the run.
_MADE: dict[str, tuple[str, Callable[[Run, Report], Path]]] = {
    "merge": (MERGED, merge_run),
    "export": (SERVED, export_run),
}


@dataclass(frozen=True)
class Step:
    """Something that is done once.

    Attributes:
        name: Such as ``cpt``, ``merge``, ``evaluate sft``.
        key: Digest of all that it hangs on.
        there: Whether its result is where it belongs.
        work: Does it.
    """

    name: str
    key: str
    there: Callable[[], bool]
    work: Callable[[Report], None]


def run_stages(stages: Stages) -> Path:
    """Do what a recipe of stages says, or what is left of it.

    Args:
        stages: As resolved.

    Returns:
        The page on all stages.

    Raises:
        AxtuneError: Whatever the user can repair; what is done stays done.
        KeyboardInterrupt: After Ctrl-C or SIGTERM.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # as torchrun and accelerate say
        raise AxtuneError(
            "A recipe of stages runs in one process.",
            "Train its stages one by one with accelerate launch, each with start_from= the run "
            "before it.",
        )
    require_writable(stages.output_dir)
    with Report() as report, locked(Path(stages.output_dir)):
        record = _Record(Path(stages.output_dir) / STAGES)
        steps = list(_steps(stages, record))
        done = [record.has(step) and step.there() for step in steps]
        names = [f"{step.name} (done)" if was else step.name
                 for step, was in zip(steps, done, strict=True)]  # fmt: skip
        report.table([("stages", ", ".join(names))])
        for number, (step, was) in enumerate(zip(steps, done, strict=True), 1):
            if was:
                continue
            report.heading(f"{step.name} ({number} of {len(steps)})")
            began = time.monotonic()
            try:
                step.work(report)
            except KeyboardInterrupt:
                report.say("What is done is kept: the same command goes on from here.", "yellow")
                raise
            record.finish(step, time.monotonic() - began)
        return _end(stages, report)


def _end(stages: Stages, report: Report) -> Path:
    """What has become of the model, on the screen and as a page."""
    folders = {name: Path(recipe.output_dir) for name, recipe in stages.recipes.items()}
    if stages.evaluate and report.enabled:
        results = {name: read_result(folder / EVALUATION) for name, folder in folders.items()}
        show_beside(report.console, results)
    page = write_report([*folders.values()], Path(stages.output_dir) / REPORT)
    report.table([("report", str(page))])
    return page


# --- what is to be done ---------------------------------------------------------------------------


def _steps(stages: Stages, record: _Record) -> Iterator[Step]:
    """All steps in their order."""
    *_, last = stages.recipes.values()
    base = locate.find(stages.model, revision=last.revision)
    key = _key(original_digests(base))
    trained = {}
    for name, recipe in stages.recipes.items():
        key = trained[name] = _key(key, _facts(recipe))
        yield Step(
            name, key, partial(_is_trained, recipe), partial(_train, recipe, name, key, record)
        )
    folders = []
    for name, (place, make) in _MADE.items():
        if name in stages.after:
            folder = Path(last.output_dir) / place
            folders.append(folder)
            yield Step(
                name, _key(key, name), partial(_is_whole, folder), partial(_make, last, make)
            )
    if "verify" in stages.after:
        certificates = [folder / CERTIFICATE for folder in folders]
        yield Step(
            "verify", _key(key, "verify", [folder.name for folder in folders]),
            partial(_all_there, certificates), partial(_verify, last, folders),
        )  # fmt: skip
    if stages.evaluate:
        asked = _key(stages.evaluate.model_dump(), stages.seed, _digests(stages.evaluate.data))
        before: Path | None = None
        for name, recipe in stages.recipes.items():
            folder = Path(recipe.output_dir) / EVALUATION
            yield Step(
                f"evaluate {name}", _key(trained[name], asked),
                partial(_all_there, [folder / RESULT]), partial(_ask, stages, recipe, before),
            )  # fmt: skip
            before = folder


def _train(recipe: Recipe, name: str, key: str, record: _Record, report: Report) -> None:
    """Train a stage, or go on with it; a run that another recipe or other data made is kept."""
    folder = Path(recipe.output_dir)
    if record.begun.get(name) != key:
        if folder.exists() and any(folder.iterdir()):
            kept = next(
                place for number in count(1)
                if not (place := folder.with_name(f"{name}-{number}")).exists()
            )  # fmt: skip
            folder.rename(kept)
            report.say(f"{name} has changed; the run that it was is kept in {kept}.", "yellow")
        record.begin(name, key)
    if not _is_trained(recipe):
        train(recipe.model_copy(update={"resume": folder.exists()}))


def _is_trained(recipe: Recipe) -> bool:
    folder = Path(recipe.output_dir)
    try:
        finished = read_manifest(folder).get("status") == "finished"
    except CheckpointError:
        return False
    return finished and _is_whole(folder / "adapter")


def _is_whole(folder: Path) -> bool:
    return folder.is_dir() and not differences(folder)


def _all_there(files: Iterable[Path]) -> bool:
    return all(file.is_file() for file in files)


def _make(recipe: Recipe, make: Callable[[Run, Report], Path], report: Report) -> None:
    make(open_run(recipe.output_dir), report)


def _verify(recipe: Recipe, folders: Iterable[Path], report: Report) -> None:
    run = open_run(recipe.output_dir)
    for folder in folders:
        verify_run(run, folder, report)


def _ask(stages: Stages, recipe: Recipe, before: Path | None, report: Report) -> None:
    """Ask the model of a stage and the base; what the base said to an earlier stage is taken."""
    assert stages.evaluate is not None
    folder = Path(recipe.output_dir) / EVALUATION
    if before:
        with private_files():
            folder.mkdir(exist_ok=True)
            for name in (ANSWERS, LOSSES):
                if (before / name).is_file() and not (folder / name).exists():
                    shutil.copyfile(before / name, folder / name)
    settings = Settings(
        data=stages.evaluate.data,
        against=BASE,
        sampling=Sampling(max_new_tokens=stages.evaluate.max_new_tokens),
        seed=stages.seed,
        limit=stages.evaluate.limit,
    )
    evaluate(recipe.output_dir, settings, report)


# --- what it hangs on -----------------------------------------------------------------------------


def _key(*facts: object) -> str:
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _facts(recipe: Recipe) -> Mapping[str, Any]:
    """What decides what a stage trains: its keys, how long it is, and the contents of its files."""
    data = recipe.data
    held_out = data.eval if isinstance(data.eval, list) else []
    own_kinds = [data.privacy_kinds] if data.privacy_kinds else []
    return {
        **recipe_facts(recipe),
        "training": recipe.training,
        "precision": recipe.precision,
        "early_stopping_patience": recipe.early_stopping_patience,
        "rows": [_digests_of(source) for source in (*data.sources, *held_out)],
        "files": [digest(Path(file)) for file in own_kinds],
    }


def _digests(paths: Iterable[str]) -> list[list[str]]:
    return [_digests_of(source) for source in data_options([*paths]).train]


def _digests_of(source: Source) -> list[str]:
    """The contents of a source's files; of a Hub data set its name."""
    if source.path.startswith(HUB):
        return [source.path]
    return [digest(file) for file in files_of(source)]


class _Record:
    """What was begun and what is done, by name, each with what it hung on.

    Args:
        file: ``stages.json``; need not be there.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.begun: dict[str, str] = {}
        self._done: dict[str, dict[str, Any]] = {}
        if file.is_file():
            values = read_json(file, StagesRecord)
            self.begun, self._done = values["begun"], values["done"]

    def has(self, step: Step) -> bool:
        """Whether a step is done, and nothing has changed since."""
        return self._done.get(step.name, {}).get("key") == step.key

    def begin(self, name: str, key: str) -> None:
        self.begun[name] = key
        self._write()

    def finish(self, step: Step, seconds: float) -> None:
        self._done[step.name] = {"key": step.key, "seconds": round(seconds, 1)}
        self._write()

    def _write(self) -> None:
        values = {"begun": self.begun, "done": self._done}
        write_text(self._file, json.dumps(values, indent=2) + "\n")
