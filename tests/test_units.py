"""Figures as people read and write them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.errors import AxtuneError
from axtune.units import duration, gigabytes, package_version, plural, shard_bytes, typed


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (60, "1m 00s"), (3599.6, "1h 00m"), (7500, "2h 05m")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@given(st.floats(0, 1e7))
def test_a_duration_is_near_what_it_is_of(seconds: float) -> None:
    """Read back it is right to a second, or above an hour to a minute; nothing counts to 60."""
    parts = [(int(part[:-1]), part[-1]) for part in duration(seconds).split()]
    counted = sum(count * {"h": 3600, "m": 60, "s": 1}[unit] for count, unit in parts)
    assert -0.5 <= seconds - counted <= (0.5 if counted < 3600 else 60)
    assert all(count < 60 for count, unit in parts if unit != "h")


def test_time_that_runs_backwards_is_none() -> None:
    assert duration(-3) == "0s"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 MB"), (1.4e6, "1 MB"), (999e6, "999 MB"), (1e9, "1.00 GB"), (80e9, "80.00 GB")],
)
def test_gigabytes(count: float, text: str) -> None:
    assert gigabytes(count) == text


@given(
    count=st.integers(1, 9999),
    unit=st.sampled_from(["KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"]),
    space=st.sampled_from(["", " "]),
    case=st.sampled_from([str, str.lower]),
)
def test_sizes_are_what_they_say(
    count: int, unit: str, space: str, case: Callable[[str], str]
) -> None:
    base = 1024 if "i" in unit else 1000
    wanted = count * base ** (1 + "KMGT".index(unit[0]))
    assert shard_bytes(case(f"{count}{space}{unit}")) == wanted


def test_half_a_gigabyte() -> None:
    assert shard_bytes(" 0.5GB ") == 500_000_000


@pytest.mark.parametrize("size", ["", "5", "GB", "5 B", "-5GB", "5GBs", "5,5GB", "1e3GB"])
def test_what_is_not_a_size_is_said(size: str) -> None:
    with pytest.raises(AxtuneError) as caught:
        shard_bytes(size)
    assert "500MB" in caught.value.remedy


def test_versions_of_packages() -> None:
    assert package_version("pytest") == pytest.__version__
    assert package_version("no-such-package-of-anyone") is None


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "pass", "1 pass"),
        (2, "pass", "2 passes"),
        (0, "row", "0 rows"),
        (1234, "process", "1,234 processes"),
        (1, "weight", "1 weight"),
    ],
)
def test_one_and_many(count: int, noun: str, text: str) -> None:
    assert plural(count, noun) == text


@pytest.mark.parametrize(
    "path", ["runs/a", "a b", "it's", '"', "-x", "--out", "상담", "$HOME", "a;b", "a\\b", "*"]
)
def test_a_typed_path_is_one_word_of_a_shell_and_no_option(path: str) -> None:
    said = subprocess.run(
        ["sh", "-c", f"printf '%s|' {typed(path)}"], capture_output=True, text=True, check=True
    )
    assert said.stdout in (f"{path}|", f"./{path}|")
    assert not said.stdout.startswith("-")
