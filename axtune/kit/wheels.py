"""The wheels of a kit: downloaded by pip, each held against its digest; built where there is none.

pip is asked rather than the index, for a company's mirror, proxy and certificates are configured
in it.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from axtune.errors import AxtuneError, MissingPackageError, UnreachableError
from axtune.kit.locks import Pin

_PYTORCH = "https://download.pytorch.org/whl/cpu"  # has the builds with +cpu in their version
_AT_ONCE = 8  # packages that one pip downloads: what an interruption loses
# Of Linux on x86_64: torch's wheels want glibc 2.28, some of vLLM's 2.31.
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(31, 4, -1)),
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
)
_CHECKOUT = Path(__file__).parents[2]


def sha256(file: Path) -> str:
    """A file's digest, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def bring(
    pins: Sequence[Pin], folder: Path, python: str, show: Callable[[int, int, str], None]
) -> list[Pin]:
    """Bring a wheel of every pin into a folder; what lies there already is not brought again.

    Args:
        pins: Wheels, and sources to build them from.
        folder: That takes them.
        python: Whose wheels, such as ``3.12``.
        show: Told how many are there, of how many, and what comes next.

    Returns:
        The pins of the wheels, in the same order: for a source, of the wheel built from it.

    Raises:
        UnreachableError: When pip cannot bring one, or brings another than was locked, or a source
            cannot be built here.
        AxtuneError: When a source is built for another Python.
    """
    wheels = [pin for pin in pins if pin.is_wheel]
    missing = [pin for pin in wheels if not _is_there(folder / pin.file, pin)]
    done = len(wheels) - len(missing)
    for cpu in (False, True):  # builds of PyTorch's own index are asked of it alone
        group = [pin for pin in missing if ("+cpu" in pin.version) == cpu]
        for start in range(0, len(group), _AT_ONCE):
            batch = group[start : start + _AT_ONCE]
            show(done, len(pins), batch[0].name)
            _download(batch, folder, python)
            done += len(batch)
    built: dict[Pin, Pin] = {}
    for pin in pins:
        if not pin.is_wheel:
            show(done, len(pins), f"building {pin.name}")
            built[pin] = _build(pin, folder, python)
            done += 1
    show(done, len(pins), "")
    return [built.get(pin, pin) for pin in pins]


def _is_there(file: Path, pin: Pin) -> bool:
    return file.is_file() and sha256(file) == pin.sha256


def _download(batch: Sequence[Pin], folder: Path, python: str) -> None:
    words = ["download", "--dest", str(folder), "--only-binary", ":all:"]
    words += ["--python-version", python, "--implementation", "cp"]
    words += [word for platform in _PLATFORMS for word in ("--platform", platform)]
    if "+cpu" in batch[0].version:
        words += ["--extra-index-url", _PYTORCH]
    said = _pip(words, batch)
    if said and len(batch) > 1:  # pip keeps none of them, and does not always say which it was
        for pin in batch:
            _download([pin], folder, python)
        return
    for pin in batch:
        if not _is_there(folder / pin.file, pin):
            raise UnreachableError(
                f"pip did not bring {pin.file}, which the lock names{said and f': {said}'}.",
                "See whether the index that pip asks has this file (`pip config list` says which "
                "it is), then give the same command again; what was downloaded is kept.",
            )


def _pip(words: Sequence[str], pins: Sequence[Pin]) -> str:
    """Run pip for pins or for a folder; its complaint in one line, empty when it has none."""
    with tempfile.TemporaryDirectory() as place:
        listed = Path(place) / "requirements.txt"
        listed.write_text("".join(map(str, pins)), "utf-8")
        if pins:
            words = [*words, "--require-hashes", "--requirement", str(listed)]
        # llama.cpp would be made for this machine's instructions, which the other may not have.
        portable = {"CMAKE_ARGS": os.environ.get("CMAKE_ARGS", "-DGGML_NATIVE=OFF")}
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", *words, "--no-deps",
             "--quiet"],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            env=os.environ | portable,
        )  # fmt: skip
    if done.returncode == 0:
        return ""
    if "No module named pip" in done.stderr:
        raise MissingPackageError(
            "The wheels are downloaded by pip, which this environment lacks.",
            f"Run `{sys.executable} -m ensurepip`, or `uv pip install pip`.",
        )
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR:", "error:"))] or lines[-1:]
    said = errors[0] if errors else f"pip ended with {done.returncode}"
    return said.removeprefix("ERROR:").strip().rstrip(".")


def _build(pin: Pin, folder: Path, python: str) -> Pin:
    """Build the wheel of a package that an index holds as a source only."""
    found = sorted(folder.glob(f"{pin.name.replace('-', '_')}-{pin.version}-*.whl"))
    if not found:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            said = _pip(["wheel", "--wheel-dir", place], [pin])
            found = [file.replace(folder / file.name) for file in Path(place).glob("*.whl")]
    if not found:
        raise UnreachableError(
            f"The index has no wheel of {pin.name} {pin.version}, and none could be built here: "
            f"{said}.",
            "Install what it is built with (a C++ compiler and CMake, most often), or leave it "
            f"out: --without {pin.name}. What was downloaded is kept.",
        )
    wheel = found[0]
    if "-py3-none-" not in wheel.name and f"-cp{python.replace('.', '')}-" not in wheel.name:
        raise AxtuneError(
            f"{pin.name} has no wheel and was built as {wheel.name}, which Python {python} does "
            "not take.",
            f"Make the kit with Python {python}, or leave it out: --without {pin.name}.",
        )
    return Pin(pin.name, pin.version, wheel.name, sha256(wheel))


def own_wheel(folder: Path) -> Pin:
    """Put axtune's own wheel into a folder: built from its checkout, or from what is installed.

    Raises:
        AxtuneError: When it cannot be built.
    """
    version = importlib.metadata.version("axtune")
    wheel = folder / f"axtune-{version}-py3-none-any.whl"
    if (_CHECKOUT / "pyproject.toml").is_file():
        if said := _pip(["wheel", "--wheel-dir", str(folder), str(_CHECKOUT)], []):
            raise UnreachableError(
                f"axtune's own wheel cannot be built: {said}.",
                "The build needs hatchling from the index; give the same command again.",
            )
    else:
        _packed_again(wheel)
    return Pin("axtune", version, wheel.name, sha256(wheel))


def _packed_again(wheel: Path) -> None:
    """Write the wheel that this installation was made from: its files, with their digests."""
    installed = importlib.metadata.distribution("axtune")
    root = Path(str(installed.locate_file("")))
    made_here = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
    names = [
        str(file)
        for file in installed.files or []
        if not str(file).startswith("..")
        and "__pycache__" not in file.parts
        and not (file.parts[0].endswith(".dist-info") and file.name in made_here)
    ]
    info = next(name.split("/")[0] for name in names if name.split("/")[0].endswith(".dist-info"))
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        lines = []
        for name in sorted(names):
            content = (root / name).read_bytes()
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            lines.append(f"{name},sha256={digest.decode()},{len(content)}")
        record = f"{info}/RECORD"
        archive.writestr(zipfile.ZipInfo(record), "\n".join([*lines, f"{record},,"]) + "\n")
