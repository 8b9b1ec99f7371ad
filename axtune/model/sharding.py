"""Weights that lie in shares with several processes, as FSDP2 leaves them.

A sharded parameter is a ``DTensor``: each process has some of its rows. Whoever reads or writes a
whole tensor does it here, and all processes do so together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from axtune.errors import AxtuneError


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether FSDP2 has shared out a model's weights."""
    return isinstance(model, FSDPModule)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of which every process has a share, whole; any other one as it is.

    All processes call this together, for the same tensors in the same order.
    """
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's share of a whole tensor that every process has.

    Args:
        tensor: The same one in all processes; nothing is sent.
        like: Sharded as the result is to be; where it is not, the result is the whole tensor.
    """
    if not isinstance(like, DTensor):
        return tensor
    here = tensor.to(like.device)
    return distribute_tensor(here, like.device_mesh, like.placements, src_data_rank=None)


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What an optimiser remembers, as one that had all parameters to itself would remember it.

    All processes call this together. One that has no row of a parameter has no gradient of it
    either, and remembers nothing; the first one has a row of every parameter.

    Args:
        optimizer: Of this process.
    """
    state = optimizer.state_dict()
    parameters = _parameters(optimizer)
    if not any(isinstance(parameter, DTensor) for parameter in parameters):
        return state
    shared = [
        {
            index: {
                name: (value.shape, value.dtype)
                for name, value in values.items()
                if isinstance(value, DTensor)
            }
            for index, values in state["state"].items()
        }
    ]
    torch.distributed.broadcast_object_list(shared, src=0)
    moments = {index: dict(values) for index, values in state["state"].items()}
    for index, names in shared[0].items():
        values = moments.setdefault(index, {})
        for name, (shape, dtype) in names.items():
            if name not in values:
                nothing = torch.empty(shape, dtype=dtype, device=parameters[index].device)
                values[name] = share_of(nothing, parameters[index])
            values[name] = whole(values[name])
    return {**state, "state": moments}


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """In the order of the numbers that a state gives them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def shares_of_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """This process's share of what `whole_state` gathered, for an optimiser's parameters.

    Args:
        state: The same one in all processes.
        optimizer: That takes it up next.
    """
    parameters = _parameters(optimizer)
    moments = {
        index: {
            name: share_of(value, parameters[index])
            if isinstance(value, torch.Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {**state, "state": moments}


def require_all_sharded(model: torch.nn.Module) -> None:
    """Refuse a model of which every process holds a part whole: it would need the memory of one.

    Raises:
        AxtuneError: With the first of those parameters. bitsandbytes' bytes are such, unless they
            are stored as floating-point numbers.
    """
    left = [name for name, p in model.named_parameters() if not isinstance(p, DTensor)]
    if left:
        raise AxtuneError(
            f"FSDP left {len(left)} parameters whole in every process, {left[0]} first.",
            "Set quantization.bnb_4bit_quant_storage to the dtype of the run, or leave it out; and "
            "fsdp_ignored_modules out of accelerate's configuration.",
        )
