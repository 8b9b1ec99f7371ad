"""A kit: everything that installs axtune on a machine without a network, with its digests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axtune.checkpoint.atomic import staged
from axtune.errors import AxtuneError
from axtune.kit import contents, locks, wheels
from axtune.kit.contents import Model
from axtune.kit.locks import Environment, Pin
from axtune.progress_bar import ProgressBar
from axtune.units import package_version

MANIFEST, DIGESTS = "manifest.json", "MANIFEST.sha256"
# What the wheels come to, about: for the room on the disk, and said nowhere else.
_ROOM = {"cpu": 1_200_000_000, "cuda": 4_500_000_000}


@dataclass(frozen=True)
class Wanted:
    """What a kit is asked to be.

    Attributes:
        python: On the other machine, such as ``3.12``.
        cuda: Whether for NVIDIA cards, else for CPUs alone.
        vllm: Whether it brings vLLM's environment.
        models: Hub ids, folders or embedded names.
        without: Names of locked packages that it leaves out.
    """

    python: str
    cuda: bool
    vllm: bool
    models: tuple[str, ...]
    without: tuple[str, ...]


@dataclass(frozen=True)
class Kit:
    """A kit that was written.

    Attributes:
        folder: Where it is.
        files: How many it has.
        nbytes: All of them.
        digest: SHA-256 of ``MANIFEST.sha256``, by which the other side may know the whole.
        models: The folders of its models.
    """

    folder: Path
    files: int
    nbytes: int
    digest: str
    models: tuple[str, ...]


def make(out: Path, wanted: Wanted) -> Kit:
    """Write a kit; what an interruption leaves, the same call goes on from.

    Args:
        out: Its folder, which must not exist yet.
        wanted: What it is to be.

    Raises:
        AxtuneError: When something of it cannot be had; nothing incomplete stands under `out`.
    """
    environments: tuple[Environment, ...] = ("axtune", "vllm") if wanted.vllm else ("axtune",)
    pins = {one: locks.locked(one, wanted.python, cuda=wanted.cuda) for one in environments}
    _require_known(wanted.without, [pin.name for each in pins.values() for pin in each])
    models = contents.models_of(wanted.models)
    room = _ROOM["cuda" if wanted.cuda else "cpu"] * len(environments)
    # Gone on with for the same wheels, whatever else is asked for this time.
    resumes = f"{wanted.python} {wanted.cuda}"
    with staged(out, room + sum(model.nbytes for model in models), resumes) as folder:
        carried: set[str] = set()
        (folder / "wheels").mkdir(exist_ok=True)
        (folder / "requirements").mkdir(exist_ok=True)
        for environment, listed in pins.items():
            kept = [pin for pin in listed if pin.name not in wanted.without]
            with ProgressBar(f"wheels of {environment}") as bar:
                brought = wheels.bring(kept, folder / "wheels", wanted.python, bar.show)
            if environment == "axtune":
                brought.append(wheels.own_wheel(folder / "wheels"))
            _write_requirements(folder / "requirements" / f"{environment}.txt", brought)
            carried |= {pin.file for pin in brought}
        _keep_only(folder / "wheels", carried)
        _keep_only(folder / "requirements", {f"{one}.txt" for one in environments})
        _keep_only(folder / "models", {model.folder for model in models})
        with ProgressBar("models") as bar:
            contents.copy_models(models, folder / "models", bar.show)
        contents.copy_pages(folder)
        contents.copy_installer(folder, wanted.python)
        return _with_digests(folder, out, wanted, models)


def _keep_only(folder: Path, names: set[str]) -> None:
    """Remove what an interrupted call that asked for something else left."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name not in names:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _require_known(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise AxtuneError(
                f"--without {name}: the lock has no such package.",
                "scripts/lock/ lists them; names are in lower case, with hyphens.",
            )


def _write_requirements(file: Path, pins: Sequence[Pin]) -> None:
    file.write_text("".join(map(str, sorted(pins, key=lambda pin: pin.name))), "utf-8")


def _with_digests(folder: Path, out: Path, wanted: Wanted, models: Sequence[Model]) -> Kit:
    """Write the manifest of a filled folder, as JSON for people and as lines for sha256sum."""
    files = sorted(
        file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")
    )
    total, done = sum(file.stat().st_size for file in files), 0
    listed: dict[str, dict[str, Any]] = {}
    with ProgressBar("digests") as bar:
        for file in files:
            name, nbytes = str(file.relative_to(folder)), file.stat().st_size
            bar.show(done, total, name)
            listed[name] = {"sha256": wheels.sha256(file), "bytes": nbytes}
            done += nbytes
    said = {
        "axtune": package_version("axtune"),
        "python": wanted.python,
        "build": "CUDA 13" if wanted.cuda else "CPU",
        "vllm": wanted.vllm,
        "without": list(wanted.without),
        "models": [
            {"name": model.checkpoint.name, "folder": f"models/{model.folder}",
             "commit": model.checkpoint.commit}
            for model in models
        ],
        "files": listed,
    }  # fmt: skip
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n", "utf-8")
    lines = [f"{entry['sha256']}  {name}" for name, entry in listed.items()]
    lines.append(f"{wheels.sha256(manifest)}  {MANIFEST}")
    digests = folder / DIGESTS
    digests.write_text("\n".join(lines) + "\n", "utf-8")
    return Kit(
        out, len(lines) + 1, total, wheels.sha256(digests),
        tuple(f"models/{model.folder}" for model in models),
    )  # fmt: skip
