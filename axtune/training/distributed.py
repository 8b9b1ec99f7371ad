"""The processes of a run: who works first, and what is shared between them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from axtune.checkpoint.leftovers import clear_scratch, scratch, scratch_path
from axtune.checkpoint.run_lock import locked
from axtune.errors import AxtuneError

T = TypeVar("T")


def once(state: PartialState, work: Callable[[], T], then: Callable[[], T] | None = None) -> T:
    """Let one process of each machine work first, and the others take up what it left.

    Args:
        state: The processes.
        work: What the first one does.
        then: What the others do afterwards; the same work, unless told.

    Raises:
        SystemExit: On the others, when the first one failed: it says why.
    """
    first = state.is_local_main_process
    result: list[T] = []
    failure: Exception | None = None
    if first:
        try:
            result.append(work())
        except Exception as error:
            failure = error
    failed = gather_object([failure is not None]) if state.num_processes > 1 else [False]
    if failure is not None:
        raise failure
    if any(failed):
        raise SystemExit(1)
    return result[0] if first else (then or work)()


def check_launcher() -> None:
    """Refuse what accelerate is configured for and axtune does not train with.

    Raises:
        AxtuneError: With the command that starts the run on several GPUs.
    """
    for name, switch in (
        ("FSDP", "ACCELERATE_USE_FSDP"),
        ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED"),
    ):
        if os.environ.get(switch, "").lower() in ("1", "true"):
            raise AxtuneError(
                f"accelerate is configured for {name}, which axtune does not train with yet.",
                "Start it with `accelerate launch --multi_gpu --num_processes N recipe.yaml`.",
            )


def use_all_cores(state: PartialState) -> None:
    """Share a CPU machine's cores out among the processes, unless the user said how many threads.

    accelerate and torchrun set OMP_NUM_THREADS=1 for each process when nobody says otherwise.
    """
    if torch.cuda.is_available() or _threads_were_chosen():
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(max(1, (cores or 1) // state.num_processes))


def _threads_were_chosen() -> bool:
    """Whether OMP_NUM_THREADS comes from the user and not from a launcher.

    A launcher's children have both in one environment; its own, as it was started, has the user's.
    """
    launched = any(
        name in os.environ for name in ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")
    )
    if not launched:
        return "OMP_NUM_THREADS" in os.environ
    try:
        given = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:
        return os.environ.get("OMP_NUM_THREADS", "1") != "1"
    return any(line.startswith(b"OMP_NUM_THREADS=") for line in given.split(b"\0"))


@contextmanager
def scratch_folder(state: PartialState) -> Iterator[Path]:
    """A folder for prepared samples, of one name on all processes, readable by this user only."""
    token = [secrets.token_hex(8)]
    if state.num_processes > 1:
        broadcast_object_list(token)
    if state.is_local_main_process:
        clear_scratch()  # of runs that were killed
        with scratch(token[0]) as folder:
            yield folder
    else:
        yield scratch_path(token[0])


@contextmanager
def alone(state: PartialState, output_dir: str) -> Iterator[None]:
    """Hold the run folder for all processes of a run: one of them has the lock.

    Raises:
        AxtuneError: As `axtune.checkpoint.run_lock.locked`.
    """
    with ExitStack() as held:
        if_first = locked(Path(output_dir)) if state.is_main_process else nullcontext()
        once(state, lambda: held.enter_context(if_first), lambda: None)
        yield


def leave(state: PartialState) -> None:
    """Take the process group down when all are done, or torch complains at exit."""
    state.wait_for_everyone()
    if state.num_processes > 1:
        torch.distributed.destroy_process_group()
