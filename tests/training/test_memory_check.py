"""Whether a run fits into the machine: said before it begins, and after it did not."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from support.plans import job, sizes

from axtune.checkpoint import locate
from axtune.errors import AxtuneError
from axtune.plan.architecture import read_architecture
from axtune.plan.estimate import PlanInputs
from axtune.plan.memory import CPU
from axtune.plan.search import Search
from axtune.training import memory_check
from axtune.training.memory_check import (
    PeakMemory,
    check_memory,
    check_rehearsal_memory,
    is_out_of_memory,
    out_of_memory,
    planned,
    search_of,
)
from axtune.training.progress import Report
from axtune.training.trainer import Rehearsal

on_a_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the host's memory is looked at")


def search(**changes: Any) -> Search:
    """A plan of samples that are long for the tiny model."""
    found = locate.find("tiny-ax-4.0", weights=False)
    known = PlanInputs("x", read_architecture(found.config, "x"), sizes(*[512] * 64))
    training = {"per_device_train_batch_size": 32, "gradient_checkpointing": False}
    return Search(job(training=training, **changes), known, CPU)


def checked(
    planned: Search, free: float | None, processes: int, monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setattr(memory_check, "free_memory", lambda: free)
    said = io.StringIO()
    state: Any = SimpleNamespace(num_processes=processes)
    check_memory(planned, state, Report(Console(file=said, width=400)))
    return said.getvalue()


@on_a_cpu
def test_a_run_that_fits_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = search()
    said = checked(planned, planned.plan.peak, 1, monkeypatch)
    assert len(said.splitlines()) == 1
    assert "at the peak" in said


@on_a_cpu
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_does_not_fit_is_refused_with_what_would(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = search()
    free = planned.plan.peak * processes * 0.9  # the processes share the machine
    with pytest.raises(AxtuneError, match="The run does not fit") as caught:
        checked(planned, free, processes, monkeypatch)
    assert "training.per_device_train_batch_size=" in caught.value.remedy
    assert "plan=warn" in caught.value.remedy


@on_a_cpu
def test_who_asked_to_be_warned_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = search(plan="warn")
    assert "The run does not fit" in checked(planned, planned.plan.peak * 0.9, 1, monkeypatch)


@on_a_cpu
def test_a_machine_that_does_not_say_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked(search(), None, 1, monkeypatch) == ""


def test_a_model_of_another_kind_is_trained_without_a_plan() -> None:
    said = io.StringIO()
    found: Any = SimpleNamespace(config={"model_type": "mixtral"}, name="other")
    data: Any = SimpleNamespace(sizes=sizes(10), eval_sizes=None)
    state: Any = SimpleNamespace(num_processes=1)
    report = Report(Console(file=said, width=400))
    assert search_of(job(), found, data, state, report) is None
    assert said.getvalue().startswith("Not planned: ")


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_torchs_ways_of_saying_it(error: RuntimeError, wanted: bool) -> None:
    assert is_out_of_memory(error) is wanted


def test_what_to_do_when_the_plan_was_wrong() -> None:
    error = out_of_memory(search())
    assert "though the plan needs only" in error.found
    assert "training.per_device_train_batch_size=" in error.remedy
    assert "data.max_length" in out_of_memory(None).remedy


def test_what_was_planned_is_recorded() -> None:
    plan = search().plan
    assert planned(search()) == {"peak": round(plan.peak), "steps": plan.batches.steps}
    assert planned(None) == {}


@on_a_cpu
def test_the_peak_is_what_is_taken_from_here_on() -> None:
    memory = PeakMemory()
    taken = torch.ones(64 << 20, dtype=torch.uint8)
    del taken
    assert 60e6 < memory.read() < 200e6


def rehearsed(monkeypatch: pytest.MonkeyPatch, rehearsal: Rehearsal, plan: str = "refuse") -> str:
    """What is said of a largest step on a card of 8 GB whose rate is known."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (7_000_000_000, 8_000_000_000))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA GeForce RTX 4060")
    said = io.StringIO()
    check_rehearsal_memory(rehearsal, search(plan=plan), Report(Console(file=said, width=400)))
    return said.getvalue()


def test_a_step_that_the_card_did_not_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As drivers of Windows let it pass, with memory of the host's."""
    spilled = Rehearsal(4096, 90.0, peak=9_000_000_000, reserved=9_500_000_000)
    with pytest.raises(AxtuneError, match=r"took 9\.50 GB on a card of 8\.00 GB") as caught:
        rehearsed(monkeypatch, spilled)
    assert "plan=warn" in caught.value.remedy
    assert "hundred times" in rehearsed(monkeypatch, spilled, plan="warn")


def test_a_step_that_takes_far_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"peak": 6_000_000_000, "reserved": 7_000_000_000}
    assert "took 400 s" in rehearsed(monkeypatch, Rehearsal(4096, 400.0, **held))
    assert rehearsed(monkeypatch, Rehearsal(4096, 20.0, **held)) == ""  # kernels are loaded
    assert rehearsed(monkeypatch, Rehearsal(4096, 400.0, peak=None)) == ""  # on a CPU
