"""Sound checkpoints pass, each kind of damage is found and named, and the usual one is repaired."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.adapters import sharded_checkpoint, tensors_of
from support.tiny import LIBRARY_WARNINGS, checkpoint, with_weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from axtune.checkpoint import locate
from axtune.checkpoint.locate import TOKENIZER_FILES, Checkpoint
from axtune.checkpoint.tokenizer import PROBES, load_tokenizer
from axtune.errors import AxtuneError, CheckpointError
from axtune.export.export import export
from axtune.verify.certificate import Check
from axtune.verify.doctor import examine, repair

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def copy(base: Checkpoint, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base.folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def resaved(base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers 5 leaves of a 4.0 checkpoint that it loads and saves."""
    folder = tmp_path_factory.mktemp("resaved") / "model"
    AutoModelForCausalLM.from_pretrained(base.folder).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base.folder).save_pretrained(folder)
    damaged = load_tokenizer(str(folder))
    assert damaged.encode(PROBES[0]) != load_tokenizer(base).encode(PROBES[0])
    return folder


def statuses(checks: list[Check]) -> dict[str, str]:
    return {f"{check.part}: {check.name}": check.status for check in checks}


def failures(folder: Path, base: Checkpoint | None = None, **options: Any) -> dict[str, str]:
    """What failed, with what was found."""
    return {
        f"{check.part}: {check.name}": check.found
        for check in examine(locate.find(str(folder)), base, **options)
        if check.status == "fail"
    }


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes))


@pytest.mark.parametrize("name", ["tiny-ax-4.0", "tiny-ax-3.1"])
def test_the_embedded_models_are_sound(name: str) -> None:
    checks = examine(locate.find(name))
    assert "that of the embedded models" in next(c.found for c in checks if "byte" in c.found)
    found = statuses(checks)
    # AutoTokenizer of transformers 5 is wrong for the Qwen2 layout alone.
    assert found.pop("tokenizer: AutoTokenizer") == ("warn" if name == "tiny-ax-4.0" else "pass")
    assert set(found.values()) == {"pass"}


def test_the_real_tokenizer_is_known(
    real_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = with_weights(real_checkpoint("4.0"), tmp_path / "real")
    checks = {f"{check.part}: {check.name}": check for check in examine(folder)}
    for name in ("tokenizer: tokenizer.json", "template: text"):
        assert checks[name].status == "pass"
        assert "skt/A.X-4.0-Light and skt/A.X-3.1-Light" in checks[name].found


def test_a_resaved_checkpoint_is_recognised(resaved: Path, base: Checkpoint) -> None:
    alone = failures(resaved)
    assert "splits every digit and normalises to NFC" in alone["tokenizer: cuts text"]
    assert set(alone) == {"tokenizer: cuts text"}
    assert set(failures(resaved, base)) == {"tokenizer: cuts text", "tokenizer: tokenizer.json"}
    assert statuses(examine(locate.find(str(resaved))))["tokenizer: config"] == "warn"


def test_a_repair_gives_back_the_tokenizer_and_keeps_the_weights(
    resaved: Path, base: Checkpoint, tmp_path: Path
) -> None:
    checks = repair(locate.find(str(resaved)), tmp_path / "sound", str(base.folder))
    assert "fail" not in {check.status for check in checks}
    for name in TOKENIZER_FILES:
        assert (tmp_path / "sound" / name).exists() == (base.folder / name).exists()
        if (base.folder / name).exists():
            assert (tmp_path / "sound" / name).read_bytes() == (base.folder / name).read_bytes()
    before, after = tensors_of(resaved), tensors_of(tmp_path / "sound")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    config = json.loads((tmp_path / "sound" / "config.json").read_text())
    assert config["eos_token_id"] == 27
    assert failures(tmp_path / "sound", base) == {}


def test_a_repair_asks_for_a_base_that_is_not_at_hand(
    resaved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError, match=r"(?s)A\.X-4\.0-Light is neither.*with --base"):
        repair(locate.find(str(resaved)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_repair_refuses_another_models_tokenizer(
    resaved: Path, real_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"differ in \d+ tokens"):
        repair(locate.find(str(resaved)), tmp_path / "out", str(real_checkpoint("4.0")))
    assert not (tmp_path / "out").exists()


def test_a_repair_of_what_is_broken_elsewhere_leaves_nothing(
    resaved: Path, base: Checkpoint, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(resaved, tmp_path / "broken"))
    edit(folder / "config.json", dtype="float32")
    with pytest.raises(CheckpointError, match="not sound even with the tokenizer"):
        repair(locate.find(str(folder)), tmp_path / "out", str(base.folder))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]
    (tmp_path / "out").mkdir()
    with pytest.raises(AxtuneError, match="exists already"):
        repair(locate.find(str(folder)), tmp_path / "out", str(base.folder))


@pytest.mark.parametrize("to", ["vllm", "hf"])
def test_exports_are_sound(base: Checkpoint, to: Any, tmp_path: Path) -> None:
    export(str(base.folder), tmp_path / "out", to=to)
    assert failures(tmp_path / "out", base, for_vllm=to == "vllm") == {}
    checks = examine(locate.find(str(tmp_path / "out")), base)
    (others,) = (check for check in checks if check.name == "other files")
    assert others.status == "pass"
    assert ("byte for byte" if to == "hf" else "but for the tokenizer_class") in others.found


def test_the_other_files_of_a_tokenizer_are_held_against_the_base(
    copy: Path, base: Checkpoint
) -> None:
    edit(copy / "tokenizer_config.json", model_max_length=7)
    (copy / "special_tokens_map.json").unlink()
    checks = examine(locate.find(str(copy)), base)
    (others,) = (check for check in checks if check.name == "other files")
    assert others.status == "warn"
    assert others.found.startswith("tokenizer_config.json, special_tokens_map.json: not as")


def test_the_qwen2_layout_is_unfit_for_vllm(base: Checkpoint) -> None:
    found = failures(base.folder, base, for_vllm=True, texts=["2024년"])
    assert set(found) == {"tokenizer: AutoTokenizer"}


def test_ends_of_turn(copy: Path, base: Checkpoint) -> None:
    edit(copy / "generation_config.json", eos_token_id=0)
    assert "stops at 0, not at 27" in failures(copy, base)["end of turn: generation"]
    (copy / "generation_config.json").unlink()
    assert "config.json says 0" in failures(copy, base)["end of turn: generation"]
    edit(copy / "config.json", eos_token_id=[0, 27])
    assert failures(copy, base) == {}


def test_an_edited_template(copy: Path, base: Checkpoint) -> None:
    config = json.loads((copy / "tokenizer_config.json").read_text(encoding="utf-8"))
    edit(
        copy / "tokenizer_config.json",
        chat_template=config["chat_template"].replace("<tool_call>", "<tool_call>\n"),
    )
    assert set(failures(copy, base)) == {"template: text", "template: calls"}
    alone = statuses(examine(locate.find(str(copy))))
    assert (alone["template: text"], alone["template: calls"]) == ("warn", "fail")


def test_a_tokenizer_that_does_not_load(copy: Path, base: Checkpoint) -> None:
    edit(copy / "tokenizer_config.json", pad_token="<|im_end|>")
    assert "pads with its end of turn" in failures(copy, base)["tokenizer: loads"]
    (copy / "tokenizer.json").write_text("{}")
    found = failures(copy, base)
    assert "cannot be read" in found["tokenizer: tokenizer.json"]
    assert "tokenizer: loads" in found


def test_other_tokens(copy: Path, base: Checkpoint) -> None:
    text = (copy / "tokenizer.json").read_text(encoding="utf-8")
    raw = json.loads(text)
    vocabulary = raw["model"]["vocab"]
    one, two = list(vocabulary)[500:502]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (copy / "tokenizer.json").write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")
    assert "have other ids" in failures(copy, base)["tokenizer: tokenizer.json"]


def test_broken_weights(copy: Path, base: Checkpoint) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    shard = next(file for file in copy.glob("*.safetensors") if name in load_file(file))
    tensors = load_file(shard)
    whole = shard.read_bytes()

    save_file(tensors | {name: tensors[name].float()}, shard)
    assert "1 float32" in failures(copy, base)["weights: dtype"]
    save_file(tensors | {name: torch.full_like(tensors[name], float("nan"))}, shard)
    assert (
        f"1 tensors hold numbers that are not finite, {name}"
        in (failures(copy, base)["weights: numbers"])
    )
    save_file(tensors | {name: tensors[name][:, :7].contiguous()}, shard)
    assert f"{name} has the shape" in failures(copy, base)["weights: architecture"]
    save_file({key: value for key, value in tensors.items() if key != name}, shard)
    assert "disagree on 1 tensors" in failures(copy, base)["weights: files"]
    shard.write_bytes(whole[:-5])
    assert "weights: files" in failures(copy, base)


def test_a_config_of_another_model(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model").folder
    edit(folder / "config.json", num_hidden_layers=3, layer_types=["full_attention"] * 3)
    assert "lacks 12 tensors" in failures(folder)["weights: architecture"]
    edit(folder / "config.json", num_hidden_layers=1, layer_types=["full_attention"])
    assert statuses(examine(locate.find(str(folder))))["weights: architecture"] == "warn"
