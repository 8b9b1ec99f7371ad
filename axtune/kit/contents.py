"""What a kit carries beside wheels: models, recipes, sample data, documents and its installer."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from axtune.checkpoint.locate import (
    CONFIG_FILES,
    RECORD_FILE,
    TOKENIZER_FILES,
    WEIGHT_FILES,
    Checkpoint,
    find,
)
from axtune.errors import AxtuneError
from axtune.weights.safetensors_file import read_checkpoint

_HERE = Path(__file__).parent
# Recipes and sample data lie in the package as it is installed, beside it in a checkout.
_CHECKOUT = _HERE.parents[1]
_BESIDE = ("recipes", "data_templates")
_DOCUMENTS = ("README.md", "README.ko.md", "CHANGELOG.md", "LICENSE", "docs")


@dataclass(frozen=True)
class Model:
    """A checkpoint that a kit carries.

    Attributes:
        checkpoint: Where it lies on this machine.
        folder: Its name in the kit's ``models``.
        files: What is carried of it: weights, tokenizer, configuration.
    """

    checkpoint: Checkpoint
    folder: str
    files: tuple[Path, ...]

    @property
    def nbytes(self) -> int:
        """The size of what is carried."""
        return sum(file.stat().st_size for file in self.files)


def models_of(names: Sequence[str]) -> list[Model]:
    """Find the models that a kit carries, from the Hub where they are not on this machine.

    Args:
        names: Hub ids, folders or embedded names.

    Raises:
        AxtuneError: When one is nowhere, lacks a file or is cut off, or two have one folder name.
    """
    models: dict[str, Model] = {}
    for name in names:
        checkpoint = find(name)
        read_checkpoint(checkpoint.folder)  # a file that a download cut off is refused here
        patterns = (*TOKENIZER_FILES, *CONFIG_FILES, RECORD_FILE, *WEIGHT_FILES)
        files = sorted({file for each in patterns for file in checkpoint.folder.glob(each)})
        folder = name.rsplit("/", 1)[-1] if "/" in name else checkpoint.folder.resolve().name
        if folder in models:
            raise AxtuneError(
                f"Two models would be models/{folder} in the kit.", "Rename one of their folders."
            )
        models[folder] = Model(checkpoint, folder, tuple(files))
    return list(models.values())


def copy_models(
    models: Sequence[Model], folder: Path, show: Callable[[int, int, str], None]
) -> None:
    """Copy models into a folder, file by file; one that is there with its size stays.

    Args:
        models: To copy.
        folder: The kit's ``models``.
        show: Told how many bytes are there, of how many, and which file is next.
    """
    total, done = sum(model.nbytes for model in models), 0
    for model in models:
        (folder / model.folder).mkdir(parents=True, exist_ok=True)
        for file in model.files:
            target = folder / model.folder / file.name
            show(done, total, f"{model.folder}/{file.name}")
            if not (target.is_file() and target.stat().st_size == file.stat().st_size):
                shutil.copyfile(file, target)
            done += file.stat().st_size


def copy_pages(folder: Path) -> None:
    """Copy recipes, sample data and documents into a kit.

    Raises:
        AxtuneError: When this installation lacks the recipes or the sample data.
    """
    for name in _BESIDE:
        found = next((one for one in (_HERE.parent / name, _CHECKOUT / name) if one.is_dir()), None)
        if found is None:
            raise AxtuneError(
                f"This installation of axtune lacks {name}.",
                "Install axtune again, from its wheel or its checkout.",
            )
        shutil.copytree(found, folder / name, dirs_exist_ok=True)
    documents = folder / "docs"
    documents.mkdir(exist_ok=True)
    if not (_CHECKOUT / "pyproject.toml").is_file():
        said = importlib.metadata.distribution("axtune").read_text("METADATA") or ""
        (documents / "README.md").write_text(said.partition("\n\n")[2], "utf-8")
        return
    for name in _DOCUMENTS:
        source = _CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, documents, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, documents / name)


def copy_installer(folder: Path, python: str) -> None:
    """Write what is run on the other side: ``install.sh``, the quickstart, the bar to the network.

    Args:
        folder: The kit.
        python: That its wheels are for, such as ``3.12``.
    """
    text = (_HERE / "install.sh").read_text("utf-8")
    (folder / "install.sh").write_text(text.replace("@PYTHON@", python), "utf-8")
    shutil.copyfile(_HERE / "quickstart.sh", folder / "quickstart.sh")
    barred = folder / "no_network"
    barred.mkdir(exist_ok=True)
    shutil.copyfile(_HERE / "no_network.py", barred / "sitecustomize.py")
