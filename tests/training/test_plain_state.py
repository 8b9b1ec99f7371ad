"""What optimizers, schedulers and generators remember, written without pickle."""

from __future__ import annotations

import enum
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import LIBRARY_WARNINGS
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from axtune.errors import AxtuneError, CheckpointError
from axtune.training.plain_state import (
    random_state,
    read_state,
    set_random_state,
    write_state,
)

pytestmark = LIBRARY_WARNINGS

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.booleans(), inner)
    ),
)


def there_and_back(folder: Path, value: Any) -> Any:
    write_state(folder, "state", value)
    return read_state(folder, "state")


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.detach().cpu(), other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(value=PLAIN)
def test_plain_values_come_back_exactly(
    value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    back = there_and_back(tmp_path_factory.mktemp("state"), value)
    assert back == value
    assert repr(back) == repr(value)  # 1 is not True, and a tuple no list


def test_tensors_come_back_bit_by_bit_and_shared(tmp_path: Path) -> None:
    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int64, torch.bool)
    tensors = [torch.tensor([[0, 1], [1, 3]]).to(kind) for kind in kinds]
    table = torch.rand(256)
    value = {0: {"tensors": tensors, "qmap": table}, 1: {"qmap": table, "part": table[3:9]},
             "step": torch.tensor(7.0), "turned": torch.rand(2, 3).T, "dtype": torch.float16,
             "nan": torch.tensor(math.nan), "inf": math.inf, "empty": torch.zeros(0)}  # fmt: skip
    back = there_and_back(tmp_path, value)
    assert back.pop("nan").isnan()
    value.pop("nan")
    assert same(value, back)
    assert back[0]["qmap"] is back[1]["qmap"]


def test_enums_and_numbers_of_numpy_become_plain(tmp_path: Path) -> None:
    kind = enum.Enum("Kind", {"ONE": "one"}, type=str)
    assert there_and_back(tmp_path, [kind("one"), np.float64(0.1), np.int64(3)]) == ["one", 0.1, 3]


@pytest.mark.parametrize("value", [object(), {1, 2}, print, b"bytes"], ids=lambda v: str(type(v)))
def test_what_only_pickle_could_hold_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(AxtuneError, match="cannot be saved without pickle"):
        write_state(tmp_path, "optimizer", {"state": {0: value}})


@pytest.mark.parametrize(
    "text",
    ["", "[" * 9999, '{"tensor": "0"}', '{"dtype": "save"}', '{"eval": 1}', '{"a": 1, "b": 2}'],
)  # fmt: skip
def test_a_damaged_state_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "optimizer.json").write_text(text)
    with pytest.raises(CheckpointError, match="optimizer"):
        read_state(tmp_path, "optimizer")


def test_generators_go_on_where_they_were(tmp_path: Path) -> None:
    write_state(tmp_path, "random-0", random_state())
    drawn = [(random.random(), np.random.rand(), torch.rand(1).item()) for _ in range(2)]
    set_random_state(read_state(tmp_path, "random-0"))
    assert [(random.random(), np.random.rand(), torch.rand(1).item()) for _ in range(2)] == drawn


def _optimizer(name: str, folder: Path) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """transformers' optimizer of a name; skips where it needs a package or a card."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.LayerNorm(128))
    model.append(torch.nn.Linear(128, 64, bias=False))
    try:
        args = TrainingArguments(
            str(folder), optim=name, learning_rate=0.01, use_cpu=True, report_to="none"
        )
        kind, options = Trainer.get_optimizer_cls_and_kwargs(args)
        optimizer = kind(model.parameters(), **options)
    except (ImportError, ValueError, RuntimeError, TypeError) as error:
        pytest.skip(f"not here: {error}")
    return model, optimizer


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    model(torch.rand(4, 64)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("name", [name.value for name in OptimizerNames])
def test_an_optimizer_goes_on_to_the_same_bits(tmp_path: Path, name: str) -> None:
    model, optimizer = _optimizer(name, tmp_path)
    try:
        for seed in (1, 2):
            _step(model, optimizer, seed)
    except (NotImplementedError, RuntimeError) as error:
        pytest.skip(f"not on a CPU: {error}")
    write_state(tmp_path, "optimizer", optimizer.state_dict())
    again, fresh = _optimizer(name, tmp_path)
    again.load_state_dict(model.state_dict())
    fresh.load_state_dict(read_state(tmp_path, "optimizer"))
    assert same(optimizer.state_dict(), there_and_back(tmp_path, fresh.state_dict()))
    for seed in (3, 4):
        _step(model, optimizer, seed)
        _step(again, fresh, seed)
    assert same(dict(model.named_parameters()), dict(again.named_parameters()))


@pytest.mark.parametrize("name", [name.value for name in SchedulerType])
def test_a_schedule_goes_on_to_the_same_rates(tmp_path: Path, name: str) -> None:
    special = {
        "cosine_with_min_lr": {"min_lr": 1e-4},
        "cosine_warmup_with_min_lr": {"min_lr": 1e-4},
        "warmup_stable_decay": {"num_decay_steps": 3},
    }

    def made() -> Any:
        optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.01)
        return get_scheduler(name, optimizer, 2, 12, scheduler_specific_kwargs=special.get(name))

    def rates(scheduler: Any, count: int) -> list[float]:
        needs = ([1.0],) if name in ("reduce_lr_on_plateau", "greedy") else ((),)
        found = []
        for _ in range(count):
            scheduler.optimizer.step()
            scheduler.step(*needs[0])
            found.append(scheduler.optimizer.param_groups[0]["lr"])
        return found

    scheduler, fresh = made(), made()
    rates(scheduler, 5)
    fresh.load_state_dict(there_and_back(tmp_path, scheduler.state_dict()))
    fresh.optimizer.load_state_dict(scheduler.optimizer.state_dict())
    assert rates(fresh, 5) == rates(scheduler, 5)
