"""Which base an adapter is for: as the user says, as its run says, or as it says itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.tiny import recipe

from axtune.checkpoint import locate
from axtune.checkpoint.base import find_base, run_of
from axtune.checkpoint.run_dir import RunDir, describe
from axtune.errors import AxtuneError, CheckpointError


def adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    return folder


def run(folder: Path) -> Path:
    """A run on tiny-ax-4.0 that has finished."""
    job = recipe(folder.parent, output_dir=str(folder))
    RunDir(folder, None).begin(job, describe(job, locate.find("tiny-ax-4.0"), {}))
    adapter(folder / "adapter", base_model_name_or_path="tiny-ax-4.0")
    return folder


def test_a_run_is_found_from_its_folder_and_from_its_adapters(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    checkpoint = adapter(folder / "checkpoints" / "checkpoint-3")
    for path, found in (
        (folder, folder / "adapter"),
        (folder / "adapter", folder / "adapter"),
        (checkpoint, checkpoint),
    ):
        opened = run_of(path)
        assert opened is not None
        assert opened.adapter == found
        assert opened.manifest["base"]["name"] == "tiny-ax-4.0"
    assert run_of(adapter(tmp_path / "alone")) is None
    assert run_of(tmp_path / "nowhere") is None


def test_what_is_given_comes_first_then_the_run_then_the_adapter(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "alone", base_model_name_or_path="tiny-ax-3.1")
    opened = run_of(run(tmp_path / "run"))
    assert find_base("tiny-ax-3.1", opened, folder).name == "tiny-ax-3.1"
    assert find_base(None, opened, folder).name == "tiny-ax-4.0"
    assert find_base(None, None, folder).name == "tiny-ax-3.1"


def test_a_base_that_nothing_names_must_be_given(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "alone", base_model_name_or_path=None)
    with pytest.raises(AxtuneError, match=r"(?s)does not say which base.*--base"):
        find_base(None, None, folder)


def test_a_base_that_is_gone_can_be_given(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "alone", base_model_name_or_path="/not/there")
    with pytest.raises(CheckpointError, match=r"(?s)names cannot be found: .*not/there.*--base"):
        find_base(None, None, folder)


def test_a_folder_in_4_bit_is_asked_as_it_is_and_no_base_of_a_merge(tmp_path: Path) -> None:
    served = tmp_path / "served"
    shutil.copytree(locate.find("tiny-ax-4.0").folder, served)
    config = json.loads((served / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "compressed-tensors"}
    (served / "config.json").write_text(json.dumps(config))
    folder = adapter(tmp_path / "alone", base_model_name_or_path=str(served))
    assert find_base(None, None, folder, served=True).folder == served
    with pytest.raises(CheckpointError, match="in 4 bit for serving"):
        find_base(None, None, folder)
