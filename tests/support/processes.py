"""Runs in several processes of this machine, DDP or FSDP, on a CPU.

accelerate has FSDP for GPUs only, and runs DDP on a CPU whatever it is told. That is corrected, and
the processes of one job after the other are forked, as torchrun would start them.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support.forked import Forked
from support.pictures import draw_nothing

PATIENCE = 30  # seconds after which torchrun kills what does not end itself

# What accelerate launch makes of recipes/accelerate/fsdp2.yaml.
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


@dataclass(frozen=True)
class Job:
    """A recipe that several processes train.

    Attributes:
        recipe: Its file.
        words: Overrides.
        processes: How many.
        fsdp: Whether they share the weights out.
        fault: ``module:function`` to call in each process before it trains.
    """

    recipe: str
    words: Sequence[str] = ()
    processes: int = 2
    fsdp: bool = False
    fault: str | None = None


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        statuses: Exit statuses by process; negative for a signal.
        said: Standard output and error by process.
        seconds: From its first process's start to its last one's end.
        dying: Of these, from the first one's failure on.
    """

    statuses: list[int]
    said: list[str] = field(repr=False)
    seconds: float = 0.0
    dying: float = 0.0


def in_processes(jobs: Sequence[Job], folder: Path) -> list[Ended]:
    """Run jobs one after the other, as a launcher does: when a process fails, it ends the others.

    Args:
        jobs: What to run.
        folder: For what they say.
    """
    file = folder / "jobs.json"
    file.write_text(json.dumps([asdict(job) for job in jobs]), encoding="utf-8")
    process = Forked("support.processes:run_all", str(file), output=folder / "jobs.said")
    assert process.wait() == 0, process.said
    return [Ended(**one) for one in json.loads(process.said.splitlines()[-1])]


def fsdp_on_cpu() -> None:
    """Let accelerate take an FSDP plugin on a CPU as it does on GPUs."""
    from accelerate import DistributedType
    from accelerate.state import AcceleratorState, PartialState

    made = AcceleratorState.__init__

    def make(self: Any, *args: Any, fsdp_plugin: Any = None, **further: Any) -> None:
        made(self, *args, fsdp_plugin=fsdp_plugin, **further)
        if fsdp_plugin is not None:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = make


def _run(job: Job, folder: Path) -> Ended:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    files = [folder / f"said-{port}-{rank}" for rank in range(job.processes)]
    from torch.distributed import TCPStore

    # Where the processes meet is the launcher's, which outlives them.
    meeting = TCPStore("localhost", port, is_master=True, wait_for_workers=False)
    began = time.monotonic()
    running: dict[int, int] = {}
    for rank, file in enumerate(files):
        if (child := os.fork()) == 0:
            _train(job, rank, port, file)
        running[child] = rank
    statuses = [0] * job.processes
    failed: float | None = None
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            rank = running.pop(child)
            statuses[rank] = os.waitstatus_to_exitcode(status)
            if statuses[rank] and failed is None:
                failed = time.monotonic()
                _signal(running, signal.SIGTERM)
        elif failed is not None and time.monotonic() - failed > PATIENCE:
            _signal(running, signal.SIGKILL)
        time.sleep(0.05)
    del meeting
    ended = time.monotonic()
    said = [file.read_text(encoding="utf-8") for file in files]
    return Ended(statuses, said, ended - began, ended - (failed or ended))


def _signal(processes: Iterable[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)


def _train(job: Job, rank: int, port: int, file: Path) -> None:
    """Never returns."""
    os.environ |= {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(job.processes),
        "LOCAL_WORLD_SIZE": str(job.processes),
    }
    if job.processes == 1:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            del os.environ[name]
    if job.fsdp:
        os.environ |= FSDP
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(opened, 1)
    os.dup2(opened, 2)
    status = 70
    try:
        from axtune.cli import main

        if job.fault:
            module, name = job.fault.split(":")
            getattr(importlib.import_module(module), name)()
        main(["train", job.recipe, *job.words])
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_all(file: str) -> None:
    """Run the jobs of a file, and print how they ended."""
    fsdp_on_cpu()
    draw_nothing()
    ended = []
    for one in json.loads(Path(file).read_text(encoding="utf-8")):
        signal.alarm(300)  # for processes that wait for each other
        ended.append(asdict(_run(Job(**one), Path(file).parent)))
    print(json.dumps(ended))
