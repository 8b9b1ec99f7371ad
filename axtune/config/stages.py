"""A recipe of stages: several jobs on one model, each from the adapter of the one before.

    model: skt/A.X-4.0-Light
    output_dir: runs/domain
    stages:
      cpt: {recipe: cpt_lora.yaml, data: {train: corpus.jsonl}}
      sft: {recipe: sft_lora.yaml, data: {train: chat.jsonl}}
    after: [export, verify]
    evaluate: {data: [questions.jsonl]}

A stage is a recipe file with changes; other keys of a recipe that stand beside ``stages`` are all
stages'. Every fault is reported at once, at the line of the file in which its key stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from axtune.config.faults import of_value
from axtune.config.keys import Keys, read_keys
from axtune.config.loader import faults_of, load
from axtune.config.paths import KeyPath, expanded, missing_paths
from axtune.config.recipe import Files, Recipe
from axtune.errors import AxtuneError, Fault, RecipeError
from axtune.units import plural

STAGES = "stages"
After = Literal["merge", "export", "verify"]

# Of a recipe, what the stages decide or is asked of them together.
_NOT_SHARED = ("task", "output_dir", "resume", "start_from", "after", "evaluate")
_NOT_OF_A_STAGE = {
    "output_dir": "a stage has the folder of its own name in the common output_dir",
    "resume": "the same command goes on where it stopped",
    "after": "it stands beside stages, and is of the last one",
}


class StageQuestions(BaseModel):
    """What the base and the model after each stage are asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Files = Field(
        description="files of documents, conversations or benchmarks, as axtune eval takes them"
    )
    limit: int | None = Field(100, ge=1, description="how many questions; null: all of them")
    max_new_tokens: int = Field(512, ge=1, description="longest answer, in tokens")


@dataclass(frozen=True)
class Stages:
    """A recipe of stages, as resolved.

    Attributes:
        model: The base of all stages.
        output_dir: The folder that holds a run for each stage, by its name.
        recipes: The job of each stage, in their order.
        after: What follows the last one.
        evaluate: What is asked at the end; None for nothing.
    """

    model: str
    output_dir: str
    recipes: dict[str, Recipe]
    after: tuple[After, ...]
    evaluate: StageQuestions | None

    @property
    def seed(self) -> int:
        """Of the questions that are drawn."""
        return next(iter(self.recipes.values())).seed


def has_stages(path: str | Path) -> bool:
    """Whether a file is a recipe of stages.

    Raises:
        RecipeError: When it cannot be read, or is no recipe.
    """
    return STAGES in read_keys(path).values


def is_recipe(path: str) -> bool:
    """Whether a file is a recipe, of one job or of stages; a YAML file may also be a document."""
    if Path(path).suffix not in (".yaml", ".yml") or not Path(path).is_file():
        return False
    try:
        keys = read_keys(path).values
    except RecipeError:
        return False
    return not ({"data", STAGES}.isdisjoint(keys) or {"model", "output_dir"}.isdisjoint(keys))


def jobs_of(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Recipe]:
    """The jobs of a recipe: those of its stages by their names, or its own without one.

    Args:
        path: The YAML file.
        overrides: As `axtune.config.loader.load` takes them.

    Raises:
        RecipeError: With every fault of the file and of the overrides.
    """
    if has_stages(path):
        return load_stages(path, overrides).recipes
    return {"": load(path, overrides)}


def load_stages(path: str | Path, overrides: Sequence[str] = ()) -> Stages:
    """Read a recipe of stages.

    Args:
        path: The YAML file; recipes that its stages name are looked for beside it.
        overrides: As `axtune.config.loader.load` takes them; ``stages.sft.lora.r=32`` is of one
            stage, ``seed=1`` of all.

    Raises:
        RecipeError: With every fault of the file, of the recipes that it names and of the
            overrides.
    """
    given = read_keys(path, overrides)
    faults = list(given.faults)
    faults += _faults_beside(given)
    questions = _questions(given, faults)
    stages = given.values.get(STAGES)
    if not isinstance(stages, dict) or not stages:
        faults.append(
            given.fault((STAGES,), "bad-value", "expected names of stages, each with its recipe.")
        )
        stages = {}
    recipes: dict[str, Recipe] = {}
    output_dir = _folder(given, faults)
    for name in stages:
        keys = _stage(given, name, faults)
        if keys is None:
            continue
        keys.values["output_dir"] = f"{output_dir}/{name}"
        found = faults_of(keys)
        found += [keys.fault(*wrong) for wrong in missing_paths(keys.values)]
        faults += keys.faults + found
        if not found:
            recipe = Recipe.model_validate(keys.values)
            if recipes:
                before = next(reversed(recipes.values()))
                recipe = recipe.model_copy(update={"start_from": before.output_dir})
            recipes[name] = recipe
    if faults:
        # What stands beside the stages is looked at for each of them.
        once = list(dict.fromkeys(faults))
        once.sort(key=lambda fault: (fault.file != given.file, fault.file, fault.line))
        raise RecipeError(f"The recipe has {plural(len(once), 'fault')}.", once)
    return Stages(
        model=next(iter(recipes.values())).model,
        output_dir=output_dir,
        recipes=recipes,
        after=tuple(given.values.get("after") or ()),
        evaluate=questions,
    )


def _folder(given: Keys, faults: list[Fault]) -> str:
    """The common output_dir."""
    value = given.values.get("output_dir")
    if not isinstance(value, str):
        faults.append(
            given.fault(("output_dir",), "missing-key", "expected the folder of the runs.")
        )
        return ""
    try:
        return expanded(value)
    except AxtuneError as error:
        faults.append(given.fault(("output_dir",), "bad-path", f"{error.found} {error.remedy}"))
        return ""


def _faults_beside(given: Keys) -> Iterator[Fault]:
    """What is wrong with the keys that are of all stages together."""
    values = given.values
    for key in ("task", "resume", "start_from"):
        if key in values:
            what = {"resume": _NOT_OF_A_STAGE["resume"]}.get(key, "it is of a single stage")
            yield given.fault((key,), "unknown-key", f"not beside stages: {what}.")
    after = values.get("after") or []
    known = get_args(After)
    if not isinstance(after, list) or any(one not in known for one in after):
        message = f"expected a list of {', '.join(known)}; evaluate is a key of its own."
        yield given.fault(("after",), "bad-value", message)
    elif "verify" in after and not {"merge", "export"} & set(after):
        yield given.fault(("after",), "conflict", "verify needs merge or export in the list.")


def _questions(given: Keys, faults: list[Fault]) -> StageQuestions | None:
    value = given.values.get("evaluate")
    if value is None:
        return None
    try:
        found = StageQuestions.model_validate(value)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            path = ("evaluate", *item["loc"][:1])
            faults.append(given.fault(path, "bad-value", of_value(item)))
        return None
    for place, code, message in missing_paths({"evaluate": value}):
        faults.append(given.fault(place, code, message))
    return found


def _stage(given: Keys, name: str, faults: list[Fault]) -> Keys | None:
    """The keys of a stage: its recipe's, those of all stages, and its own, the later ones first."""
    own = given.values[STAGES][name]
    place: KeyPath = (STAGES, name)
    if not _is_folder_name(name):
        faults.append(given.fault(place, "bad-value", "its name is to be that of a folder."))
        return None
    if not isinstance(own, dict) or not isinstance(own.get("recipe"), str):
        message = "expected the file of its recipe: {recipe: sft_lora.yaml}."
        faults.append(given.fault(place, "missing-key", message))
        return None
    wrong = [(key, why) for key, why in _NOT_OF_A_STAGE.items() if key in own]
    if "start_from" in own and next(iter(given.values[STAGES])) != name:
        wrong.append(("start_from", "it begins from the stage before"))
    for key, why in wrong:
        faults.append(given.fault((*place, key), "unknown-key", f"not of a stage: {why}."))
    try:
        keys = read_keys(Path(given.file).parent / expanded(own["recipe"]))
    except RecipeError as error:
        faults += error.faults
        return None
    except AxtuneError as error:
        message = f"{error.found} {error.remedy}"
        faults.append(given.fault((*place, "recipe"), "bad-path", message))
        return None
    keys.values.pop("resume", None)
    keys.values.pop("after", None)
    if STAGES in keys.values:
        message = "a stage is a single job, and this is a recipe of stages itself."
        faults.append(given.fault((*place, "recipe"), "bad-value", message))
        return None
    keys.take(given, (), leaving=(STAGES, *_NOT_SHARED))
    keys.take(given, place, leaving=("recipe", *dict(wrong)))
    return keys


def _is_folder_name(name: str) -> bool:
    return name not in (".", "..") and not {"/", "\\", "\0"} & set(name)
