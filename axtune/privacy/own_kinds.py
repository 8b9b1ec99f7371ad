"""Kinds of a user's own, from a small YAML file.

    kinds:
      - name: employee_no
        pattern: 'SK\\d{6}'
        labels: [사번, employee_no]   # optional: counts only near one of these
        mask: '[사번]'

Patterns are those of the package `regex`, which stops at a time limit: one that backtracks without
end is refused when it is read, or stops the job with its name; it never lets a text pass unmasked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from axtune.errors import AxtuneError, Fault, RecipeError
from axtune.privacy.kinds import KINDS, MASKS
from axtune.privacy.tables import Tables

_KEYS = ("name", "pattern", "labels", "mask")
_PROBE_SECONDS = 0.25
_TEXT_SECONDS = 2.0  # a text that takes longer is hostile to the pattern
_NAME = re.compile(r"[A-Za-z0-9_가-힣\-]{1,40}")
# What a mask may not hold, so that it can stand in JSON and CSV as it is; and control tokens.
_BAD_MASK = re.compile(r'["\\,;\t\r\n|]|[\x00-\x1f]|</?(?:think|tool_call|tool_output)>')
_REACH = 40
# What texts are made of on which patterns that backtrack do so, beside their own letters.
_UNITS = ("1", "a", "가", " ", "-", "1-", "a1", "A ")


@dataclass(frozen=True, slots=True)
class OwnKind:
    """A kind of a user's own.

    Attributes:
        name: As it is counted.
        pattern: What it looks like; full-width digits and other dashes are folded before.
        labels: What must stand near it or in its column's header, in lower case; none where the
            pattern says enough.
        mask: What replaces it.
    """

    name: str
    pattern: regex.Pattern[str]
    labels: tuple[str, ...]
    mask: str

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """The stretches of a folded text that are of this kind.

        Raises:
            AxtuneError: When the pattern takes too long.
        """
        tables = Tables(text.lower()) if self.labels else None
        try:
            for match in self.pattern.finditer(text, timeout=_TEXT_SECONDS):
                begin, end = match.span()
                if begin < end and (tables is None or self._named(tables, begin, end)):
                    yield begin, end
        except TimeoutError:
            raise AxtuneError(
                f"The pattern of the kind {self.name} takes too long on a text of "
                f"{len(text):,} characters.",
                "Make it simpler: no repetition inside of another, such as (a+)+.",
            ) from None

    def _named(self, tables: Tables, begin: int, end: int) -> bool:
        """Whether a label stands near, or in the header of the column."""
        _, header = tables.header(begin) or (0, "")
        near = tables.text[max(0, begin - _REACH) : end + _REACH]
        return any(label in near or label in header for label in self.labels)


def read_own_kinds(file: str | Path) -> tuple[OwnKind, ...]:
    """Read a file of own kinds.

    Args:
        file: YAML, a list at the key ``kinds``.

    Raises:
        AxtuneError: When the file cannot be read.
        RecipeError: When something in it is wrong; every fault of it.
    """
    values = _load(Path(file))
    listed = values.get("kinds") if isinstance(values, dict) else None
    if not isinstance(listed, list) or not listed:
        raise AxtuneError(
            f"{file} holds no kinds.",
            "Write a list at the key kinds, each with name, pattern and mask.",
        )
    faults: list[Fault] = []
    kinds: list[OwnKind] = []
    for number, item in enumerate(listed):
        wrong = list(_wrong_with(item, [kind.name for kind in kinds]))
        faults += [Fault(str(file), 0, "bad-kind", f"kinds[{number}]{text}") for text in wrong]
        if not wrong:
            labels = tuple(str(label).strip().lower() for label in item.get("labels") or ())
            kinds.append(
                OwnKind(item["name"], regex.compile(item["pattern"]), labels, item["mask"])
            )
    if faults:
        raise RecipeError(f"{file} is not of the form that it must have.", faults)
    return tuple(kinds)


def _load(file: Path) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(file.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise AxtuneError(f"{file} cannot be read: {reason}.", "Give a YAML file.") from None
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        line = f", line {mark.line + 1}" if mark else ""
        raise AxtuneError(f"{file} is not YAML{line}.", "Correct it.") from None


def _wrong_with(item: Any, names: Sequence[str]) -> Iterator[str]:
    """What is wrong with one kind of a file."""
    if not isinstance(item, dict):
        yield ": expected name, pattern and mask."
        return
    if unknown := [key for key in item if key not in _KEYS]:
        yield f": unknown key {unknown[0]}; expected {', '.join(_KEYS)}."
    name = item.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        yield ".name: expected letters, digits, _ and -."
    elif name in KINDS or name in names:
        yield f".name: {name} is there already; give it another name."
    labels = item.get("labels")
    if labels is not None and not (
        isinstance(labels, list) and all(isinstance(one, str) and one.strip() for one in labels)
    ):
        yield ".labels: expected a list of words."
    mask = item.get("mask")
    if not isinstance(mask, str) or not mask.strip():
        yield ".mask: expected a text such as [사번]."
    elif mask not in MASKS.values() and _BAD_MASK.search(mask):
        yield ".mask: it may hold no quotes, backslashes, separators of tables or control tokens."
    else:
        yield from _wrong_with_pattern(item.get("pattern"), mask)


def _wrong_with_pattern(pattern: Any, mask: str) -> Iterator[str]:
    if not isinstance(pattern, str) or not pattern:
        yield ".pattern: expected a regular expression."
        return
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        yield f".pattern: it is no regular expression: {error.msg} at character {error.pos}."
        return
    try:
        if compiled.search("", timeout=_PROBE_SECONDS):
            yield ".pattern: it matches nothing at all, so everything; ask for a character or more."
        elif compiled.search(mask, timeout=_PROBE_SECONDS):
            yield ".pattern: it matches its own mask; make one of the two different."
        letters = sorted(set(filter(str.isalnum, pattern)))
        for unit in (*_UNITS, *letters):
            # The letters behind it: without one that a match needs, no match is tried at all.
            probe = unit * (4000 // len(unit)) + "\0" + "".join(letters)
            compiled.search(probe, timeout=_PROBE_SECONDS)
    except TimeoutError:
        yield (
            ".pattern: it takes too long, since it backtracks; no repetition inside of another, "
            "such as (a+)+."
        )
