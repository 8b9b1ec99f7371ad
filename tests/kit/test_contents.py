"""A kit carries whole models, without anything but weights, tokenizer and configuration."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from axtune.checkpoint.locate import model_folder
from axtune.errors import AxtuneError
from axtune.kit import contents


def silent(done: int, total: int, said: str) -> None:
    assert done <= total


def test_a_model_is_its_weights_tokenizer_and_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(model_folder("tiny-ax-4.0"), folder)
    (folder / "training_args.bin").touch()
    (folder / "notes.md").touch()
    models = contents.models_of([str(folder), "tiny-ax-3.1"])
    assert [model.folder for model in models] == ["own", "tiny-ax-3.1"]
    assert {file.name for file in models[0].files} == {
        "config.json", "generation_config.json", "model.safetensors", "special_tokens_map.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    contents.copy_models(models, tmp_path / "models", silent)
    for file in models[0].files:
        assert (tmp_path / "models" / "own" / file.name).read_bytes() == file.read_bytes()


def test_a_file_that_was_cut_off_while_it_was_copied_is_copied_again(tmp_path: Path) -> None:
    models = contents.models_of(["tiny-ax-4.0"])
    contents.copy_models(models, tmp_path, silent)
    file = tmp_path / "tiny-ax-4.0" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    contents.copy_models(models, tmp_path, silent)
    assert file.read_bytes() == whole


def test_weights_that_a_download_cut_off_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(model_folder("tiny-ax-4.0"), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(AxtuneError, match=r"model\.safetensors"):
        contents.models_of([str(folder)])


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-ax-4.0"
    shutil.copytree(model_folder("tiny-ax-4.0"), folder)
    with pytest.raises(AxtuneError, match=r"Two models would be models/tiny-ax-4\.0"):
        contents.models_of([str(folder), "tiny-ax-4.0"])


def test_the_pages_are_recipes_sample_data_and_documents(tmp_path: Path) -> None:
    contents.copy_pages(tmp_path)
    for name in ("recipes/sft_lora.yaml", "data_templates/chat.jsonl", "docs/README.md"):
        assert (tmp_path / name).is_file()


def test_an_installed_axtune_has_its_page_from_its_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = tmp_path / "site" / "axtune"
    for name in ("recipes", "data_templates"):
        (beside / name).mkdir(parents=True)
    monkeypatch.setattr(contents, "_HERE", beside / "kit")
    monkeypatch.setattr(contents, "_CHECKOUT", tmp_path / "site")
    (tmp_path / "kit").mkdir()
    contents.copy_pages(tmp_path / "kit")
    assert (tmp_path / "kit/docs/README.md").is_file()


def test_the_installer_names_the_python_of_its_wheels(tmp_path: Path) -> None:
    contents.copy_installer(tmp_path, "3.13")
    text = (tmp_path / "install.sh").read_text("utf-8")
    assert "version=3.13\n" in text
    assert "@PYTHON@" not in text
    assert (tmp_path / "no_network" / "sitecustomize.py").is_file()
