"""Figures, versions and paths as people read and type them."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from pathlib import Path

from axtune.errors import AxtuneError


def package_version(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def typed(path: str | Path) -> str:
    """A path as it is typed in a shell: quoted where need be, and never taken for an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def plural(count: int, noun: str) -> str:
    """``1 step``, ``2 steps``, ``1,000 passes``."""
    if count != 1:
        noun += "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{count:,} {noun}"


def gigabytes(count: float) -> str:
    """Bytes as text, in units of 10^9; below one of those, of 10^6."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """``7s``, ``3m 20s``, ``2h 05m``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def shard_bytes(size: str) -> int:
    """A size such as 5GB in bytes, as transformers reads it: GB and MB are of 10, GiB and MiB of 2.

    Raises:
        AxtuneError: When it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT])(i?)B", size.strip(), re.IGNORECASE)
    if not match:
        raise AxtuneError(f"{size} is not a file size.", "Give one such as 5GB or 500MB.")
    unit = 1024 if match[3] else 1000
    return int(float(match[1]) * unit ** (1 + "KMGT".index(match[2].upper())))
