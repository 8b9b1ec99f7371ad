"""What a run folder says, as the page needs it; some of its files may not be there yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axtune.checkpoint.locate import read_json
from axtune.checkpoint.run_dir import (
    EVALUATION,
    PRODUCTS,
    read_manifest,
    read_metrics,
    require_run,
)
from axtune.config import loader
from axtune.config.recipe import Recipe, Source
from axtune.errors import AxtuneError
from axtune.evaluate.answers import Kept, read_answers
from axtune.evaluate.results import RESULT, Result, read_result
from axtune.training.progress import Event
from axtune.units import typed
from axtune.verify.certificate import FILE as CERTIFICATE

# Where a run lies and how it was begun says nothing of what was trained.
_NO_DIFFERENCE = ("output_dir", "resume", "after", "plan")
ABSENT = "–"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run, finished or not.

    Attributes:
        name: Of its folder; with several runs of one name, as many folders above as tell them
            apart.
        path: As the user gave it.
        manifest: As it was written.
        recipe: As it was resolved.
        events: Of ``metrics.jsonl``.
        result: Of its evaluation; None without one.
        answers: Of that evaluation, where they were asked for.
        certificates: Of the folders that were made from the run, by their names.
    """

    name: str
    path: str
    manifest: dict[str, Any]
    recipe: Recipe
    events: list[Event]
    result: Result | None
    answers: list[Kept]
    certificates: dict[str, dict[str, Any]]

    @property
    def best_step(self) -> int | None:
        """The step of the best checkpoint; None where nothing was held out."""
        step = self.manifest.get("metrics", {}).get("best_step")
        return None if step is None else int(step)


def read_run(path: str | Path, name: str, *, with_answers: bool = False) -> RunFacts:
    """Read a run folder.

    Args:
        path: The folder.
        name: What to call it.
        with_answers: Whether the answers of its evaluation are wanted: they are data.

    Raises:
        AxtuneError: When it is no run, or a file of it is damaged; or there are no answers.
    """
    folder = require_run(path)
    evaluation = folder / EVALUATION
    if with_answers and not (evaluation / RESULT).is_file():
        raise AxtuneError(
            f"{folder} has no evaluation, so it has no examples.",
            f"Evaluate it first: axtune eval {typed(path)}.",
        )
    made = {product: folder / product / CERTIFICATE for product in PRODUCTS}
    return RunFacts(
        name=name,
        path=str(path),
        manifest=read_manifest(folder),
        recipe=loader.load(folder / "recipe.yaml", check_paths=False),
        events=read_metrics(folder / "metrics.jsonl"),
        result=read_result(evaluation) if (evaluation / RESULT).is_file() else None,
        answers=read_answers(evaluation) if with_answers else [],
        certificates={name: read_json(file) for name, file in made.items() if file.is_file()},
    )


def names_of(paths: Sequence[str | Path]) -> list[str]:
    """A name for each run, as short as tells them apart.

    Raises:
        AxtuneError: When a run is given twice.
    """
    whole = [Path(path).resolve() for path in paths]
    if twice := {str(paths[n]) for n, path in enumerate(whole) if path in whole[:n]}:
        raise AxtuneError(f"{', '.join(sorted(twice))} is given twice.", "Give each run once.")
    for depth in range(1, max(len(path.parts) for path in whole)):
        names = ["/".join(path.parts[-depth:]) for path in whole]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The keys of a recipe with dots between their parts, and their values."""
    return dict(_flat("", recipe.model_dump()))


def differences(runs: Sequence[RunFacts]) -> list[tuple[str, list[str]]]:
    """The recipe's keys in which runs differ, each with its value in every run."""
    values = [recipe_values(run.recipe) for run in runs]
    keys = list(dict.fromkeys(key for one in values for key in one))
    rows = [(key, [in_words(one.get(key, ABSENT)) for one in values]) for key in keys]
    return [
        (key, texts)
        for key, texts in rows
        if len(set(texts)) > 1 and key.split(".")[0] not in _NO_DIFFERENCE
    ]


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [
            pair
            for key, item in value.items()
            for pair in _flat(f"{prefix}.{key}" if prefix else str(key), item)
        ]
    return [(prefix, value)]


def in_words(value: Any) -> str:
    """A value as a recipe has it; of a source its path, and what is set beside it."""
    if isinstance(value, list):
        return ", ".join(map(in_words, value)) or "[]"
    if isinstance(value, dict) and "path" in value:
        usual = {name: field.default for name, field in Source.model_fields.items()}
        more = {key: item for key, item in value.items() if item != usual.get(key)}
        return " ".join([str(more.pop("path")), in_words(more)]).rstrip()
    if isinstance(value, dict):
        return " ".join(f"{key}={in_words(item)}" for key, item in value.items())
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
