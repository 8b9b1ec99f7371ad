"""This machine: what a run, an evaluation and a server will find on it, before they need it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from axtune.checkpoint.locate import find
from axtune.errors import AxtuneError
from axtune.units import gigabytes, package_version
from axtune.verify.certificate import Check

# What each optional set of packages (pyproject.toml) is for, in the words of a command.
_EXTRAS = {
    "docs": "mkdocs build, the documentation as a site",
    "documents": "axtune data import, and documents in data.train",
    "duplicates": "data.near_duplicates, data.not_in",
    "gguf": "axtune export --to gguf",
    "harness": "axtune eval --tasks",
    "verify": "axtune verify --vllm",
}
# A merge or an export of a 7B model in 16 bit, and as much again for the run's own checkpoints.
_ROOM = 20e9
_HOST = 8e9  # bytes that loading a 7B base in 4 bit passes through the host's memory
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_PRIVATE = ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
_MAKERS = ("skt", "sktelecom")


def examine_machine() -> list[Check]:
    """Look at Python, card, memory, disk, packages, vLLM, models and switches; nothing is changed.

    Returns:
        The checks, by part. ``fail`` is what keeps axtune from working at all; ``warn`` what keeps
        a command from working, with what to do.
    """
    checks: list[Check] = []
    for part in (_python, _card, _four_bit, _memory, _disk, _packages, _vllm, _models, _switches):
        checks += part()
    return checks


def _python() -> Iterator[Check]:
    version = platform.python_version()
    wanted = importlib.metadata.metadata("axtune").json["requires_python"]
    system = f"{platform.system()} {platform.release()}"
    if _is_wsl():
        system += ", WSL2"
    found = f"{version}, axtune {package_version('axtune')}, {sys.prefix}"
    yield Check("machine", "Python", "pass", f"{found} (it asks for {wanted})")
    yield Check("machine", "system", "pass", system)


def _is_wsl() -> bool:
    """Whether this Linux runs in Windows (its kernel says so)."""
    return "microsoft" in platform.release().lower()


def _card() -> Iterator[Check]:
    import torch

    built = f"torch {torch.__version__}"
    driver = _driver()
    if not torch.cuda.is_available():
        if driver is None:
            yield Check("card", "GPU", "skip", f"none; {built} computes on the CPU")
            return
        how = "built for CUDA " + torch.version.cuda if torch.version.cuda else "built without CUDA"
        yield Check(
            "card", "GPU", "fail", f"{driver}, which {built} ({how}) does not see",
            "Install a torch for the driver's CUDA (https://pytorch.org/get-started/locally), or a "
            "newer driver.",
        )  # fmt: skip
        return
    for number in range(torch.cuda.device_count()):
        unused, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        major, minor = torch.cuda.get_device_capability(number)
        found = (
            f"{name}, {gigabytes(total)}, {gigabytes(unused)} of it free, compute capability "
            f"{major}.{minor}"
        )
        used = total - unused
        if used > 0.25 * total:
            yield Check(
                "card", f"GPU {number}", "warn", found,
                f"Something else holds {gigabytes(used)} of it (nvidia-smi shows what); end it "
                "before a run.",
            )  # fmt: skip
        else:
            yield Check("card", f"GPU {number}", "pass", found)
        if major < 8:
            yield Check(
                "card", f"GPU {number}, bf16", "warn", "it does not compute in bf16",
                "Nothing need be done for training, which takes fp16; quantise with "
                "`axtune quantize --precision fp16`.",
            )  # fmt: skip
    yield Check(
        "card", "driver", "pass", f"{driver or 'unknown'}; {built}, CUDA {torch.version.cuda}"
    )
    if _is_wsl():
        yield Check(
            "card", "WSL2", "warn", "Windows keeps a part of the card, and lends host memory when "
            "it is full: a run then is a hundred times slower",
            'Plan with --gpu "8GB WSL2", and set "CUDA - Sysmem Fallback Policy" to "Prefer No '
            'Sysmem Fallback" in the NVIDIA Control Panel.',
        )  # fmt: skip


def _driver() -> str | None:
    """The first card's name and driver, as nvidia-smi says; None without one."""
    program = shutil.which("nvidia-smi") or "/usr/lib/wsl/lib/nvidia-smi"
    words = ["--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return f"{lines[0].replace(',', ', driver')}" if lines else None


def _four_bit() -> Iterator[Check]:
    """A small matrix through bitsandbytes and back, where a QLoRA run would have it."""
    version = package_version("bitsandbytes")
    if version is None:
        yield Check(
            "card", "4 bit", "warn", "bitsandbytes is not installed, which QLoRA recipes need",
            "Run `pip install bitsandbytes`.",
        )  # fmt: skip
        return
    try:
        import bitsandbytes
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        matrix = torch.linspace(-1, 1, 4096, device=device).view(64, 64)
        packed, state = bitsandbytes.functional.quantize_4bit(matrix, quant_type="nf4")
        back = bitsandbytes.functional.dequantize_4bit(packed, state)
        furthest = float((back - matrix).abs().max())
    except Exception as error:  # whatever a library of a driver's raises
        yield Check(
            "card", "4 bit", "warn", f"bitsandbytes {version} does not work: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}",
            "QLoRA recipes need it: install a version that is made for this CUDA "
            "(`python -m bitsandbytes` says more).",
        )  # fmt: skip
        return
    if furthest > 0.2:  # the widest step of NF4 is 0.3
        yield Check(
            "card", "4 bit", "fail", f"bitsandbytes {version} computes wrong numbers on {device}",
            "Install another version of it; runs in 4 bit would learn nothing sound.",
        )  # fmt: skip
        return
    yield Check("card", "4 bit", "pass", f"bitsandbytes {version} works on {device}")


def _memory() -> Iterator[Check]:
    from axtune.plan.estimate import free_memory

    unused = free_memory()
    if unused is None:
        yield Check("host", "memory", "skip", "the system does not say how much is free")
        return
    found = f"{gigabytes(unused)} free"
    if unused < _HOST:
        yield Check(
            "host", "memory", "warn", found,
            f"Loading a 7B base takes up to {gigabytes(_HOST)}: end other programs"
            + (", or raise `memory` in .wslconfig." if _is_wsl() else "."),
        )  # fmt: skip
    else:
        yield Check("host", "memory", "pass", found)


def _disk() -> Iterator[Check]:
    from huggingface_hub.constants import HF_HUB_CACHE

    places = {
        "here": Path.cwd(),
        "models": Path(HF_HUB_CACHE),
        "temporary": _temporary(),
    }
    for name, place in places.items():
        nearest = next(one for one in (place, *place.parents) if _is_there(one))
        try:
            unused = shutil.disk_usage(nearest).free
        except OSError as error:
            yield Check("disk", name, "warn", f"{place}: {error.strerror}", "Make it readable.")
            continue
        found = f"{gigabytes(unused)} free in {place}"
        if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
            yield Check(
                "disk", name, "warn", f"{place} cannot be written", "Set another place, or its "
                "rights (HF_HOME for models, TMPDIR for temporary files)."
            )  # fmt: skip
        elif unused < _ROOM and name != "temporary":
            yield Check(
                "disk", name, "warn", found,
                f"A 7B model in 16 bit takes 14.5 GB, and so does each merge: make room for "
                f"{gigabytes(_ROOM)}.",
            )  # fmt: skip
        else:
            yield Check("disk", name, "pass", found)


def _temporary() -> Path:
    """Where temporary files go, or would go if anything could be written."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path(os.environ.get("TMPDIR", "/tmp"))


def _is_there(place: Path) -> bool:
    """Whether there is such a file or folder, as far as this user may look."""
    with suppress(OSError):
        return place.exists()
    return False


def _packages() -> Iterator[Check]:
    requirements = importlib.metadata.requires("axtune") or []
    for extra, needed_by in _EXTRAS.items():
        packages = [
            match[0]
            for one in requirements
            if re.search(rf"extra == ['\"]{extra}['\"]", one)
            and (match := re.match(r"[A-Za-z0-9._-]+", one))
        ]
        absent = [name for name in packages if package_version(name) is None]
        if absent:
            yield Check(
                "packages", extra, "skip", f"not installed: {', '.join(absent)}; {needed_by} would "
                f"need `pip install 'axtune[{extra}]'`"
            )  # fmt: skip
        else:
            yield Check("packages", extra, "pass", needed_by)
    for package, key in (("flash_attn", "attention: flash_attention_2"),):
        there = importlib.util.find_spec(package) is not None
        yield Check(
            "packages", package.replace("_", "-"), "pass" if there else "skip",
            key if there else f"not installed; only {key} needs it",
        )  # fmt: skip


def _vllm() -> Iterator[Check]:
    from axtune.verify.vllm import find_vllm

    try:
        program = find_vllm()
    except AxtuneError as error:
        yield Check("vLLM", "program", "skip", f"none here; {_lower(str(error.remedy))}")
        return
    versions = [
        folder.name.removesuffix(".dist-info").partition("-")[2]
        for folder in program.parent.parent.glob("lib/python3.*/site-packages/vllm-*.dist-info")
    ]
    yield Check("vLLM", "program", "pass", " ".join(["vLLM", *versions, "at", str(program)]))


def _models() -> Iterator[Check]:
    """The models of this family that the Hub's cache holds, whole or not."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):  # what is wrong with the folder `_disk` says
        repositories = frozenset()
    held = sorted(
        (one.repo_id, one.size_on_disk)
        for one in repositories
        if one.repo_type == "model" and one.repo_id.split("/")[0].lower() in _MAKERS
    )
    if not held:
        yield Check(
            "models", "cache", "skip", "no A.X model is in the Hub's cache; a recipe's first run "
            + ("needs a folder, model=FOLDER" if any(map(_is_on, _OFFLINE))
               else "downloads its model, or takes a folder")
        )  # fmt: skip
    for name, size in held:
        fault = _offline(partial(find, name))
        if fault:
            yield Check(
                "models", name, "warn", f"{gigabytes(size)}, not whole: {_lower(fault)}",
                f"Download it again: hf download {name}.",
            )  # fmt: skip
        else:
            yield Check("models", name, "pass", f"{gigabytes(size)}, whole")


def _offline(look: Callable[[], object]) -> str | None:
    """What is wrong with a model, found without the network."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        look()
    except AxtuneError as error:
        return str(error.found)
    finally:
        constants.HF_HUB_OFFLINE = before
    return None


def _switches() -> Iterator[Check]:
    on = [name for name in _OFFLINE if _is_on(name)]
    found = (
        f"{', '.join(on)} set: nothing is downloaded" if on else "the Hub may be asked for models"
    )
    yield Check("network", "offline", "pass", found)
    off = [name for name in _PRIVATE if _is_on(name)]
    yield Check(
        "network", "telemetry", "pass",
        f"off ({', '.join(off)})" if off else "axtune sends none; for the Hub's own, set "
        "HF_HUB_DISABLE_TELEMETRY=1",
    )  # fmt: skip
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    yield Check("network", "token", "pass", "HF_TOKEN is set" if token else "no HF_TOKEN is set")


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")


def _lower(sentence: str) -> str:
    """A sentence as a part of one: without its full stop, and small at its beginning."""
    words = sentence.rstrip(".")
    return words[:1].lower() + words[1:]
