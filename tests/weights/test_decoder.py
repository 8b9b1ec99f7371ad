"""A checkpoint that is being written, layer by layer: what the whole model computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.adapters import adapter_for, in_float32, sharded_checkpoint
from support.tiny import LIBRARY_WARNINGS

from axtune.checkpoint.locate import Checkpoint
from axtune.errors import AxtuneError
from axtune.weights.decoder import LINEAR, SAME_INPUTS, Decoder
from axtune.weights.merge import merge, plan

pytestmark = LIBRARY_WARNINGS

SEQUENCES = [[25, 8, 2000, 27], [25, 8, 61, 2475, 384, 539, 27, 25, 10], [7]]
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["4.0", "3.1"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model", request.param)


def decoder(base: Checkpoint, *adapters: Path) -> Decoder:
    planned = plan(adapters, str(base.folder))
    pieces = [piece for shard in planned.shards.values() for piece in shard]
    return Decoder(planned.config, pieces, CPU)


def test_layers_of_a_merge_compute_what_the_merged_model_computes(
    base: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    merge([adapter], str(base.folder), tmp_path / "merged")
    layers = decoder(base, adapter)
    states = layers.embed(SEQUENCES)
    for index in range(len(layers)):
        states = list(layers.run(layers.layer(index), states))
    model = in_float32(tmp_path / "merged").model
    for ids, state in zip(SEQUENCES, states, strict=True):
        with torch.no_grad():
            whole = model(torch.tensor([ids]))
            torch.testing.assert_close(
                model.norm(state), whole.last_hidden_state[0], rtol=0, atol=1e-4
            )


def test_every_linear_layer_is_of_the_layouts_names(base: Checkpoint) -> None:
    layers = decoder(base)
    named = {name for names in SAME_INPUTS for name in names}
    for index in range(len(layers)):
        found = [LINEAR.fullmatch(name) for name in layers.names(index)]
        assert {match[2] for match in found if match} == named
        layer = layers.layer(index)
        assert {
            name for name, module in layer.named_modules() if type(module) is torch.nn.Linear
        } == named


def test_a_layer_whose_output_is_not_finite_is_named(base: Checkpoint) -> None:
    layers = decoder(base)
    with pytest.raises(AxtuneError, match=r"comes out of model\.layers\.1 is not finite"):
        layers.require_finite(1, [torch.ones(2, 2), torch.tensor([[1.0, float("nan")]])])
