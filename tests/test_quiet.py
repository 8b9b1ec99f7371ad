"""The libraries' own output, held back; axtune's and the user's is not."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import datasets
import pytest
import transformers

from axtune.quiet import quiet_libraries


@pytest.fixture(autouse=True)
def _levels_come_back() -> Iterator[None]:
    """Leave the libraries as they were: they are shared with every other test."""
    names = ("accelerate", "trl", "peft")
    levels = [logging.getLogger(name).level for name in names]
    ours = transformers.logging.get_verbosity(), datasets.logging.get_verbosity()
    yield
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)
    transformers.logging.set_verbosity(ours[0])
    datasets.logging.set_verbosity(ours[1])


def warn_from(module: str) -> None:
    warnings.warn_explicit("watch out", UserWarning, "file.py", 1, module=module)


@pytest.mark.parametrize("module", ["torch", "transformers.trainer", "peft.tuners.lora"])
def test_warnings_of_libraries_are_held_back(module: str) -> None:
    with quiet_libraries():
        warn_from(module)  # pytest makes an error of every other warning
    with pytest.warns(UserWarning, match="watch out"):
        warn_from(module)


@pytest.mark.parametrize("module", ["axtune.run", "torchvision", "my_script"])
def test_other_warnings_are_shown(module: str) -> None:
    with quiet_libraries(), pytest.warns(UserWarning, match="watch out"):
        warn_from(module)


def test_only_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with quiet_libraries():
        for name in ("accelerate", "trl", "peft"):
            logging.getLogger(f"{name}.part").warning("a detail of %s", name)
            logging.getLogger(f"{name}.part").error("a fault of %s", name)
        assert transformers.logging.get_verbosity() == transformers.logging.ERROR
        assert datasets.logging.get_verbosity() == logging.ERROR
    assert [record.getMessage().split()[1] for record in caplog.records] == ["fault"] * 3
