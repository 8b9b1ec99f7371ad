"""The processes of a run, as far as one process can show."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import DistributedType
from support.processes import FSDP

from axtune.config.recipe import Recipe
from axtune.errors import AxtuneError, RecipeError
from axtune.training import distributed
from axtune.training.distributed import (
    check_launcher,
    once,
    scratch_folder,
    shares_weights,
    use_all_cores,
)

VALUES: dict[str, Any] = {
    "task": "sft",
    "model": "tiny-ax-4.0",
    "output_dir": "run",
    "data": {"train": "rows.jsonl"},
}
JOB = Recipe.model_validate(VALUES)
LAUNCHED = ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")


def process(first: bool = True, count: int = 1) -> Any:
    kind = DistributedType.MULTI_GPU if count > 1 else DistributedType.NO
    return SimpleNamespace(is_local_main_process=first, num_processes=count, distributed_type=kind)


def fail() -> str:
    raise AxtuneError("No room.")


def test_the_first_process_works_and_the_others_take_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert once(process(), lambda: "made", lambda: "read") == "made"
    monkeypatch.setattr(distributed, "gather_object", lambda mine: [*mine, False])
    assert once(process(count=2), lambda: "made", lambda: "read") == "made"
    assert once(process(first=False, count=2), lambda: "made", lambda: "read") == "read"
    assert once(process(first=False, count=2), lambda: "made") == "made"


def test_a_failure_is_said_once_and_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AxtuneError, match="No room"):
        once(process(), fail)
    told: list[list[bool]] = []

    def gather(mine: list[bool]) -> list[bool]:
        told.append(mine)
        return [True, *mine]

    monkeypatch.setattr(distributed, "gather_object", gather)
    with pytest.raises(AxtuneError, match="No room"):
        once(process(count=2), fail)
    with pytest.raises(SystemExit) as caught:
        once(process(first=False, count=2), lambda: "made")
    assert caught.value.code == 1
    assert told == [[True], [False]]  # the others hear of it before the first one leaves


def configured(monkeypatch: pytest.MonkeyPatch, **switches: str) -> None:
    """What accelerate launch leaves in the environment."""
    for name, value in switches.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("switches", "found", "remedy"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed", "fsdp2.yaml"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron", "fsdp2.yaml"),
        ({"PARALLELISM_CONFIG_CP_SIZE": "2"}, "context parallelism", "offload"),
        ({"PARALLELISM_CONFIG_SP_SIZE": "2"}, "sequence parallelism", "offload"),
        ({"PARALLELISM_CONFIG_TP_SIZE": "2"}, "tensor parallelism", "parallelism_config"),
        (FSDP | {"FSDP_VERSION": "1"}, "version 1", "fsdp_version: 2"),
        (FSDP | {"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, "whole layer", "TRANSFORMER_BASED"),
        (FSDP | {"FSDP_OFFLOAD_PARAMS": "true"}, "was not tried", "fsdp_offload_params: false"),
        (FSDP | {"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "decides", "checkpointing: false"),
        (FSDP | {"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "pages", "loading: false"),
    ],
)
def test_what_accelerate_is_configured_for_is_refused(
    switches: dict[str, str], found: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_launcher(JOB)
    configured(monkeypatch, **switches)
    with pytest.raises(AxtuneError, match=found) as caught:
        check_launcher(JOB)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"offload": ["embeddings"]}, "offload: FSDP"),
        ({"training": {"optim": "adamw_8bit"}}, r"training\.optim: adamw_8bit is of bitsandbytes"),
        ({"training": {"optim": "paged_adamw_32bit"}}, "sharded"),
        ({"training": {"optim": "ademamix"}}, "sharded"),
        ({"evaluate": {"data": "questions.jsonl"}}, "evaluate: under FSDP"),
    ],
)
def test_what_is_not_for_fsdp_is_refused_with_its_key(
    changes: dict[str, Any], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Recipe.model_validate({**VALUES, **changes})
    check_launcher(job)
    configured(monkeypatch, **FSDP)
    check_launcher(JOB)
    with pytest.raises(RecipeError, match=found):
        check_launcher(job)


def test_weights_are_shared_out_where_several_processes_do_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not shares_weights(process(count=2))
    configured(monkeypatch, **FSDP)
    assert shares_weights(process(count=2))
    assert not shares_weights(process())


def test_prepared_rows_are_this_users_and_do_not_stay() -> None:
    made: list[Path] = []

    def stopped() -> None:
        with scratch_folder(process()) as folder:
            made.append(folder)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            (folder / "rows").write_text("secret")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not made[0].exists()


def test_all_processes_use_the_folder_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hear(token: list[str]) -> None:
        token[0] = "of-the-first"

    monkeypatch.setattr(distributed, "broadcast_object_list", hear)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with scratch_folder(process(count=2)) as made:
        with scratch_folder(process(first=False, count=2)) as found:
            assert found == made
        assert made.is_dir()  # one that leaves early takes nothing with it
    assert not made.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="cores are shared out on a CPU")
def test_a_launchers_single_thread_becomes_a_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for count in (1, 2, 16):
        use_all_cores(process(count=count))
    assert threads == [8, 4, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # what the user says stays, 1 as well
    use_all_cores(process())
    assert len(threads) == 3


@pytest.mark.parametrize("launcher", LAUNCHED)
@pytest.mark.parametrize("chosen", [True, False])
def test_a_launchers_one_thread_is_no_choice_of_the_users(launcher: str, chosen: bool) -> None:
    """The child of a launcher that gives each process one thread, whoever said so."""
    child = "from axtune.training.distributed import _threads_were_chosen as f; print(f())"
    code = (
        "import os, subprocess, sys; os.environ.update(OMP_NUM_THREADS='1', "
        f"{launcher}='x'); subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    environment.pop("OMP_NUM_THREADS", None)
    if chosen:
        environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(chosen)
