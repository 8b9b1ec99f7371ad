from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import save_file
from support.adapters import tensors_of
from support.tiny import LIBRARY_WARNINGS, checkpoint

from axtune.checkpoint import locate
from axtune.checkpoint.locate import RECORD_FILE
from axtune.checkpoint.provenance import (
    base_digests,
    base_facts,
    original_digests,
    original_of,
    unquantized,
)
from axtune.errors import CheckpointError
from axtune.weights.quantized_base import quantize

pytestmark = LIBRARY_WARNINGS


def test_base_digests_tell_a_changed_file_and_hold_no_folder(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(locate.find("tiny-ax-4.0").folder, folder)
    before = base_digests(folder)
    assert before == base_digests(locate.find("tiny-ax-4.0").folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # the last byte is within the last sample
    weights.write_bytes(content)
    changed = {name for name, digest in base_digests(folder).items() if digest != before[name]}
    assert changed == {"model.safetensors"}
    (folder / "tokenizer_config.json").write_text("{}")
    changed = {name for name, digest in base_digests(folder).items() if digest != before[name]}
    assert changed == {"model.safetensors", "tokenizer_config.json"}


@pytest.fixture
def base(tmp_path):
    return checkpoint(tmp_path / "base")


@pytest.fixture
def quantized(base, tmp_path):
    quantize(base.name, tmp_path / "nf4")
    return locate.find(str(tmp_path / "nf4"))


def test_a_base_stands_for_itself_and_a_quantised_folder_for_its_original(base, quantized):
    assert original_of(base) is None
    assert unquantized(base) is base
    assert unquantized(quantized) == base
    assert original_digests(quantized) == original_digests(base) == base_digests(base.folder)
    assert base_digests(quantized.folder).keys() > {"model.safetensors", RECORD_FILE}

    plain, facts = base_facts(base, "main"), base_facts(quantized, None)
    assert plain["revision"] == "main"
    assert facts.pop("quantized") == {
        "name": quantized.name,
        "revision": None,
        "commit": None,
        "digests": base_digests(quantized.folder),
    }
    assert facts == {**plain, "revision": None}
    assert facts["name"] == base.name


def test_an_original_that_is_gone_is_named_with_the_way_out(base, quantized):
    base.folder.rename(base.folder.with_name("moved"))
    with pytest.raises(CheckpointError) as error:
        unquantized(quantized)
    assert f"made from {base.name}" in error.value.found
    assert "--base" in error.value.remedy


def test_an_original_that_has_changed_is_refused(base, quantized):
    weights = tensors_of(base.folder)
    weights["model.norm.weight"] += 1
    save_file(weights, base.folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"whose model\.safetensors has changed since"):
        unquantized(quantized)


def test_a_quantised_checkpoint_without_a_readable_record_is_refused(quantized):
    record = quantized.folder / RECORD_FILE
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "stranger": 1}))
    with pytest.raises(CheckpointError, match="not written by this version"):
        original_of(quantized)
    record.unlink()
    with pytest.raises(CheckpointError, match=f"lacks the {RECORD_FILE}"):
        original_of(quantized)
    plain = replace(quantized, config={**quantized.config, "quantization_config": None})
    assert original_of(plain) is None
