"""Training runs that are killed, or run out of disk, and what the same command makes of them then.

It trains in forks of a process that has imported the libraries, or of itself as a script where it
needs a disk of its own. What it is told and what it tells is JSON, a line each.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.forked import Forked
from support.pictures import draw_nothing

ROOT = Path(__file__).resolve().parents[2]

# All of the faults of which README tells, or enough of them for every change.
FULL = os.environ.get("AXTUNE_FAULTS") == "full"

_CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "os.link"}


def run_here(task: str, *words: str, within: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Tell it, and read what it tells.

    Args:
        task: kills or quotas.
        words: For the task, first the file of jobs.
        within: A command that starts it as a script, such as unshare.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["TOKENIZERS_PARALLELISM"] = "false"
    if within:
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        command = [*within, sys.executable, "-W", "ignore", "-m", "support.broken_runs"]
        said = subprocess.run(
            [*command, task, *words],
            stdout=subprocess.PIPE, text=True, check=True, env=environment, timeout=3000,
        ).stdout  # fmt: skip
    else:
        output = Path(words[0]).with_suffix(".said")
        process = Forked(
            "support.broken_runs:tell", task, *words, output=output, environment=environment
        )
        assert process.wait() == 0, process.said
        said = process.said
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


class Fork:
    """A run in a fork of this process.

    Args:
        values: Of its recipe.
        kill_at: Kill it before this change of its folder, counted from 1; 0 never does.
        log: What it prints goes here.
    """

    def __init__(self, values: dict[str, Any], log: Path, kill_at: int = 0) -> None:
        self.log = log
        self._count = log.with_suffix(".count")
        self.pid = os.fork()
        if self.pid == 0:
            self._train(values, kill_at)

    def _train(self, values: dict[str, Any], kill_at: int) -> None:
        from axtune.config.recipe import Recipe
        from axtune.errors import AxtuneError
        from axtune.run import train

        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
        seen = _count_changes(values["output_dir"], kill_at)
        code = 0
        try:
            train(Recipe.model_validate(values))
        except AxtuneError as error:
            print(error)
            code = 1
        except BaseException:
            traceback.print_exc()
            code = 2
        sys.stdout.flush()
        sys.stderr.flush()
        self._count.write_text(str(seen[0]))
        os._exit(code)

    def ended(self, *, kill_after: float | None = None) -> int:
        """Wait for it: its exit status, or -9.

        Args:
            kill_after: Seconds after which it is killed.
        """
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def changes(self) -> int:
        """How often it changed something in its folder."""
        return int(self._count.read_text())


def _count_changes(folder: str, kill_at: int) -> list[int]:
    """Count the changes that this process is about to make in a folder, and die before one."""
    seen = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int)
        writes = opened and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in _CHANGES) and str(arguments[0]).startswith(folder):
            seen[0] += 1
            if seen[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return seen


def outcome(folder: Path) -> tuple[bytes, list[tuple[int, Any, Any]]]:
    """A finished run in bits: its adapter, and the losses of its steps."""
    from axtune.checkpoint.run_dir import read_metrics

    events = read_metrics(folder / "metrics.jsonl")
    numbers = [(event["step"], event.get("loss"), event.get("eval_loss")) for event in events]
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes(), numbers


def go_on(values: dict[str, Any], log: Path, whole: Any) -> dict[str, Any]:
    """Give the same command with resume=true, and compare with the run that nothing happened to."""
    code = Fork({**values, "resume": True}, log).ended()
    same = code == 0 and outcome(Path(values["output_dir"])) == whole
    return {"code": code, "same": same, "said": log.read_text()[-1500:] if not same else ""}


def kills(name: str, values: dict[str, Any], at_writes: int, at_random: int) -> Iterator[Any]:
    """Kill a run before changes of its folder, evenly spread, and at random moments."""
    folder = Path(values["output_dir"])
    folder.parent.mkdir(exist_ok=True)
    log = folder.with_name(f"{name}.log")
    began = time.monotonic()
    first = Fork(values, log)
    assert first.ended() == 0, log.read_text()
    lasted = time.monotonic() - began
    whole, changes = outcome(folder), first.changes
    draw = random.Random(name)
    points = [1 + index * changes // at_writes for index in range(at_writes)]
    moments = [draw.uniform(0.2, 0.95) * lasted for _ in range(at_random)]
    for kind, place in [*(("write", at) for at in points), *(("moment", at) for at in moments)]:
        shutil.rmtree(folder, ignore_errors=True)
        if kind == "write":
            code = Fork(values, log, int(place)).ended()
        else:
            code = Fork(values, log).ended(kill_after=place)
        saved = sorted(entry.name for entry in folder.glob("checkpoints/checkpoint-*"))
        told = {"job": name, "kind": kind, "at": place, "of": changes, "saved": saved}
        yield {**told, "killed": code == -9, **go_on(values, log, whole)}


def quotas(name: str, values: dict[str, Any], count: int, limit: Callable[[Path, int], Any]) -> Any:
    """Run a job on a disk too small for it, and go on when there is room."""
    disk = Path(values["output_dir"]).parent
    log = disk.with_name(f"{name}.log")
    limit(disk, 1 << 26)
    assert Fork(values, log).ended() == 0, log.read_text()
    whole = outcome(Path(values["output_dir"]))
    used = sum(file.stat().st_size for file in disk.rglob("*") if file.is_file())
    for index in range(count):
        size = (index + 1) * used // (count + 1)
        limit(disk, size)
        code = Fork(values, log).ended()
        said = log.read_text()
        limit(disk, -1)
        from axtune.checkpoint.steps import newest_sound

        newest = newest_sound(Path(values["output_dir"]) / "checkpoints")
        yield {
            "job": name, "bytes": size, "code": code, "traceback": "Traceback" in said,
            "damaged": len(newest.damaged), "end": said[-600:],
            "again": go_on(values, log, whole),
        }  # fmt: skip


def _tmpfs(disk: Path, size: int) -> None:
    """Make a disk of a size in place of another; -1 gives the one there more room."""
    if size < 0:
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        return
    subprocess.run(["umount", str(disk)], check=False, stderr=subprocess.DEVNULL)
    disk.mkdir(exist_ok=True)
    options = f"size={size // 4096 * 4096}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(disk)], check=True)


def tell(task: str, file: str, *numbers: str) -> None:
    """Do a task with each job of a file."""
    import torch

    import axtune.run
    import axtune.training.preference
    import axtune.training.sft  # noqa: F401

    torch.set_num_threads(1)
    draw_nothing()
    for job_name, job in json.loads(Path(file).read_text(encoding="utf-8")).items():
        results = (
            kills(job_name, job, int(numbers[0]), int(numbers[1]))
            if task == "kills"
            else quotas(job_name, job, int(numbers[0]), _tmpfs)
        )
        for result in results:
            print(json.dumps(result, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    tell(*sys.argv[1:])
