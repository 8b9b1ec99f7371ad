"""Shares of weights, in a group of one process; tests/end_to_end/ has several."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from axtune.errors import AxtuneError
from axtune.model.sharding import (
    is_sharded,
    require_all_sharded,
    share_of,
    shares_of_state,
    whole,
    whole_state,
)


@pytest.fixture
def sharded() -> Iterator[torch.nn.Module]:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        yield fully_shard(torch.nn.Linear(3, 5), mesh=init_device_mesh("cpu", (1,)))
    finally:
        torch.distributed.destroy_process_group()


def test_a_share_of_the_whole_is_the_share(sharded: torch.nn.Module) -> None:
    assert is_sharded(sharded)
    for parameter in sharded.parameters():
        gathered = whole(parameter.detach())
        assert type(gathered) is torch.Tensor
        share = share_of(gathered, parameter)
        assert isinstance(share, DTensor)
        assert share.placements == parameter.placements
        assert torch.equal(whole(share), gathered)


def test_what_is_not_sharded_stays_as_it_is() -> None:
    plain = torch.nn.Linear(3, 5)
    assert not is_sharded(plain)
    assert whole(plain.weight) is plain.weight
    assert share_of(plain.weight, plain.bias) is plain.weight


def test_an_optimiser_goes_on_where_another_one_was(sharded: torch.nn.Module) -> None:
    def stepped(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        model(torch.ones(2, 3)).pow(2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    plain = torch.nn.Linear(3, 5)
    plain.load_state_dict({name: whole(p) for name, p in sharded.state_dict().items()})
    first = torch.optim.AdamW(plain.parameters(), lr=0.1)
    stepped(plain, first)
    for name, p in sharded.state_dict().items():
        p.copy_(share_of(plain.state_dict()[name], p))
    second = torch.optim.AdamW(sharded.parameters(), lr=0.1)
    saved = copy.deepcopy(whole_state(first))
    second.load_state_dict(shares_of_state(saved, second))
    stepped(plain, first)
    stepped(sharded, second)
    for one, other in zip(plain.parameters(), sharded.parameters(), strict=True):
        assert torch.allclose(one, whole(other.detach()))
    held = whole_state(second)
    assert all(
        type(value) is torch.Tensor for state in held["state"].values() for value in state.values()
    )
    assert held["state"][0]["exp_avg"].shape == (5, 3)


def test_a_parameter_that_stays_whole_is_named(sharded: torch.nn.Module) -> None:
    require_all_sharded(sharded)
    sharded.register_parameter("packed", torch.nn.Parameter(torch.ones(2)))
    with pytest.raises(AxtuneError, match="1 parameters whole in every process, packed first"):
        require_all_sharded(sharded)
