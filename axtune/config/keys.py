"""The keys of a recipe before they are checked: plain values, and where each of them stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axtune.config.passthrough import SECTIONS
from axtune.config.paths import KeyPath
from axtune.config.recipe_file import read_file, read_value
from axtune.errors import Fault

# What has keys of a recipe in it. Below other keys, such as data.train and lora.rank_pattern, are
# the parts of a single value, which is given whole.
_SECTIONS: frozenset[KeyPath] = frozenset(
    (
        *(("data",), ("data", "replay"), ("evaluate",), ("preference",)),
        *((name,) for name in SECTIONS),
        ("stages",),
    )
)
_OF_A_STAGE = 2  # ("stages", "sft") has the keys of a recipe


@dataclass
class Keys:
    """A recipe's plain values, of its file and of overrides.

    Attributes:
        file: The recipe's.
        values: By key; a section is a dictionary.
        places: File and line of each key, or the override that set it and 0.
        faults: The overrides that are none.
    """

    file: str
    values: dict[str, Any]
    places: dict[KeyPath, tuple[str, int]]
    faults: list[Fault] = field(default_factory=list)

    def fault(self, path: KeyPath, code: str, message: str) -> Fault:
        """A fault at the line of its key, or of the nearest section around it."""
        known = (self.places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.places)
        name = ".".join(map(str, path))
        message = f"{name}: {message}" if name else message
        return Fault(*next(known, (self.file, 0)), code, message)

    def override(self, overrides: Sequence[str]) -> None:
        """Set keys as ``key.path=value`` says."""
        for override in overrides:
            self._override(override)
        self._move_start()

    def _override(self, override: str) -> None:
        if not _is_utf8(override):
            name = override.encode("utf-8", "replace").decode()
            self.faults.append(Fault(name, 0, "bad-override", "it is not UTF-8 text."))
            return
        key, equals, text = override.partition("=")
        *path, last = key.removeprefix("--").split(".")
        if not equals or not all((*path, last)):
            self.faults.append(
                Fault(override, 0, "bad-override", "expected key.path=value, such as lora.r=32.")
            )
            return
        section = self.values
        for depth, part in enumerate(path, 1):
            child = section.get(part)
            if child is None:
                child = section[part] = {}
                self.places[*path[:depth],] = (override, 0)
            if not isinstance(child, dict):
                self.faults.append(
                    Fault(override, 0, "bad-override", f"{part} is a single value and has no keys.")
                )
                return
            section = child
        self._set(section, (*path, last), read_value(text), override)

    def _set(self, mine: dict[str, Any], path: KeyPath, value: Any, override: str) -> None:
        """Set a key; of a section, as in ``lora={r: 8}``, those in it; ``{}`` empties it."""
        old = mine.get(str(path[-1]))
        if value and isinstance(value, dict) and isinstance(old, dict) and _is_section(path):
            for key, item in value.items():
                self._set(old, (*path, key), item, override)
            return
        mine[str(path[-1])] = value
        self._clear(path)
        self.places[path] = (override, 0)

    def _move_start(self) -> None:
        """Take ``start_from`` and ``start_merged`` out of ``preference``, where they stood once."""
        preference = self.values.get("preference")
        for key in ("start_from", "start_merged"):
            if not isinstance(preference, dict) or key not in preference:
                continue
            if self.values.get(key) and preference[key]:
                continue  # said twice: the older place is refused as a key that there is not
            if preference[key]:
                self.values[key] = preference[key]
                if place := self.places.get(("preference", key)):
                    self.places[key,] = place
            del preference[key]

    def take(self, others: Keys, section: KeyPath, leaving: Sequence[str]) -> None:
        """Set the keys that stand in a section of other keys; sections of both are joined.

        Args:
            others: Stay as they are.
            section: Of `others`; empty for all of it.
            leaving: What is not taken, of the section's own keys.
        """
        values: Any = others.values
        for part in section:
            values = values[part]
        self._join((), self.values, values, others, section, leaving)

    def _join(
        self,
        path: KeyPath,
        mine: dict[str, Any],
        theirs: dict[str, Any],
        others: Keys,
        section: KeyPath,
        leaving: Sequence[str],
    ) -> None:
        for key, value in theirs.items():
            if key in leaving:
                continue
            here: KeyPath = (*path, key)
            if isinstance(value, dict) and isinstance(mine.get(key), dict):
                self._join(here, mine[key], value, others, section, ())
                continue
            mine[key] = value
            there = (*section, *here)
            self._clear(here)
            for place, line in others.places.items():
                if place[: len(there)] == there:
                    self.places[place[len(section) :]] = line

    def _clear(self, path: KeyPath) -> None:
        """Forget the places of a key that is set anew, and of what stood below it."""
        for old in [old for old in self.places if old[: len(path)] == path]:
            del self.places[old]


def read_keys(path: str | Path, overrides: Sequence[str] = ()) -> Keys:
    """A recipe's file with overrides.

    Raises:
        RecipeError: When the file cannot be read, is no YAML, or has no key of a recipe.
    """
    values, lines = read_file(path)
    keys = Keys(str(path), values, {key: (str(path), line) for key, line in lines.items()})
    keys.override(overrides)
    return keys


def _is_section(path: KeyPath) -> bool:
    """Whether keys of a recipe are below a key, and not the parts of one value."""
    if path[0] == "stages" and len(path) > 1:
        return len(path) == _OF_A_STAGE or _is_section(path[_OF_A_STAGE:])
    return path in _SECTIONS


def _is_utf8(text: str) -> bool:
    """Whether a text of the command line is one that can be written to a file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
