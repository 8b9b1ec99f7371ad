"""The strict loader of recipes: a file with overrides becomes a recipe, or a list of its faults.

Every fault of a file is reported at once, each with its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from axtune.config.conflicts import cross_checks
from axtune.config.faults import UNLOCATED, key_of, of_value
from axtune.config.keys import Keys, read_keys
from axtune.config.limits import outside_limits, unmet_needs
from axtune.config.passthrough import SECTIONS, check_passed, nearest
from axtune.config.paths import KeyPath, missing_paths
from axtune.config.recipe import (
    NO_HOME,
    Data,
    EvaluateConfig,
    PreferenceConfig,
    Recipe,
    Replay,
    Source,
)
from axtune.config.recipe_file import as_yaml
from axtune.errors import Fault, RecipeError
from axtune.units import plural


def load(path: str | Path, overrides: Sequence[str] = (), *, check_paths: bool = True) -> Recipe:
    """Read a recipe and apply ``key.path=value`` overrides.

    Args:
        path: The YAML file.
        overrides: Texts such as ``lora.r=32`` or ``data.train=[a.jsonl,b.jsonl]``; values are YAML.
        check_paths: Whether the local files and folders that the recipe names must be there; not
            for the recipe of an old run, whose data may be gone.

    Returns:
        The validated recipe.

    Raises:
        RecipeError: With every fault of the file and of the overrides, each with its line.
    """
    keys = read_keys(path, overrides)
    found = faults_of(keys)
    if check_paths:
        found += [keys.fault(*wrong) for wrong in missing_paths(keys.values)]
    found = list(dict.fromkeys(found))  # a path that cannot be looked up is no value either
    faults = keys.faults + sorted(found, key=lambda f: (f.file != keys.file, f.line))
    if faults:
        raise RecipeError(f"The recipe has {plural(len(faults), 'fault')}.", faults)
    return Recipe.model_validate(keys.values)


@contextmanager
def located(path: str | Path, overrides: Sequence[str] = ()) -> Iterator[None]:
    """While a recipe runs, say of what the libraries refuse where it stands.

    Args:
        path: The recipe's file.
        overrides: As they were given to `load`.

    Raises:
        RecipeError: The one that was raised inside, its faults at the line or override of the key.
    """
    try:
        yield
    except RecipeError as error:
        keys = read_keys(path, overrides)
        faults = [
            keys.fault((*key.split("."),), fault.code, message)
            if fault.file == UNLOCATED
            and (key := key_of(fault.message))
            and (message := fault.message.removeprefix(f"{key}: "))
            else fault
            for fault in error.faults
        ]
        raise RecipeError(error.found, faults, error.remedy) from error


def data_options(paths: Sequence[str], **options: Any) -> Data:
    """The data section of a recipe from command-line options, with the recipe's own checks.

    Args:
        paths: What ``data.train`` takes.
        options: Further keys of the section.

    Raises:
        RecipeError: When a value is not one that the key takes.
    """
    try:
        return Data.model_validate({"train": list(paths), **options})
    except ValidationError as error:
        faults = [
            Fault(".".join(map(str, item["loc"])), 0, "bad-value", of_value(item))
            for item in error.errors(include_url=False)
        ]
        raise RecipeError("An option has a value that it does not accept.", faults) from None


def changed(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """A recipe with further ``key.path=value`` overrides.

    Args:
        recipe: Stays as it is.
        overrides: As `load` takes them.

    Raises:
        RecipeError: With every fault of the overrides.
    """
    keys = Keys("recipe", recipe.model_dump(mode="json"), {})
    keys.override(overrides)
    if faults := keys.faults + faults_of(keys):
        raise RecipeError(f"The recipe has {plural(len(faults), 'fault')}.", faults)
    return Recipe.model_validate(keys.values)


def dump(recipe: Recipe) -> str:
    """The recipe as resolved, as YAML that `load` reads back to an equal recipe."""
    return as_yaml(recipe.model_dump(mode="json"))


def faults_of(keys: Keys) -> list[Fault]:
    """What is wrong with a recipe, paths aside: unknown keys, bad values, conflicts."""
    values, faults = keys.values, []

    def fault(path: KeyPath, code: str, message: str) -> None:
        faults.append(keys.fault(path, code, message))

    if "stages" in values:
        message = "it holds several jobs; axtune train runs them one after the other."
        return [keys.fault(("stages",), "has-stages", message)]
    try:
        Recipe.model_validate(values)
    except ValidationError as error:
        seen = set()
        for item in error.errors(include_url=False):
            path = _key_path(item["loc"], values)
            if item["type"] == "extra_forbidden":
                fault(path, "unknown-key", nearest(str(path[-1]), _known_keys(path[:-1])))
            elif item["type"] == "missing":
                fault(path, "missing-key", "this key is required.")
            elif item["type"] in ("model_type", "dict_type"):
                fault(path, "bad-value", _no_section(path, item["input"]))
            elif path not in seen:  # the branches of a union repeat themselves
                code = "bad-path" if item["type"] == NO_HOME else "bad-value"
                fault(path, code, of_value(item))
            seen.add(path)
    wrong = set()
    for section in SECTIONS:
        given = values.get(section)
        passed = given if isinstance(given, dict) else {}
        for name, code, message in check_passed(section, passed, str(values.get("task"))):
            fault((section, name), code, message)
            wrong.add((section, name))
        for name, message in outside_limits(section, passed):
            if (section, name) not in wrong:
                fault((section, name), "bad-value", message)
    training, data = values.get("training"), values.get("data")
    if isinstance(training, dict) and isinstance(data, dict):
        for path, message in unmet_needs(values):
            fault(path, "conflict", message)
        for path, code, message in cross_checks(values, training, data):
            fault(path, code, message)
    return faults


# How the sections of a recipe look, where one is given something else.
_SECTIONS = {
    "data.replay": "{train: general.jsonl, share: 0.1}; null is none",
    "data": "{train: rows.jsonl}",
    "lora": "{r: 16}",
    "training": "{learning_rate: 2.0e-4}",
    "quantization": "{load_in_4bit: true}; null is none",
    "preference": "{reference: cached}; null is the defaults",
    "evaluate": "{every: epoch} for the held-out rows, {data: questions.jsonl} for others; "
    "null asks nothing",
}


def _no_section(path: KeyPath, found: Any) -> str:
    """What is expected in place of a value that has keys of its own."""
    kinds = {bool: str(found).lower(), str: "a text", list: "a list", type(None): "nothing"}
    example = _SECTIONS.get(".".join(map(str, path)))
    expected = f"keys, such as {example}" if example else "a path, or {path: rows.jsonl}"
    return f"it is {kinds.get(type(found), 'a number')}; expected {expected}."


def _key_path(loc: KeyPath, values: Any) -> KeyPath:
    """pydantic's location without the names of union branches, which are no keys of the file."""
    path: list[str | int] = []
    node = values
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(node, dict) and (part in node or (last and isinstance(part, str))):
            if part not in node and "[" in str(part):
                continue
            path.append(part)
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            path.append(part)
            node = node[part]
            if isinstance(node, str):  # a bare path stands for {path: …}
                break
    return tuple(path)


def _known_keys(section: KeyPath) -> frozenset[str]:
    model: type[BaseModel] = Recipe
    if section and section[0] == "data":
        of_replay = section[1:] == ("replay",)
        model = Data if len(section) == 1 else Replay if of_replay else Source
    elif section == ("preference",):
        model = PreferenceConfig
    elif section == ("evaluate",):
        model = EvaluateConfig
    return frozenset(model.model_fields)
