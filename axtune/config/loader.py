"""The strict loader of recipes: YAML, overrides, and checks across keys.

Every fault of a file is reported at once, each with its line."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ValidationError,
)
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from axtune.config.objective import OBJECTIVES, listed, tasks
from axtune.config.passthrough import SECTIONS, check_passed, nearest
from axtune.config.paths import KeyPath, missing_paths
from axtune.config.recipe import Data, PreferenceConfig, Recipe, Source
from axtune.errors import Fault, RecipeError

# The first line of a recipe, which makes the file a Python script, is this YAML key.
SCRIPT_KEY = 'if __name__ == "__main__"'


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
    file = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RecipeError(
            "The recipe cannot be read.",
            [Fault(file, 0, "unreadable", f"{reason}. Paths are relative to the current folder.")],
        ) from None
    faults: list[Fault] = []
    try:
        tree = _parse(text, file)
        tree.pop(SCRIPT_KEY, None)
        places = {path: (file, line) for path, line in _lines(tree)}
        values = _plain(tree)
    except RecursionError:
        fault = Fault(file, 0, "not-yaml", "nested too deeply; remove some levels.")
        raise RecipeError("The recipe is not YAML.", [fault]) from None
    for override in overrides:
        _override(values, override, places, faults)
    found = _validate(values, file, places)
    if check_paths:
        found += [_fault(*wrong, file, places) for wrong in missing_paths(values)]
    faults += sorted(found, key=lambda f: (f.file != file, f.line))
    if faults:
        raise RecipeError(f"The recipe has {_count(len(faults))}.", faults)
    return Recipe.model_validate(values)


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
            Fault(".".join(map(str, item["loc"])), 0, "bad-value", f"{item['msg']}.")
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
    values = recipe.model_dump(mode="json")
    faults: list[Fault] = []
    places: dict[KeyPath, tuple[str, int]] = {}
    for override in overrides:
        _override(values, override, places, faults)
    faults += _validate(values, "recipe", places)
    if faults:
        raise RecipeError(f"The recipe has {_count(len(faults))}.", faults)
    return Recipe.model_validate(values)


def dump(recipe: Recipe) -> str:
    """The recipe as resolved, as YAML that `load` reads back to an equal recipe."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 100
    yaml.dump(recipe.model_dump(mode="json"), stream)
    return stream.getvalue()


def _count(number: int) -> str:
    return "1 fault" if number == 1 else f"{number} faults"


def _parse(text: str, file: str) -> CommentedMap:
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = (error.problem or "broken YAML").splitlines()[0]
        raise RecipeError(
            "The recipe is not YAML.", [Fault(file, line, "not-yaml", f"{problem}.")]
        ) from None
    except (YAMLError, ValueError) as error:  # control characters and the like
        reason = str(error).splitlines()[0]
        raise RecipeError("The recipe is not YAML.", [Fault(file, 0, "not-yaml", reason)]) from None
    if not isinstance(tree, CommentedMap):
        raise RecipeError(
            "The recipe is not a mapping of keys.",
            [Fault(file, 1, "not-a-recipe", "expected lines such as `model: skt/A.X-4.0-Light`.")],
        )
    return tree


def _lines(node: Any, prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, int]]:
    """Every key path of a parsed YAML tree with its 1-based line."""
    if isinstance(node, CommentedMap):
        for key, value in node.items():
            position = (node.lc.data or {}).get(key)  # none for what a merge key (<<) brings
            yield (*prefix, str(key)), (position[0] if position else node.lc.line) + 1
            yield from _lines(value, (*prefix, str(key)))
    elif isinstance(node, CommentedSeq):
        for index, value in enumerate(node):
            yield (*prefix, index), node.lc.item(index)[0] + 1
            yield from _lines(value, (*prefix, index))


def _plain(node: Any) -> Any:
    """ruamel's own containers and scalars as plain Python values."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if isinstance(node, ScalarBoolean):  # a boolean with an anchor, which ruamel makes an int
        return bool(node)
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _override(
    values: dict[str, Any],
    override: str,
    places: dict[KeyPath, tuple[str, int]],
    faults: list[Fault],
) -> None:
    key, equals, text = override.partition("=")
    *path, last = key.removeprefix("--").split(".")
    if not equals or not all((*path, last)):
        faults.append(
            Fault(override, 0, "bad-override", "expected key.path=value, such as lora.r=32.")
        )
        return
    try:
        value = _plain(YAML(typ="rt").load(text)) if text else None
    except (YAMLError, ValueError, RecursionError):
        value = text
    section = values
    for depth, part in enumerate(path, 1):
        child = section.get(part)
        if child is None:
            child = section[part] = {}
            places[*path[:depth],] = (override, 0)
        if not isinstance(child, dict):
            faults.append(
                Fault(override, 0, "bad-override", f"{part} is a single value and has no keys.")
            )
            return
        section = child
    section[last] = value
    changed = (*path, last)
    for old in [old for old in places if old[: len(changed)] == changed]:
        del places[old]
    places[changed] = (override, 0)


def _validate(
    values: dict[str, Any], file: str, places: dict[KeyPath, tuple[str, int]]
) -> list[Fault]:
    faults = []

    def fault(path: KeyPath, code: str, message: str) -> None:
        faults.append(_fault(path, code, message, file, places))

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
            elif path not in seen:  # the branches of a union repeat themselves
                fault(path, "bad-value", f"{item['msg']}.")
            seen.add(path)
    for section in SECTIONS:
        given = values.get(section)
        passed = given if isinstance(given, dict) else {}
        for name, code, message in check_passed(section, passed, str(values.get("task"))):
            fault((section, name), code, message)
    training, data = values.get("training"), values.get("data")
    if isinstance(training, dict) and isinstance(data, dict):
        for path, code, message in _cross_checks(values, training, data):
            fault(path, code, message)
    return faults


def _fault(
    path: KeyPath, code: str, message: str, file: str, places: dict[KeyPath, tuple[str, int]]
) -> Fault:
    """A fault at the line of its key, or of the nearest section around it."""
    known = (places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places)
    name = ".".join(map(str, path))
    message = f"{name}: {message}" if name else message
    return Fault(*next(known, (file, 0)), code, message)


def _cross_checks(
    values: dict[str, Any], training: dict[str, Any], data: dict[str, Any]
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """What only two keys together show."""
    if data.get("eval") is not None:
        if training.get("eval_strategy") == "no":
            yield (
                ("training", "eval_strategy"),
                "conflict",
                "data.eval is set; remove one of the two.",
            )
    elif values.get("early_stopping_patience") is not None:
        yield ("early_stopping_patience",), "conflict", "needs data.eval, such as 0.05."
    objective = OBJECTIVES.get(str(values.get("task")))
    if data.get("truncate") is True and objective and objective.judges:
        message = "answers are judged as a whole and never cut; set it to false."
        yield ("data", "truncate"), "conflict", message
    packed = objective and objective.packs and data.get("packing", True) is True
    if packed and training.get("neftune_noise_alpha"):
        message = "scales its noise by a sequence's length, so it needs data.packing=false."
        yield ("training", "neftune_noise_alpha"), "conflict", message
    yield from _offload_checks(values)
    after = values.get("after")
    if after == ["verify"]:
        yield ("after",), "conflict", "verify needs merge or export in the list."
    preference = values.get("preference")
    if preference is not None and objective and not objective.judges:
        judging = listed(tasks(lambda one: one.judges))
        yield ("preference",), "conflict", f"is only for {judging}; remove it."
    elif isinstance(preference, dict):
        if preference.get("start_merged") and not preference.get("start_from"):
            yield ("preference", "start_merged"), "conflict", "needs preference.start_from."
        if values.get("attention") not in (None, "auto", "sdpa") and preference.get(
            "shared_prefix", True
        ):
            message = (
                "shared_prefix needs sdpa; set attention: auto, or preference.shared_prefix: false."
            )
            yield ("preference", "shared_prefix"), "conflict", message
    quantization = values.get("quantization")
    if isinstance(quantization, dict) and quantization.get("load_in_4bit") is not True:
        yield ("quantization",), "bad-value", "needs load_in_4bit: true; or set quantization: null."


def _offload_checks(values: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """What can be kept in host memory depends on the rest of the recipe."""
    offload, lora = values.get("offload"), values.get("lora")
    objective = OBJECTIVES.get(str(values.get("task")))
    kept = offload if isinstance(offload, list) else []
    if "activations" in kept and objective and not objective.offloads_activations:
        message = f"TRL's {objective.name.upper()} cannot offload activations; remove it."
        yield ("offload",), "conflict", message
    trained = lora.get("modules_to_save") if isinstance(lora, dict) else None
    if "embeddings" in kept and {"embed_tokens", "lm_head"} & set(trained or ()):
        message = "embeddings that are trained (lora.modules_to_save) stay on the GPU; remove it."
        yield ("offload",), "conflict", message


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
        model = Data if len(section) == 1 else Source
    elif section == ("preference",):
        model = PreferenceConfig
    return frozenset(model.model_fields)
