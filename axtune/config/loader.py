"""The strict loader of recipes: YAML, overrides, and checks across keys.

Every fault of a file is reported at once, each with its line."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ValidationError,
)
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from axtune.config.faults import UNLOCATED, key_of
from axtune.config.limits import FOLLOW_EVALUATIONS, outside_limits, unmet_needs
from axtune.config.objective import OBJECTIVES, listed, tasks
from axtune.config.passthrough import SECTIONS, check_passed, nearest
from axtune.config.paths import SUFFIXES, KeyPath, missing_paths
from axtune.config.recipe import Data, EvaluateConfig, PreferenceConfig, Recipe, Source
from axtune.errors import Fault, RecipeError
from axtune.units import plural

# The first line of a recipe, which makes the file a Python script, is this YAML key.
SCRIPT_KEY = 'if __name__ == "__main__"'

_MOST_BYTES = 1_000_000
_MOST_VALUES = 100_000  # aliases of aliases make billions out of a few lines
_NO_RECIPE = "not-a-recipe"


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
    values, places, faults = _read(path, overrides)
    found = _validate(values, file, places)
    if check_paths:
        found += [_fault(*wrong, file, places) for wrong in missing_paths(values)]
    faults += sorted(found, key=lambda f: (f.file != file, f.line))
    if faults:
        raise RecipeError(f"The recipe has {plural(len(faults), 'fault')}.", faults)
    return Recipe.model_validate(values)


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
        _, places, _ = _read(path, overrides)
        faults = [
            _fault((*key.split("."),), fault.code, message, str(path), places)
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
        raise RecipeError(f"The recipe has {plural(len(faults), 'fault')}.", faults)
    return Recipe.model_validate(values)


def dump(recipe: Recipe) -> str:
    """The recipe as resolved, as YAML that `load` reads back to an equal recipe."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 100
    yaml.dump(_escaped(recipe.model_dump(mode="json")), stream)
    return stream.getvalue()


# Line ends to YAML, which ruamel.yaml writes into plain and single-quoted texts as they are.
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


def _escaped(value: Any) -> Any:
    """A value whose texts come back from YAML as they are."""
    if isinstance(value, dict):
        return {_escaped(key): _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    if isinstance(value, str) and _LINE_ENDS.search(value):
        return DoubleQuotedScalarString(value)
    return value


def _read(
    path: str | Path, overrides: Sequence[str]
) -> tuple[dict[str, Any], dict[KeyPath, tuple[str, int]], list[Fault]]:
    """A recipe's plain values, the place of each key, and the overrides that are none."""
    file = str(path)
    tree = _parse(_text(path), file)
    tree.pop(SCRIPT_KEY, None)
    try:
        lines = list(islice(_lines(tree), _MOST_VALUES + 1))
        if len(lines) > _MOST_VALUES:
            message = f"it comes to more than {_MOST_VALUES:,} values; write out its aliases."
            raise RecipeError("The file is not a recipe.", [Fault(file, 0, _NO_RECIPE, message)])
        values = _plain(tree)
    except RecursionError:
        fault = Fault(file, 0, "not-yaml", "nested too deeply; remove some levels.")
        raise RecipeError("The recipe is not YAML.", [fault]) from None
    except UnicodeDecodeError:
        fault = Fault(file, 0, "not-yaml", "an escape is half a character (\\ud800 to \\udfff).")
        raise RecipeError("The recipe is not YAML.", [fault]) from None
    if values and not Recipe.model_fields.keys() & values.keys():
        raise RecipeError("The file is not a recipe.", [Fault(file, 1, _NO_RECIPE, _hint(file))])
    places = {key: (file, line) for key, line in lines}
    faults: list[Fault] = []
    for override in overrides:
        _override(values, override, places, faults)
    return values, places, faults


def _text(path: str | Path) -> str:
    """The text of a recipe's file."""
    file = Path(path)
    try:
        if file.is_dir():
            reason = "it is a folder; give a recipe's file, such as recipes/sft_lora.yaml."
        elif (size := file.stat().st_size) > _MOST_BYTES:
            reason = f"it has {size / 1e6:.0f} MB, and a recipe is a few kB. {_hint(str(path))}"
        else:
            return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = f"{error.strerror}. Paths are relative to the current folder."
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} is not UTF-8 text; save it as UTF-8. {_hint(str(path))}"
    except ValueError:  # a null character in the name
        reason = "this is no name of a file."
    raise RecipeError("The recipe cannot be read.", [Fault(str(path), 0, "unreadable", reason)])


def _hint(file: str) -> str:
    """What a file that is no recipe may be, and how a recipe looks."""
    if file.lower().endswith(SUFFIXES):
        return f"Rows go into a recipe: axtune train recipes/sft_lora.yaml data.train={file}"
    return "A recipe has lines such as `model: skt/A.X-4.0-Light`; begin with one of recipes/."


def _parse(text: str, file: str) -> CommentedMap:
    line, problem = 0, ""
    try:
        tree = YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        line = _line_of(error.problem_mark)
        name = re.search(r'duplicate key "(.*?)"', error.problem or "")
        problem = f"the key {name[1] if name else ''} stands there twice; remove one of the two."
    except MarkedYAMLError as error:
        # What is never closed is told at the end of the file; where it begins is what helps.
        unclosed = re.search("quoted|flow", error.context or "")
        line = _line_of(error.context_mark if unclosed else error.problem_mark)
        problem = _in_words((error.problem or "broken YAML").splitlines()[0])
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = "there is a control character; remove it."
    except (YAMLError, ValueError) as error:
        problem = _in_words(str(error).splitlines()[0])
    except RecursionError:
        problem = "nested too deeply; remove some levels."
    except (AttributeError, TypeError, KeyError, IndexError, AssertionError, NotImplementedError):
        problem = "it is none that can be read: look for tags (!) and broken anchors (&, *)."
    if problem:
        if file.lower().endswith(SUFFIXES):
            raise RecipeError(
                "The file is not a recipe.", [Fault(file, 0, _NO_RECIPE, _hint(file))]
            )
        raise RecipeError("The recipe is not YAML.", [Fault(file, line, "not-yaml", problem)])
    if not isinstance(tree, CommentedMap):
        message = "it is empty. " if tree is None else "it is no mapping of keys. "
        fault = Fault(file, 1, _NO_RECIPE, message + _hint(file))
        raise RecipeError("The file is not a recipe.", [fault])
    return tree


def _line_of(mark: Any) -> int:
    return mark.line + 1 if mark else 0


def _in_words(problem: str) -> str:
    """What YAML's parser says, with the way out where it is known."""
    if "'\\t'" in problem:
        return "YAML takes no tabs to indent with; use spaces."
    if problem.startswith("mapping values are not allowed"):
        return "there is a colon too many; quote the value, or align the key with those above it."
    if "<block end>" in problem:
        return "the indentation or the quotes of this line do not fit those above it."
    if "another document" in problem:
        return "a second document (---) begins; a recipe is one."
    return f"{problem}; look at the quotes, brackets and indentation here."


def _lines(node: Any, prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, int]]:
    """Every key path of a parsed YAML tree with its 1-based line."""
    if isinstance(node, CommentedMap):
        for key, value in node.items():
            position = (node.lc.data or {}).get(key)  # none for what a merge key (<<) brings
            yield (*prefix, str(key)), (position[0] if position else node.lc.line or 0) + 1
            yield from _lines(value, (*prefix, str(key)))
    elif isinstance(node, CommentedSeq):
        for index, value in enumerate(node):
            position = (node.lc.data or {}).get(index)  # none in what a tag (!) made
            yield (*prefix, index), (position[0] if position else node.lc.line or 0) + 1
            yield from _lines(value, (*prefix, index))


def _plain(node: Any) -> Any:
    """ruamel's own containers and scalars as plain Python values."""
    if isinstance(node, dict):
        return {_joined(str(key)): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if isinstance(node, ScalarBoolean):  # a boolean with an anchor, which ruamel makes an int
        return bool(node)
    if isinstance(node, str):
        return _joined(str(node))
    for kind in (bool, int, float):
        if isinstance(node, kind):
            return kind(node)
    return node


def _joined(text: str) -> str:
    r"""A text whose characters may be written as in JSON, in two halves: ``\ud83d\ude00``.

    Raises:
        ValueError: When a half is alone.
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")


def _override(
    values: dict[str, Any],
    override: str,
    places: dict[KeyPath, tuple[str, int]],
    faults: list[Fault],
) -> None:
    if not _is_utf8(override):
        name = override.encode("utf-8", "replace").decode()
        faults.append(Fault(name, 0, "bad-override", "it is not UTF-8 text."))
        return
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


def _is_utf8(text: str) -> bool:
    """Whether a text of the command line is one that can be written to a file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
            elif item["type"] in ("model_type", "dict_type"):
                fault(path, "bad-value", _no_section(path, item["input"]))
            elif path not in seen:  # the branches of a union repeat themselves
                fault(path, "bad-value", f"{item['msg']}.")
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
        for path, code, message in _cross_checks(values, training, data):
            fault(path, code, message)
    return faults


# How the sections of a recipe look, where one is given something else.
_SECTIONS = {
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
    elif values.get("early_stopping_patience") is not None and not _best(values):
        message = "needs data.eval, such as 0.05, or evaluate.best."
        yield ("early_stopping_patience",), "conflict", message
    objective = OBJECTIVES.get(str(values.get("task")))
    if data.get("truncate") is True and objective and objective.judges:
        message = "answers are judged as a whole and never cut; set it to false."
        yield ("data", "truncate"), "conflict", message
    packed = objective and objective.packs and data.get("packing", True) is True
    if packed and training.get("neftune_noise_alpha"):
        message = "scales its noise by a sequence's length, so it needs data.packing=false."
        yield ("training", "neftune_noise_alpha"), "conflict", message
    yield from _offload_checks(values)
    yield from _evaluate_checks(values, training, data)
    after = values.get("after")
    made = isinstance(after, list) and ("merge" in after or "export" in after)
    if isinstance(after, list) and "verify" in after and not made:
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


def _best(values: dict[str, Any]) -> Any:
    """What a recipe's ``evaluate`` chooses the best checkpoint by."""
    section = values.get("evaluate")
    return section.get("best") if isinstance(section, dict) else None


def _evaluate_checks(
    values: dict[str, Any], training: dict[str, Any], data: dict[str, Any]
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Questions need rows that hold them, steps at which they are asked, and a best to choose."""
    section, after = values.get("evaluate"), values.get("after")
    given = section if isinstance(section, dict) else {}
    if data.get("eval") is None and given.get("data") is None:
        message = "needs questions: evaluate.data, or held-out rows (data.eval, such as 0.05)."
        if isinstance(section, dict):
            yield ("evaluate",), "conflict", message
        elif isinstance(after, list) and "evaluate" in after:
            yield ("after",), "conflict", f"evaluate {message}"
    every, steps = given.get("every"), training.get("max_steps")
    if isinstance(every, int) and isinstance(steps, int) and 0 < steps < every:
        message = f"training.max_steps is {steps}; set at most that, or end."
        yield ("evaluate", "every"), "conflict", message
    if given.get("best") is None:
        return
    if every == "end":
        message = "there is nothing to choose from when questions are asked at the end alone; "
        yield ("evaluate", "best"), "conflict", message + "set evaluate.every: epoch, or remove it."
    if (schedule := training.get("lr_scheduler_type")) in FOLLOW_EVALUATIONS:
        message = f"{schedule} follows the eval loss; remove one of the two."
        yield ("evaluate", "best"), "conflict", message


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
    elif section == ("evaluate",):
        model = EvaluateConfig
    return frozenset(model.model_fields)
