"""The file of a recipe: YAML, read strictly, with the line of every key.

A file that is none, or none that can be a recipe, is refused with its first fault. What the keys
are worth is checked by `axtune.config.loader`.
"""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from axtune.config.paths import SUFFIXES, KeyPath
from axtune.config.recipe import Recipe
from axtune.errors import Fault, RecipeError

# The first line of a recipe, which makes the file a Python script, is this YAML key.
SCRIPT_KEY = 'if __name__ == "__main__"'

_MOST_BYTES = 1_000_000
_MOST_VALUES = 100_000  # aliases of aliases make billions out of a few lines
_NO_RECIPE = "not-a-recipe"


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """A recipe's plain values, and the line of each key.

    Args:
        path: The YAML file.

    Raises:
        RecipeError: When the file cannot be read, is no YAML, or has no key of a recipe.
    """
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
    return values, dict(lines)


def read_value(text: str) -> Any:
    """The plain value of a YAML text, or the text itself when it is none."""
    try:
        return _plain(YAML(typ="rt").load(text)) if text else None
    except (YAMLError, ValueError, RecursionError):
        return text


def as_override(key: str, value: str) -> str:
    """``key=value`` as it is typed in a shell, so that `read_value` reads the value back.

    Args:
        key: Such as ``output_dir``.
        value: A text, which YAML may read as something else: ``1e3``, ``a: b``, ``[x]``.
    """
    if read_value(value) == value:
        return shlex.quote(f"{key}={value}")
    # What YAML takes for a line's end folds into a space, where JSON leaves it as it is.
    quoted = json.dumps(value, ensure_ascii=False)
    quoted = _LINE_ENDS.sub(lambda end: f"\\u{ord(end[0]):04x}", quoted)
    return shlex.quote(f"{key}={quoted}")


def as_yaml(values: dict[str, Any]) -> str:
    """Plain values as YAML that `read_file` reads back to equal ones."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 100
    yaml.dump(_escaped(values), stream)
    return stream.getvalue()


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
        given = as_override("data.train", file)
        return f"Rows go into a recipe: axtune train recipes/sft_lora.yaml {given}"
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
