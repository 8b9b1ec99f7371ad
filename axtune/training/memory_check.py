"""Whether a run fits into this machine's memory: by its plan, and by what happened."""

from __future__ import annotations

import torch
from accelerate import PartialState

from axtune.checkpoint.locate import Checkpoint
from axtune.config.recipe import Recipe
from axtune.data.dataset import Prepared
from axtune.errors import AxtuneError, CheckpointError
from axtune.plan.architecture import read_architecture
from axtune.plan.estimate import PlanInputs, free_memory
from axtune.plan.gpus import usable
from axtune.plan.memory import CPU, GPU
from axtune.plan.search import Search, advice, refusal
from axtune.training.progress import Report
from axtune.units import gigabytes


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
    )
    return Search(recipe, known, GPU if torch.cuda.is_available() else CPU)


def check_memory(search: Search, state: PartialState, report: Report) -> None:
    """Refuse, or with ``plan: warn`` warn of, a run that cannot fit into this machine's memory.

    Raises:
        AxtuneError: With what it needs, what there is, and the edits that make it fit.
    """
    if torch.cuda.is_available():
        room = usable(torch.cuda.mem_get_info()[1])
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
