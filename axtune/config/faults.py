"""Faults of a recipe that only the libraries behind it could see."""

from __future__ import annotations

import dataclasses
import re
import typing
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from axtune.errors import (
    Fault,
    RecipeError,
)

# The file of a fault whose key is known, and not yet where it stands.
UNLOCATED = "recipe"


def bad_value(key: str, message: str) -> Fault:
    """A fault of a recipe's key that only the libraries behind it could see."""
    return Fault(UNLOCATED, 0, "bad-value", f"{key}: {message}")


def key_of(message: str) -> str | None:
    """The key that a fault's message begins with, such as ``training.optim``."""
    match = re.match(r"([a-z_]+(?:\.\w+)*): ", message)
    return match[1] if match else None


def key_named(error: Exception, section: str, values: dict[str, Any]) -> str:
    """The key of a pass-through section that a library's message names, or the section."""
    for name in values:
        words = rf"\b({re.escape(name)}|{re.escape(name.replace('_', ' '))})\b"
        if re.search(words, str(error), re.IGNORECASE):
            return f"{section}.{name}"
    return section


def refused(faults: list[Fault]) -> RecipeError:
    """The error that carries such faults."""
    return RecipeError("The recipe cannot be run.", faults)


def first_line(error: BaseException) -> str:
    """The first line of a library's message, ended like a sentence; under a heading, the next."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    lines = lines or [type(error).__name__]
    line = lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0]
    return line if line.endswith((".", "!", "?")) else f"{line}."


def in_words(message: str) -> str:
    """``Input should be greater than 0``, as pydantic says it, as what is expected."""
    way = message.removeprefix("Input should be ").partition(", unable")[0]
    return f"a number {way}" if way.startswith(("greater", "less")) else way


def of_value(item: ErrorDetails) -> str:
    """What is wrong with a value, of which pydantic has found it: what is there, what may be."""
    if not item["msg"].startswith("Input should be ") or isinstance(item["input"], (dict, list)):
        return f"{item['msg']}."
    return f"found {item['input']!r}; expected {in_words(item['msg'])}."


def type_faults(section: str, config: type, values: dict[str, Any]) -> list[Fault]:
    """Values of a pass-through section that are not of the type that the library declares.

    The libraries' dataclasses check no types themselves: a text in place of a number is noticed
    hours later, or never.

    Args:
        section: The recipe's section, for the message.
        config: The library's dataclass.
        values: The values by name.
    """
    hints = typing.get_type_hints(config)
    known = {field.name for field in dataclasses.fields(config)}
    faults = []
    for name, value in values.items():
        if name not in known:
            faults.append(
                bad_value(
                    f"{section}.{name}", "the installed library has no such option; remove it."
                )
            )
            continue
        try:
            options = ConfigDict(arbitrary_types_allowed=True)
            TypeAdapter(hints[name] | None, config=options).validate_python(value)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            # PEFT's lists of names are not complete (pissa_niter_4); it checks names itself.
            if any(item["type"] == "literal_error" for item in errors):
                continue
            faults.append(bad_value(f"{section}.{name}", of_value(errors[0])))
        except Exception:  # a type that pydantic has no schema for: the library decides
            continue
    return faults
