"""Wheels come from pip's index, each held against its digest; sources are built into wheels."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from support import kits
from support.kits import PYTHON

from axtune.errors import AxtuneError, MissingPackageError, UnreachableError
from axtune.kit import wheels
from axtune.kit.locks import Pin


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Pin]:
    (tmp_path / "wheels").mkdir()
    return kits.index(tmp_path, monkeypatch)


def silent(done: int, total: int, said: str) -> None:
    assert done <= total


def test_every_wheel_is_brought_and_only_what_is_missing_or_changed(
    pins: list[Pin], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "wheels"
    shown: list[tuple[int, int]] = []
    assert wheels.bring(pins, folder, PYTHON, lambda *words: shown.append(words[:2])) == pins
    assert {file.name for file in folder.iterdir()} == {pin.file for pin in pins}
    assert shown == [(0, 2), (2, 2)]
    (folder / pins[0].file).unlink()
    asked: list[list[Pin]] = []
    monkeypatch.setattr(wheels, "_AT_ONCE", 1)
    monkeypatch.setattr(wheels, "_download", lambda batch, *_: asked.append(list(batch)))
    wheels.bring(pins, folder, PYTHON, silent)
    assert asked == [pins[:1]]


def test_another_file_than_the_lock_names_is_refused(pins: list[Pin], tmp_path: Path) -> None:
    with (tmp_path / "index" / pins[1].file).open("ab") as file:
        file.write(b"x")
    with pytest.raises(UnreachableError, match=r"did not bring beta-1\.0") as caught:
        wheels.bring(pins, tmp_path / "wheels", PYTHON, silent)
    assert "what was downloaded is kept" in caught.value.remedy


def test_a_package_that_the_index_lacks_is_named_with_what_pip_says(
    pins: list[Pin], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "index")
    (tmp_path / "index").mkdir()
    with pytest.raises(UnreachableError, match=r"alpha-1\.0.*Could not find a version"):
        wheels.bring(pins[:1], tmp_path / "wheels", PYTHON, silent)


def test_a_source_is_built_into_a_wheel_with_a_digest_of_its_own(
    pins: list[Pin], tmp_path: Path
) -> None:
    source, folder = kits.source(tmp_path / "index", "gamma"), tmp_path / "wheels"
    brought = wheels.bring([*pins, source], folder, PYTHON, silent)
    assert [pin.name for pin in brought] == ["alpha", "beta", "gamma"]
    assert brought[2].file == "gamma-1.0-py3-none-any.whl"
    assert brought[2].sha256 == wheels.sha256(folder / brought[2].file)
    shutil.rmtree(tmp_path / "index")  # what was built is not built again
    assert wheels.bring([*pins, source], folder, PYTHON, silent) == brought


def test_a_source_that_cannot_be_built_may_be_left_out(pins: list[Pin], tmp_path: Path) -> None:
    broken = kits.source(tmp_path / "index", "gamma", "raise RuntimeError('no compiler')")
    with pytest.raises(AxtuneError, match=r"no wheel of gamma 1\.0") as caught:
        wheels.bring([broken], tmp_path / "wheels", PYTHON, silent)
    assert "--without gamma" in caught.value.remedy
    assert list((tmp_path / "wheels").iterdir()) == []


def test_a_wheel_built_for_another_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gamma-1.0-cp311-cp311-linux_x86_64.whl").touch()
    source = Pin("gamma", "1.0", "gamma-1.0.tar.gz", "")
    with pytest.raises(AxtuneError, match=r"which Python 3\.13 does not take"):
        wheels.bring([source], tmp_path, "3.13", silent)


def test_an_environment_without_pip_is_a_sentence(
    pins: list[Pin], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(MissingPackageError, match="downloaded by pip"):
        wheels.bring(pins, tmp_path / "wheels", PYTHON, silent)


def test_an_installed_axtune_is_packed_into_its_wheel_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = kits.wheel(tmp_path, "axtune", "0.1.0")
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / installed.file) as archive:
        archive.extractall(site)
        files = set(archive.namelist())
    (site / "axtune-0.1.0.dist-info" / "INSTALLER").write_text("pip")
    with (site / "axtune-0.1.0.dist-info" / "RECORD").open("a") as record:
        record.write("axtune-0.1.0.dist-info/INSTALLER,,\n../../bin/axtune,,\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(wheels, "_CHECKOUT", tmp_path)
    (tmp_path / "wheels").mkdir()
    pin = wheels.own_wheel(tmp_path / "wheels")
    assert (pin.name, pin.version, pin.file) == ("axtune", "0.1.0", installed.file)
    with zipfile.ZipFile(tmp_path / "wheels" / pin.file) as archive:
        assert set(archive.namelist()) == files
        record = archive.read("axtune-0.1.0.dist-info/RECORD").decode()
    assert "axtune.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0" in record
