"""Checkpoints by name, by folder and by Hub id; what is wrong with one is said in a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from axtune.checkpoint import locate
from axtune.errors import CheckpointError


@pytest.mark.parametrize(("name", "layout"), [("tiny-ax-4.0", "qwen2"), ("tiny-ax-3.1", "llama")])
def test_embedded_models_carry_the_traps_of_the_real_ones(name: str, layout: str) -> None:
    found = locate.find(name)
    assert found.config["model_type"] == layout
    assert found.generation_config["eos_token_id"] == 27
    if layout == "qwen2":
        assert found.config["eos_token_id"] == 0
    assert any(found.folder.glob("*.safetensors"))


def test_a_folder_beats_nothing_but_an_embedded_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(locate.find("tiny-ax-3.1").folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    assert locate.find(".").folder == Path()  # not the folder of the embedded ones
    assert locate.find(str(tmp_path / "copy")).config["model_type"] == "llama"


@pytest.mark.parametrize(
    "name", ["", "nope", "..x", "/no/such", "~nobody-here/x", "a/b/c", "b ad/id", "a" * 5000]
)
def test_no_such_model(name: str) -> None:
    with pytest.raises(CheckpointError):
        locate.find(name)


def test_a_hub_model_out_of_reach_names_the_offline_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"(?s)neither in the cache .* model=tiny-ax-4\.0"):
        locate.find("skt/A.X-4.0-Light")


def test_what_is_sought_on_this_machine_alone_is_not_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []

    def snapshot(*_: object, local_files_only: bool, **__: object) -> str:
        asked.append(local_files_only)
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(CheckpointError, match="is not in the cache of this machine"):
        locate.find("skt/A.X-4.0-Light", local=True)
    assert asked == [True]


def test_a_gguf_file_is_for_a_server(tmp_path: Path) -> None:
    file = tmp_path / "my model.gguf"
    file.write_bytes(b"GGUF")
    for name in (tmp_path, file):
        with pytest.raises(CheckpointError, match="is a GGUF file, which llama") as caught:
            locate.find(str(name))
        assert f"llama-server --jinja -m '{file}'" in caught.value.remedy
        assert "axtune eval RUN --url" in caught.value.remedy


def test_what_a_folder_lacks_is_named(tmp_path: Path) -> None:
    source = locate.find("tiny-ax-4.0").folder
    with pytest.raises(CheckpointError, match=r"(?s)lacks tokenizer\.json, config\.json.*Give the"):
        locate.find(str(tmp_path), weights=False)
    for name in ("tokenizer.json", "config.json"):
        shutil.copyfile(source / name, tmp_path / name)
    assert locate.find(str(tmp_path), weights=False).generation_config == {}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").touch()
    with pytest.raises(CheckpointError, match="This is an adapter; axtune merge"):
        locate.find(str(tmp_path / "adapter"))
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match="pickle"):
        locate.find(str(tmp_path))
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(CheckpointError, match="lacks model-00002-of-00002"):
        locate.find(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        locate.find(str(tmp_path), weights=False)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="not a JSON object"):
        locate.find(str(tmp_path), weights=False)
