"""Where chat templates run: they reach nothing, and are stopped when they write or run too much.

A template comes with a checkpoint from anywhere. Jinja's sandbox keeps it from the machine, not
from looping forever or from asking for more memory than there is.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import islice
from types import FrameType
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 20.0  # a row of many megabytes renders in one
_CHARACTERS = 1 << 28
_PIECES = 1 << 24  # what a template writes between two expressions is a piece
_REFUSAL = "it writes or computes more than any conversation needs"


@contextmanager
def time_limit() -> Iterator[None]:
    """Stop what runs inside after `SECONDS`; outside of the main thread nothing can be stopped.

    Raises:
        jinja2.TemplateRuntimeError: When the time is over.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise jinja2.TemplateRuntimeError(f"it runs for longer than {SECONDS:g} seconds")


class _BoundedJoins(CodeGenerator):
    """``a ~ b`` through `BoundedSandbox.concat`: doubled often enough, a text is too long."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concat(tuple(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))))")


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, in which texts and numbers have a limit."""

    code_generator_class = _BoundedJoins
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("center", "indent", "format", "wordwrap"):
            self.filters[name] = _narrow(self.filters[name])

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Join what a template writes.

        Raises:
            jinja2.TemplateRuntimeError: When it is too much.
        """
        written = pieces if isinstance(pieces, tuple) else tuple(islice(pieces, _PIECES))
        if len(written) == _PIECES or sum(map(len, written)) > _CHARACTERS:
            raise jinja2.TemplateRuntimeError(_REFUSAL)
        return "".join(written)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute, unless the result would be huge.

        Raises:
            jinja2.TemplateRuntimeError: When it would.
        """
        if operator == "+" and type(left) is str and type(right) is str:  # nearly all there are
            if len(left) + len(right) > _CHARACTERS:
                raise jinja2.TemplateRuntimeError(_REFUSAL)
            return left + right
        if operator == "**" and not (abs(left) <= 1 << 32 and abs(right) <= 64):
            raise jinja2.TemplateRuntimeError(_REFUSAL)
        if operator == "*" and _size(left) * _size(right) > _CHARACTERS:
            raise jinja2.TemplateRuntimeError(_REFUSAL)
        sequences = isinstance(left, (str, list, tuple)) and hasattr(right, "__len__")
        if operator == "+" and sequences and len(left) + len(right) > _CHARACTERS:
            raise jinja2.TemplateRuntimeError(_REFUSAL)
        if operator == "%" and isinstance(left, str) and _is_wide(left):
            raise jinja2.TemplateRuntimeError(_REFUSAL)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call, unless a method of a text is asked to pad or repeat without bounds.

        Raises:
            jinja2.TemplateRuntimeError: When it is.
        """
        owner = getattr(function, "__self__", None)
        if isinstance(owner, str):
            if function.__name__ in ("center", "ljust", "rjust", "zfill", "expandtabs"):
                _require_narrow(args, kwargs)
            elif function.__name__ in ("format", "format_map") and _is_wide(owner):
                raise jinja2.TemplateRuntimeError(_REFUSAL)
        return super().call(context, function, *args, **kwargs)


def _size(value: Any) -> int:
    """How often or how much a factor is: of a sequence its length, of a number itself."""
    if isinstance(value, (str, bytes, list, tuple)):
        return len(value)
    return 1 if isinstance(value, float) else min(abs(int(value)), 1 << 64)


def _is_wide(form: str) -> bool:
    """Whether a format asks for a width of more than six digits, or for one that is computed."""
    digits = 0
    for character in form:
        digits = digits + 1 if character.isdigit() else 0
        if digits > 6:
            return True
    return "*" in form and "%" in form


def _narrow(function: Any) -> Any:
    """A filter, whose numbers are held against the limit."""

    def narrow(*args: Any, **kwargs: Any) -> Any:
        _require_narrow(args, kwargs)
        if (
            args
            and isinstance(args[0], str)
            and function.__name__ == "do_format"
            and _is_wide(args[0])
        ):
            raise jinja2.TemplateRuntimeError(_REFUSAL)
        return function(*args, **kwargs)

    return wraps(function)(narrow)  # with the mark of a filter that takes the environment first


def _require_narrow(args: Iterable[Any], kwargs: dict[str, Any]) -> None:
    numbers = [value for value in (*args, *kwargs.values()) if isinstance(value, int)]
    if any(abs(number) > 1_000_000 for number in numbers):
        raise jinja2.TemplateRuntimeError(_REFUSAL)
