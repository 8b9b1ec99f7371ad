"""One record for each model family, and what a checkpoint is taken for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from axtune.checkpoint import families, locate
from axtune.checkpoint.families import (
    A_X_3_1,
    A_X_4_0,
    LAYOUTS,
    Family,
    known_names,
    register,
)
from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.tokenizer import load_tokenizer


@pytest.fixture(autouse=True)
def _own_table() -> Iterator[None]:
    with mock.patch.dict(families.FAMILIES):  # as it was, afterwards
        yield


def copied(folder: Path, name: str = "tiny-ax-3.1", **config: object) -> Checkpoint:
    """An embedded model under another name, with a template that no published model has."""
    shutil.copytree(locate.find(name).folder, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | config))
    found = locate.find(str(folder), weights=False)
    other = f"{found.chat_template()}{{# other #}}"
    (folder / "chat_template.jinja").write_text(other, encoding="utf-8")
    return found


def invented(checkpoint: Checkpoint, **changes: object) -> Family:
    tokenizer = (checkpoint.folder / "tokenizer.json").read_bytes()
    values = {"name": "B.Y 1", "line": "B.Y", "layout": "llama", "reference": checkpoint.name}
    values |= {"hub_ids": ("by/B.Y-1",), "embedded": (), "templates": ()}
    values |= {"tokenizers": (hashlib.sha256(tokenizer).hexdigest(),), **changes}
    return register(dataclasses.replace(A_X_3_1, **values))  # type: ignore[arg-type]


def test_the_families_of_the_embedded_models() -> None:
    assert locate.find("tiny-ax-4.0").family is A_X_4_0
    assert locate.find("tiny-ax-3.1").family is A_X_3_1


def test_every_known_name_is_of_one_family_of_its_layout() -> None:
    names = known_names()
    assert len(set(names)) == len(names)
    assert {folder.name for folder in locate.embedded()} <= set(names)
    for folder in locate.embedded():
        found = locate.find(folder.name)
        assert found.family.layout == found.config["model_type"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stranger_is_taken_for_a_relative_of_the_model_of_its_layout(
    layout: str, tmp_path: Path
) -> None:
    found = copied(tmp_path / "copy", model_type=layout).family
    like = {"llama": A_X_3_1, "qwen2": A_X_4_0}[layout]
    assert found not in families.FAMILIES.values()
    assert (found.layout, found.reference) == (layout, like.reference)
    assert found.tool_parser == like.tool_parser


def test_a_family_is_known_by_tokenizer_and_else_by_template(tmp_path: Path) -> None:
    checkpoint = copied(tmp_path / "copy")
    assert checkpoint.family.name != "B.Y 1"
    record = invented(checkpoint)
    assert checkpoint.family is record
    assert dataclasses.replace(checkpoint, config={"model_type": "qwen2"}).family is record
    template = checkpoint.chat_template()
    assert template is not None
    digest = hashlib.sha256(template.encode()).hexdigest()
    record = invented(checkpoint, tokenizers=(), templates=(digest,))
    assert checkpoint.family is record


def test_of_families_with_one_tokenizer_the_layout_decides(tmp_path: Path) -> None:
    checkpoint = copied(tmp_path / "copy")
    llama = invented(checkpoint)
    qwen2 = invented(checkpoint, name="B.Y 2", layout="qwen2")
    assert checkpoint.family is llama
    assert dataclasses.replace(checkpoint, config={"model_type": "qwen2"}).family is qwen2


def test_what_a_record_says_is_read(tmp_path: Path) -> None:
    checkpoint = copied(tmp_path / "copy")
    config = {key: value for key, value in checkpoint.config.items() if "position" not in key}
    checkpoint = dataclasses.replace(checkpoint, config=config)
    assert load_tokenizer(checkpoint).context == A_X_3_1.context
    invented(checkpoint, context=77, personal_data_tokens=frozenset({"<|im_sep|>"}))
    tokenizer = load_tokenizer(checkpoint)
    assert tokenizer.context == 77
    assert "<|im_sep|>" not in tokenizer.control_tokens
    assert "<|passport|>" in tokenizer.control_tokens
    assert "by/B.Y-1" in known_names()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"normalizer": {"type": "NFC"}}, False),
        ({"pre_tokenizer": None}, False),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, False),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}, True),
        ({"pre_tokenizer": {"type": "ByteLevel", "use_regex": False}}, False),
    ],
)
def test_how_text_is_cut(change: dict[str, object], same: bool) -> None:
    declared = locate.read_json(locate.find("tiny-ax-4.0").folder / "tokenizer.json")
    assert A_X_4_0.cuts_like(declared | change) is same


def test_a_layout_that_nothing_can_read_is_refused() -> None:
    with pytest.raises(ValueError, match="layout mamba; expected one of llama, qwen2"):
        register(dataclasses.replace(A_X_3_1, name="B.Y 1", layout="mamba"))
    assert "B.Y 1" not in families.FAMILIES
