"""Values written as text: strict JSON, and the Python literals that some data holds instead."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn


class RepeatedKeys:
    """Whether a key stands twice in an object, with different values; Python keeps the last.

    Attributes:
        found: Whether one did.
    """

    def __init__(self) -> None:
        self.found = False

    def object_of(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """The object of some pairs, as ``json.JSONDecoder`` asks for it."""
        value = dict(pairs)
        if len(value) < len(pairs):
            self.found |= any(value[key] != one for key, one in pairs)
        return value


_WATCHING: ContextVar[RepeatedKeys | None] = ContextVar("repeated keys", default=None)


@contextmanager
def watching_keys() -> Iterator[RepeatedKeys]:
    """Sees repeated keys in all JSON text that is parsed here meanwhile."""
    watched = RepeatedKeys()
    token = _WATCHING.set(watched)
    try:
        yield watched
    finally:
        _WATCHING.reset(token)


def parse_json(text: str) -> Any:
    """Strict JSON: no NaN, no Infinity.

    Raises:
        ValueError: When the text is not JSON, too deep, or holds a number of too many digits.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_literal(text: str) -> Any:
    """JSON, or the Python literals that some Hermes data holds ({'name': …}).

    Raises:
        ValueError: When the text is neither.
    """
    try:
        return parse_json(text)
    except ValueError:
        try:
            # Through JSON and back: a set or a bytes literal has no place in a call.
            return json.loads(json.dumps(ast.literal_eval(text), allow_nan=False))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise ValueError("neither JSON nor a Python literal of JSON values") from None


def parse_sequence(text: str) -> list[Any]:
    """One value or several, one behind the other: a list's items, JSON values, or lines.

    Raises:
        ValueError: When the text is none of these.
    """
    try:
        value = parse_literal(text)
    except ValueError:
        try:
            return _json_values(text)
        except ValueError:
            return [parse_literal(line) for line in text.splitlines() if line.strip()]
    return value if isinstance(value, list) else [value]


def parse_json_at(text: str, at: int) -> tuple[Any, int]:
    """The JSON value that begins at a place of a text, and the place behind it.

    Raises:
        ValueError: When there is none.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value, end


def _json_values(text: str) -> list[Any]:
    values, at = [], 0
    while rest := text[at:].lstrip():
        value, at = parse_json_at(text, len(text) - len(rest))
        values.append(value)
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs) and (watched := _WATCHING.get()):
        watched.object_of(pairs)
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)
