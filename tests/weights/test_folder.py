"""A checkpoint folder: what stands beside the weights, its card, and that it is whole or absent."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from support.adapters import sharded_checkpoint
from support.tiny import LIBRARY_WARNINGS

from axtune.checkpoint import locate
from axtune.checkpoint.locate import TOKENIZER_FILES, Checkpoint
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.errors import AxtuneError
from axtune.weights.folder import (
    CheckpointPlan,
    certified,
    certify,
    public_name,
    quantized_card,
    write_folder,
)
from axtune.weights.merge import plan

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    found = sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")
    for name in ("LICENSE", "LICENSE-models.txt", "NOTICE"):
        (found.folder / name).write_text(name)
    return found


@pytest.fixture(scope="module")
def planned(base: Checkpoint) -> CheckpointPlan:
    """The base itself, as it is."""
    return plan([], str(base.folder))


def test_without_a_tokenizer_all_files_are_the_bases(
    base: Checkpoint, planned: CheckpointPlan, tmp_path: Path
) -> None:
    write_folder(planned, tmp_path / "out")
    ours, theirs = (
        {file.name: file.read_bytes() for file in folder.iterdir()}
        for folder in (tmp_path / "out", base.folder)
    )
    assert ours.keys() - theirs.keys() == {"README.md", "axtune-files.json"}
    assert theirs.keys() - ours.keys() == set()
    assert {name for name in theirs if ours[name] != theirs[name]} == set()


def test_a_changed_config_is_written_and_the_tokenizer_is_of_its_own_folder(
    base: Checkpoint, planned: CheckpointPlan, tmp_path: Path
) -> None:
    other = locate.find("tiny-ax-3.1")
    changed = dataclasses.replace(
        planned, tokenizer_folder=other.folder, config={**base.config, "marked": "예"}
    )
    write_folder(changed, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8")) == changed.config
    for name in TOKENIZER_FILES:
        assert (tmp_path / "out" / name).is_file() == (other.folder / name).is_file()
        if (other.folder / name).is_file():
            assert (tmp_path / "out" / name).read_bytes() == (other.folder / name).read_bytes()


def test_a_tokenizer_says_what_ends_a_turn(
    base: Checkpoint, planned: CheckpointPlan, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(base)
    assert base.config["eos_token_id"] != tokenizer.end_of_turn_id
    unmarked = dataclasses.replace(base, generation_config={"eos_token_id": [0], "top_k": 7})
    for source, stops in ((base, base.generation_config), (unmarked, None)):
        out = tmp_path / str(stops is None)
        write_folder(dataclasses.replace(planned, base=source), out, tokenizer=tokenizer)
        found = locate.find(str(out))
        ends = {"eos_token_id": tokenizer.end_of_turn_id, "pad_token_id": tokenizer.pad_id}
        assert found.config == {**base.config, **ends}
        assert found.generation_config == (stops or {"top_k": 7, **ends})


def test_another_layout_names_no_class_of_tokenizers(
    base: Checkpoint, planned: CheckpointPlan, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(base)
    llama = dataclasses.replace(planned, config={**base.config, "model_type": "llama"})
    write_folder(llama, tmp_path / "out", tokenizer=tokenizer)
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text("utf-8"))
    assert config == {**tokenizer.config, "tokenizer_class": "PreTrainedTokenizerFast"}


def test_the_last_step_sees_the_filled_folder_and_may_refuse_it(
    planned: CheckpointPlan, tmp_path: Path
) -> None:
    seen = []

    def refuse(folder: Path) -> None:
        seen.append(locate.find(str(folder)).config)
        assert (folder / "README.md").is_file()
        raise AxtuneError("It is not sound.")

    with pytest.raises(AxtuneError, match="not sound"):
        write_folder(planned, tmp_path / "out", finish=refuse)
    assert seen == [planned.config]
    assert list(tmp_path.iterdir()) == []


def test_the_card_says_what_the_folder_is(base: Checkpoint, planned: CheckpointPlan) -> None:
    assert "# model\n" in planned.card()  # the folder's name, and no path of this machine
    assert str(base.folder) not in planned.card()
    assert "Its tensors are the base's." in planned.card()
    assert "PreTrainedTokenizerFast.from_pretrained" in planned.card()  # its layout is Qwen2's
    known = dataclasses.replace(base, name="skt/A.X-4.0-Light", commit="1234")
    merged = dataclasses.replace(
        planned, base=known, adapters=(Path("one"), Path("two")), changed=9
    )
    assert "base_model: skt/A.X-4.0-Light\n" in merged.card()
    assert "# skt/A.X-4.0-Light with 2 merged adapters\n" in merged.card()
    assert "rounded once; 9 tensors changed" in merged.card()
    llama = dataclasses.replace(planned, config={**base.config, "model_type": "llama"})
    assert "AutoTokenizer.from_pretrained" in llama.card()
    assert "# model in NF4\n" in quantized_card(base, "nf4", "bfloat16")
    assert "all else in bfloat16" in quantized_card(base, "nf4", "bfloat16")


def test_a_path_is_no_name_for_strangers(base: Checkpoint) -> None:
    assert public_name(base) == "model"
    assert public_name(locate.find("tiny-ax-4.0")) == "tiny-ax-4.0"
    assert public_name(dataclasses.replace(base, name="o/n", commit="1")) == "o/n"


def test_what_learned_documents_ends_as_they_do_too(
    base: Checkpoint, planned: CheckpointPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckpointPlan, "learned_documents", True)
    for number, tokenizer in enumerate((None, load_tokenizer(base))):
        out = tmp_path / str(number)
        write_folder(planned, out, tokenizer=tokenizer)
        config = json.loads((out / "generation_config.json").read_text())
        assert config == {**base.generation_config, "eos_token_id": [27, 0], "pad_token_id": 1}


def test_what_is_measured_comes_into_a_card_that_has_a_place_for_it(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    certify(tmp_path, "KL 0.1")  # no card, no harm
    own = "# Ours\n\n" + certified("not yet") + "\n\n## 우리 창고\n"
    file.write_text(own, encoding="utf-8")
    certify(tmp_path, "KL \\1")
    assert file.read_text(encoding="utf-8") == own.replace("not yet", "KL \\1")
    file.write_text("# Ours\n", encoding="utf-8")
    certify(tmp_path, "KL 0.1")
    assert file.read_text(encoding="utf-8") == "# Ours\n"
