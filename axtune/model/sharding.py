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


def whole_state(state: dict[str, Any]) -> dict[str, Any]:
    """What an optimiser remembers, as one that had all parameters to itself would remember it.

    All processes call this together.

    Args:
        state: Of ``Optimizer.state_dict()``.
    """
    moments = {
        index: {
            name: whole(value) if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {**state, "state": moments}


def shares_of_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """This process's share of what `whole_state` gathered, for an optimiser's parameters.

    Args:
        state: The same one in all processes.
        optimizer: That takes it up next.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
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
