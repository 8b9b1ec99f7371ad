"""The requirement files of scripts/lock: for each package the one file that is installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from axtune.errors import AxtuneError

# In the package as it is installed, beside it in a checkout.
_PLACES = (Path(__file__).parents[1] / "lock", Path(__file__).parents[2] / "scripts" / "lock")
_ENTRY = re.compile(
    r"^# (?P<file>\S+)\n(?P<name>\S+)==(?P<version>\S+) \\\n"
    r" +--hash=sha256:(?P<sha256>[0-9a-f]{64})$",
    re.MULTILINE,
)

Environment = Literal["axtune", "vllm"]


@dataclass(frozen=True)
class Pin:
    """A package's one file.

    Attributes:
        name: Of the package, normalised.
        version: Such as ``2.13.0+cpu``.
        file: Its name: a wheel, or a .tar.gz where an index has no wheel of it.
        sha256: Of that file, hexadecimal.
    """

    name: str
    version: str
    file: str
    sha256: str

    @property
    def is_wheel(self) -> bool:
        """Whether it can be installed as it is; else it is built first."""
        return self.file.endswith(".whl")

    def __str__(self) -> str:
        """Its entry in a requirement file."""
        return f"# {self.file}\n{self.name}=={self.version} \\\n    --hash=sha256:{self.sha256}\n"


def read(text: str) -> list[Pin]:
    """The pins of a requirement file that scripts/lock.sh wrote."""
    return [Pin(**found.groupdict()) for found in _ENTRY.finditer(text)]


def locked(environment: Environment, python: str, *, cuda: bool) -> list[Pin]:
    """What is installed into an environment.

    Args:
        environment: Of axtune with its extras, or of vLLM.
        python: Such as ``3.12``.
        cuda: Whether for NVIDIA cards, else for CPUs alone.

    Raises:
        AxtuneError: When there is no lock for that Python.
    """
    place = next((place for place in _PLACES if place.is_dir()), None)
    if place is None:
        raise AxtuneError(
            "This installation of axtune lacks the locked versions (axtune/lock).",
            "Install axtune again, from its wheel or its checkout.",
        )
    build = "cuda" if cuda else "cpu"
    file = place / f"{environment}-{build}-py{python.replace('.', '')}.txt"
    if not file.is_file():
        known = sorted(
            f"3.{one.stem.rsplit('py3', 1)[1]}" for one in place.glob(f"{environment}-{build}-*")
        )
        raise AxtuneError(
            f"There is no lock for Python {python}.", f"Give one of {', '.join(known)}."
        )
    return read(file.read_text("utf-8"))
