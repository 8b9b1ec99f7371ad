"""An index of two small packages on this machine, and their lock, for the tests of kits."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from axtune.kit import locks, make, wheels
from axtune.kit.locks import Pin

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def wheel(folder: Path, name: str, version: str = "1.0") -> Pin:
    """Write a wheel with one module, and say its pin."""
    file = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    content = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in content.items():
            archive.writestr(zipfile.ZipInfo(path), text)
        record = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), record)
    return Pin(name, version, file.name, hashlib.sha256(file.read_bytes()).hexdigest())


def source(folder: Path, name: str, backend: str = "") -> Pin:
    """Write a source archive whose wheel a backend of its own builds, and say its pin."""
    file = folder / f"{name}-1.0.tar.gz"
    made = backend or (
        "import pathlib, zipfile\n"
        "def build_wheel(place, settings=None, metadata=None):\n"
        f"    name = '{name}-1.0-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(pathlib.Path(place) / name, 'w') as wheel:\n"
        f"        at = '{name}-1.0.dist-info/'\n"
        f"        wheel.writestr(at + 'METADATA', 'Metadata-Version: 2.1\\nName: {name}\\n"
        "Version: 1.0\\n')\n"
        "        wheel.writestr(at + 'WHEEL', 'Wheel-Version: 1.0\\n"
        "Root-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "        wheel.writestr(at + 'RECORD', '')\n"
        "    return name\n"
    )
    project = '[build-system]\nrequires = []\nbuild-backend = "made"\nbackend-path = ["."]\n'
    information = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    with tarfile.open(file, "w:gz") as archive:
        for path, text in {
            "made.py": made, "pyproject.toml": project, "PKG-INFO": information,
        }.items():  # fmt: skip
            entry = tarfile.TarInfo(f"{name}-1.0/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return Pin(name, "1.0", file.name, hashlib.sha256(file.read_bytes()).hexdigest())


def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Pin]:
    """Let pip see one folder alone, which holds a lock's two packages; axtune's wheel is a small
    one as well, and a kit asks the disk for no room.
    """
    folder, place = tmp_path / "index", tmp_path / "lock"
    folder.mkdir()
    place.mkdir()
    pins = [wheel(folder, "alpha"), wheel(folder, "beta")]
    for name in ("axtune-cpu", "vllm-cpu", "axtune-cuda", "vllm-cuda"):
        text = "".join(map(str, pins))
        (place / f"{name}-py{PYTHON.replace('.', '')}.txt").write_text(text, "utf-8")
    monkeypatch.setattr(locks, "_PLACES", (place,))
    monkeypatch.setattr(wheels, "own_wheel", lambda folder: wheel(folder, "axtune", "0.1.0"))
    monkeypatch.setattr(make, "_ROOM", {"cpu": 0, "cuda": 0})
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return pins
