"""What several tests share: tokenizers, the recorded data beside the checkout, label stretches."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support import pictures

from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer

# Some virtual machines announce AVX512-BF16 and compute nonsense with it (axtune.model.cpu_bf16):
# tests that multiply in bf16 by themselves, and the commands they start, do without it everywhere.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")

settings.register_profile(
    "axtune", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("axtune")


# The libraries are no garbage: the collector does not look at them as they are loaded, nor later.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that two processes end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name != "test_served.py", item.path not in slow))


# The tests of pictures, and of whole runs.
DRAWING = ("test_plots.py", "test_run.py", "test_run_preference.py")


@pytest.fixture(autouse=True)
def _pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.path.name not in DRAWING:
        monkeypatch.setattr(pictures.DRAWS, pictures.blank)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded data beside the checkout; tests that need it are skipped without."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder} with the recorded data")
    return folder


@pytest.fixture(scope="session")
def real_checkpoint(
    shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Builds the folder of a real checkpoint without its weights, for layout ``4.0`` or ``3.1``."""
    built: dict[str, Path] = {}

    def build(layout: str) -> Path:
        if layout not in built:
            folder = tmp_path_factory.mktemp(f"ax-{layout}-light")
            source = shared / "ax-light"
            for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
                shutil.copyfile(source / name, folder / name)
            for kind in ("config", "generation_config"):
                file = source / f"{kind}-ax-{layout}-light.json"
                if file.is_file():
                    shutil.copyfile(file, folder / f"{kind}.json")
            built[layout] = folder
        return built[layout]

    return build


@pytest.fixture(scope="session", params=["4.0", "3.1"])
def real(request: pytest.FixtureRequest, real_checkpoint: Callable[[str], Path]) -> AxTokenizer:
    """The real tokenizer, as both real checkpoints carry it."""
    return load_tokenizer(str(real_checkpoint(request.param)))


@pytest.fixture(scope="session")
def tiny() -> AxTokenizer:
    """The tokenizer of the embedded model in Qwen2 layout."""
    return load_tokenizer("tiny-ax-4.0")


@pytest.fixture(scope="session")
def tiny_31() -> AxTokenizer:
    """The tokenizer of the embedded model in Llama layout."""
    return load_tokenizer("tiny-ax-3.1")


@pytest.fixture(scope="session", params=["4.0", "3.1"])
def either_tiny(
    request: pytest.FixtureRequest, tiny: AxTokenizer, tiny_31: AxTokenizer
) -> AxTokenizer:
    """Both embedded tokenizers in turn."""
    return tiny if request.param == "4.0" else tiny_31
