"""Rows on their way through layers go on with the same numbers after they were stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.adapters import sharded_checkpoint
from support.tiny import LIBRARY_WARNINGS

from axtune.export.layer_pass import LayerPass, counted, stopped_at, write_tensors
from axtune.weights.decoder import Decoder
from axtune.weights.merge import plan

pytestmark = LIBRARY_WARNINGS

ROWS = [[25, 8, 2000, 27], [25, 8, 61, 2475, 384, 539, 27, 25, 10]]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    base = sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")
    planned = plan([], str(base.folder))
    pieces = [piece for shard in planned.shards.values() for piece in shard]
    return Decoder(planned.config, pieces, torch.device("cpu"))


def test_a_pass_goes_on_where_it_was_stopped(decoder: Decoder, tmp_path: Path) -> None:
    first = LayerPass(decoder, ROWS, tmp_path)
    assert first.begins_at == 0
    assert [len(state) for state in first.states] == [4, 9]
    first.states = [state + 1 for state in first.states]
    first.found["blk.0.attn_q.weight"] = torch.arange(3.0)
    first.keep(0)
    again = LayerPass(decoder, ROWS, tmp_path)
    assert again.begins_at == 1
    assert all(map(torch.equal, again.states, first.states))
    assert torch.equal(again.found.pop("blk.0.attn_q.weight"), torch.arange(3.0))
    assert again.found == {}


def test_what_stops_a_layer_says_which_it_was() -> None:
    with pytest.raises(KeyboardInterrupt) as stopped, stopped_at(2, 28):
        raise KeyboardInterrupt
    assert stopped.value.__notes__ == ["It was at layer 3 of 28."]
    with pytest.raises(ValueError, match="other") as failed, stopped_at(2, 28):
        raise ValueError("other")
    assert not hasattr(failed.value, "__notes__")


def test_what_is_counted_says_from_where_it_goes_on() -> None:
    assert counted("linear layers", 0, 28) == "linear layers"
    assert counted("linear layers", 3, 28) == "linear layers, from layer 4 of 28"


def test_tensors_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "it.safetensors"
    write_tensors(file, {"one": torch.ones(2)}, layer="1")

    def fail(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        write_tensors(file, {"one": torch.zeros(2)})
    assert torch.equal(load_file(file)["one"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["it.safetensors"]
