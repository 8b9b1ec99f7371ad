"""Tensors held against the model that config.json describes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from support.tiny import LIBRARY_WARNINGS

from axtune.checkpoint import locate
from axtune.errors import CheckpointError
from axtune.model.shapes import fit
from axtune.weights.safetensors_file import read_checkpoint

pytestmark = LIBRARY_WARNINGS

NORM = "model.norm.weight"


Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    shards = read_checkpoint(locate.find("tiny-ax-4.0").folder)
    return {tensor.name: tensor.shape for shard in shards.values() for tensor in shard}


def test_a_whole_checkpoint_fits(shapes: Shapes) -> None:
    found = fit(locate.find("tiny-ax-4.0"), shapes)
    assert (found.model, found.fault, found.unused) == ("Qwen2ForCausalLM", None, ())


def test_what_is_absent_misshapen_or_unused_is_named(shapes: Shapes) -> None:
    checkpoint = locate.find("tiny-ax-4.0")
    less = {name: shape for name, shape in shapes.items() if name != NORM}
    found = fit(checkpoint, less)
    assert found.fault == f"Qwen2ForCausalLM lacks 1 tensors, {NORM} first"
    assert found.absent == (NORM,)
    width = checkpoint.config["hidden_size"]
    found = fit(checkpoint, {**shapes, NORM: (7,)})
    assert found.fault == f"{NORM} has the shape [7]; config.json wants [{width}]"
    found = fit(checkpoint, {**shapes, "extra.weight": (7,)})
    assert (found.fault, found.unused) == (None, ("extra.weight",))


def test_a_tied_head_need_not_be_there(shapes: Shapes, tmp_path: Path) -> None:
    plain = locate.find("tiny-ax-4.0")
    less = {name: shape for name, shape in shapes.items() if name != "lm_head.weight"}
    assert "lacks 1 tensors, lm_head.weight" in (fit(plain, less).fault or "")
    config = {**plain.config, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert fit(dataclasses.replace(plain, folder=tmp_path), less).fault is None


def test_a_config_of_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "none"}')
    broken = dataclasses.replace(locate.find("tiny-ax-4.0"), folder=tmp_path)
    with pytest.raises(CheckpointError, match="cannot build a model"):
        fit(broken, {})
