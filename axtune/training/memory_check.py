"""Whether a run fits into this machine's memory: by its plan, and by what happened."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from axtune.checkpoint.locate import Checkpoint
from axtune.config.recipe import Recipe
from axtune.data.dataset import Prepared
from axtune.errors import AxtuneError, CheckpointError
from axtune.plan.architecture import read_architecture
from axtune.plan.estimate import PlanInputs, free_memory, largest_pass, seconds
from axtune.plan.gpus import find_card, usable
from axtune.plan.memory import CPU, GPU
from axtune.plan.search import Search, advice, refusal
from axtune.training.distributed import shares_weights
from axtune.training.progress import Report
from axtune.training.trainer import Rehearsal
from axtune.units import gigabytes

# Seconds that a process's first step takes on a card to load its kernels; and how many times what
# is expected of it is too slow to be explained by a plan's error.
_SETTING_UP, _TOO_SLOW = 30, 20


def search_of(
    recipe: Recipe, checkpoint: Checkpoint, data: Prepared, state: PartialState, report: Report
) -> Search | None:
    """The plan of a run, and the way to others; None for a model that no plan knows."""
    assert data.sizes is not None  # prepare measures them
    try:
        architecture = read_architecture(checkpoint.config, checkpoint.name)
    except CheckpointError as error:
        report.say(f"Not planned: {error.found}", "yellow")
        return None
    known = PlanInputs(
        checkpoint.name,
        architecture,
        data.sizes,
        data.eval_sizes,
        processes=state.num_processes,
        sharded=shares_weights(state),
    )
    return Search(recipe, known, GPU if torch.cuda.is_available() else CPU)


def check_memory(search: Search, state: PartialState, report: Report) -> None:
    """Refuse, or with ``plan: warn`` warn of, a run that cannot fit into this machine's memory.

    Raises:
        AxtuneError: With what it needs, what there is, and the edits that make it fit.
    """
    if torch.cuda.is_available():
        unused, total = torch.cuda.mem_get_info()
        room = min(usable(total), unused)  # others may be on the card, or its screen
    else:
        free = free_memory()
        if free is None:
            return
        room = free / state.num_processes
    needed = f"{gigabytes(search.plan.peak)} at the peak, of {gigabytes(room)}"
    report.table([("memory", f"{needed}, by the plan")])
    if search.plan.peak <= room:
        return
    error = refusal(search, room)
    if search.plan.recipe.plan == "refuse":
        raise error
    report.say(str(error), "yellow")


def check_rehearsal_memory(rehearsal: Rehearsal, search: Search | None, report: Report) -> None:
    """Refuse, or with ``plan: warn`` warn of, a run whose largest step the card did not hold.

    Drivers of Windows take host memory when a card's is used up, where others fail: a step then
    takes a hundred times as long, and nothing else tells.

    Args:
        rehearsal: The largest step, after it was made.
        search: The run's plan and the way to others; None without one.
        report: What the user sees.

    Raises:
        AxtuneError: With what was taken, what there is, and the edits that make it fit.
    """
    if rehearsal.reserved is None:
        return
    total = torch.cuda.mem_get_info()[1]
    expected = None
    if search is not None:
        with suppress(AxtuneError):  # a card of no rate on paper
            expected = largest_pass(search.plan, find_card(torch.cuda.get_device_name()))
    found = _beyond_the_card(rehearsal, total, expected)
    if found is None:
        return
    way = advice(search, total * 0.8) if search else "Set a smaller data.max_length or batch size."
    error = AxtuneError(found, f"{way} plan=warn starts it anyway.")
    if rehearsal.reserved <= total or (search and search.plan.recipe.plan != "refuse"):
        report.say(str(error), "yellow")  # slow for another reason, perhaps
        return
    raise error


def _beyond_the_card(rehearsal: Rehearsal, total: int, expected: float | None) -> str | None:
    """What shows that a step took memory of the host's, in a sentence.

    Args:
        rehearsal: The largest step.
        total: Bytes of the card.
        expected: Seconds by the plan.
    """
    assert rehearsal.reserved is not None
    if rehearsal.reserved > total:
        return (
            f"The largest step took {gigabytes(rehearsal.reserved)} on a card of "
            f"{gigabytes(total)}: the driver puts the rest into the host's memory, where a step "
            "takes a hundred times as long."
        )
    if expected is not None and rehearsal.seconds > _SETTING_UP + _TOO_SLOW * expected:
        return (
            f"The largest step took {rehearsal.seconds:.0f} s, where {expected:.1f} s are "
            "expected: something else uses the card, or the driver puts a part of its memory into "
            "the host's."
        )
    return None


def planned(search: Search | None) -> dict[str, Any]:
    """What the plan says of a run, for its manifest: ``peak`` in bytes, ``steps``, ``seconds``.

    Args:
        search: The run's plan; None without one.

    Returns:
        What is known: how long a run takes is said of cards with a data sheet only.
    """
    if search is None:
        return {}
    plan = search.plan
    found: dict[str, Any] = {"peak": round(plan.peak), "steps": plan.batches.steps}
    if torch.cuda.is_available():
        with suppress(AxtuneError):
            took = seconds(plan, find_card(torch.cuda.get_device_name()))
            found |= {"seconds": round(took, 1)} if took else {}
    return found


class PeakMemory:
    """The most memory that this process takes from here on, of the kind that the plan is of.

    On a card that is what torch allocates; on a CPU resident memory, less what the process has
    now: interpreter, libraries, data.
    """

    def __init__(self) -> None:
        self._before = 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            return
        with suppress(OSError):  # a container may forbid it; then the peak is that of the process
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._before = _resident("VmRSS")

    def read(self) -> int:
        """In bytes."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
        return _resident("VmHWM") - self._before


def _resident(name: str) -> int:
    """A figure of this process's memory, in bytes, by Linux's name for it."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says, in one of its ways, that the memory is not enough."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")
    )


def out_of_memory(search: Search | None) -> AxtuneError:
    """What to do after the memory was not enough; the plan, where there was one, was wrong.

    Args:
        search: The run's plan and the way to others; None before it was planned.
    """
    if search is None:
        return AxtuneError(
            "There is not enough memory.", "Set a smaller data.max_length or batch size."
        )
    needed = search.plan.peak
    # The plan was too hopeful by nobody knows how much; edits that save a sixth are worth a try.
    way = advice(search, needed * 5 / 6)
    return AxtuneError(
        f"There is not enough memory, though the plan needs only {gigabytes(needed)}.",
        way,
    )
