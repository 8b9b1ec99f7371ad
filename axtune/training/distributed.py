"""The processes of a run: who works first, and what is shared between them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import DistributedType, PartialState
from accelerate.utils import broadcast_object_list, gather_object

from axtune.checkpoint.leftovers import clear_scratch, scratch, scratch_path
from axtune.checkpoint.run_lock import locked
from axtune.config.faults import bad_value, refused
from axtune.config.recipe import Recipe
from axtune.errors import AxtuneError, Fault

T = TypeVar("T")

_FSDP = "ACCELERATE_USE_FSDP"
_LAUNCH = "accelerate launch --config_file"
_OTHER_PARALLELISM = {"CP": "context", "SP": "sequence", "TP": "tensor"}
# As accelerate names them in a job's environment, and in small letters in its configuration.
_FSDP_SWITCHES = {
    "FSDP_ACTIVATION_CHECKPOINTING": "training.gradient_checkpointing of the recipe decides",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "processes of one machine share the pages of a checkpoint",
    "FSDP_OFFLOAD_PARAMS": "it moves all weights at each step, and was not tried",
}
_BITSANDBYTES = ("8bit", "32bit", "paged", "bnb")


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


def check_launcher(recipe: Recipe) -> None:
    """Refuse what accelerate is configured for and axtune does not train with.

    Args:
        recipe: The job; some of its keys are not for FSDP.

    Raises:
        AxtuneError: With the reason, and what to use.
        RecipeError: With the keys that are not for FSDP.
    """
    if _is_on("ACCELERATE_USE_DEEPSPEED"):
        raise AxtuneError(
            "accelerate is configured for DeepSpeed, which axtune does not train with: ZeRO-2 "
            "keeps the frozen base whole on every card, and ZeRO-3 does not load it in parts.",
            f"FSDP shares the base out as well: `{_LAUNCH} recipes/accelerate/fsdp2.yaml RECIPE`.",
        )
    if _is_on("ACCELERATE_USE_MEGATRON_LM"):
        raise AxtuneError(
            "accelerate is configured for Megatron-LM, which axtune does not train with: it has "
            "model classes of its own.",
            f"Use FSDP: `{_LAUNCH} recipes/accelerate/fsdp2.yaml RECIPE`.",
        )
    for kind, name in _OTHER_PARALLELISM.items():
        if os.environ.get(f"PARALLELISM_CONFIG_{kind}_SIZE", "1") not in ("", "1"):
            raise AxtuneError(
                f"accelerate is configured for {name} parallelism, which axtune does not train "
                "with: TRL does not pack samples under it, and the shared prefix and axtune's "
                "attention need whole sequences.",
                "Remove parallelism_config; for long sequences, offload=[activations].",
            )
    if _is_on(_FSDP):
        _check_fsdp()
        if faults := list(_not_under_fsdp(recipe)):
            raise refused(faults)


def shares_weights(state: PartialState) -> bool:
    """Whether FSDP will leave each process a share of the weights."""
    # A launcher's only process is a group as well, and accelerate shards for it.
    return _is_on(_FSDP) and state.distributed_type != DistributedType.NO


def _is_on(switch: str) -> bool:
    return os.environ.get(switch, "").lower() in ("1", "true")


def _check_fsdp() -> None:
    """Refuse other settings of FSDP than those that axtune was tried with."""
    given = os.environ.get("FSDP_VERSION", "1")
    if given != "2":
        raise AxtuneError(
            f"accelerate is configured for FSDP version {given}, which keeps the parameters of a "
            "layer in one flat tensor: frozen 4-bit weights and a float32 adapter do not fit in.",
            f"Set fsdp_version: 2, as in `{_LAUNCH} recipes/accelerate/fsdp2.yaml RECIPE`.",
        )
    if (wraps := os.environ.get("FSDP_AUTO_WRAP_POLICY")) != "TRANSFORMER_BASED_WRAP":
        raise AxtuneError(
            f"accelerate is configured with fsdp_auto_wrap_policy: {wraps}; axtune needs a whole "
            "layer gathered at a time.",
            "Set fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP.",
        )
    for switch, reason in _FSDP_SWITCHES.items():
        if _is_on(switch):
            raise AxtuneError(
                f"accelerate is configured with {switch.lower()}: true; {reason}.",
                f"Set {switch.lower()}: false.",
            )


def _not_under_fsdp(recipe: Recipe) -> Iterator[Fault]:
    if "embeddings" in recipe.offload:
        message = "FSDP leaves each card a share of the embeddings already; remove embeddings."
        yield bad_value("offload", message)
    optimizer = str(recipe.training.get("optim", ""))
    if optimizer == "ademamix" or any(word in optimizer for word in _BITSANDBYTES):
        message = (
            f"{optimizer} is of bitsandbytes, whose optimisers take no sharded weights; use "
            "adamw_torch_fused: FSDP leaves each card a share of what it remembers."
        )
        yield bad_value("training.optim", message)
    if recipe.evaluate is not None:
        message = (
            "under FSDP all cards compute each layer together, and answers differ in length; "
            "remove it, and ask afterwards: axtune evaluate RUN."
        )
        yield bad_value("evaluate", message)


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
