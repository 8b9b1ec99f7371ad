"""kill -9 before a change of a run's folder and at random moments: the run goes on, bit-equal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.broken_runs import FULL, outcome, run_here
from support.commands import ENVIRONMENT
from support.processes import Job, in_processes
from support.tiny import recipe, write_rows

from axtune.checkpoint.run_lock import locked
from axtune.config import loader
from axtune.config.recipe import Recipe
from axtune.errors import AxtuneError

pytestmark = pytest.mark.slow

# Before a change of the folder, and at random moments, of each job.
AT_WRITES, AT_RANDOM = (14, 10) if FULL else (3, 1)
PAIRS = 6 if FULL else 1
JOBS = ("sft", "packed", "dpo", "kto", "orpo")
LEAST = 110


def job(folder: Path, name: str) -> dict[str, Any]:
    """A run of 4 steps, 2 to an epoch, that saves after each."""
    task = "sft" if name == "packed" else name
    rows = folder / f"{task}.jsonl"
    if task == "sft":
        write_rows(rows, 8)
    else:
        rows.write_text("".join(json.dumps(row) + "\n" for row in _judged(task)), encoding="utf-8")
    made = recipe(
        folder, task=task, output_dir=str(folder / name / "run"),
        data={"train": str(rows), "packing": name == "packed", "max_length": 64},
        lora={"r": 2, "lora_dropout": 0.1},
        training={"eval_strategy": "steps", "eval_steps": 1, "save_total_limit": 2,
                  "learning_rate": 1e-3},
    )  # fmt: skip
    return made.model_dump(mode="json")


def _judged(task: str) -> list[dict[str, Any]]:
    rows = []
    for number in range(8):
        prompt = [{"role": "user", "content": f"비밀 {number}번은?"}]
        good, bad = ([{"role": "assistant", "content": text}] for text in (f"{number}", "몰라요"))
        if task == "kto":
            answer, label = (good, True) if number % 2 else (bad, False)
            rows.append({"prompt": prompt, "completion": answer, "label": label})
        else:
            rows.append({"prompt": prompt, "chosen": good, "rejected": bad})
    return rows


@pytest.mark.parametrize("name", JOBS)
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps({name: job(tmp_path, name)}), encoding="utf-8")
    told = run_here("kills", str(file), str(AT_WRITES), str(AT_RANDOM))
    assert len(told) == AT_WRITES + AT_RANDOM
    assert [one for one in told if not one["same"]] == []
    at_writes = [one for one in told if one["kind"] == "write"]
    assert all(one["killed"] for one in at_writes)
    assert {bool(one["saved"]) for one in at_writes} == {True, False}  # early, and later


def test_the_faults_are_as_many_as_promised() -> None:
    if FULL:
        assert len(JOBS) * (AT_WRITES + AT_RANDOM) + PAIRS >= LEAST


def until_free(folder: Path) -> None:
    """Wait until the last process of a killed run has gone, and its lock with it."""
    for _ in range(600):
        with suppress(AxtuneError), locked(folder):
            return
        time.sleep(0.2)


@pytest.mark.parametrize("number", range(PAIRS))
def test_two_processes_go_on_to_the_same_bits(tmp_path: Path, number: int) -> None:
    values = job(tmp_path, "sft")
    values["training"]["gradient_accumulation_steps"] = 1

    def write(folder: str) -> Path:
        here = Recipe.model_validate({**values, "output_dir": str(tmp_path / folder)})
        file = tmp_path / f"{folder}.yaml"
        file.write_text(loader.dump(here), encoding="utf-8")
        return file

    broken = write("broken")
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
         "--master_port", "0", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0",
         "-m", "axtune", str(broken)],
        env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    # While a checkpoint is being written: the first, or a later one.
    checkpoints = tmp_path / "broken" / "checkpoints"
    wanted = 1 + number % 3
    while process.poll() is None:
        begun = checkpoints.is_dir() and len(list(checkpoints.iterdir())) >= wanted
        if begun and ((checkpoints / ".saving").exists() or number % 2):
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    process.wait()
    until_free(tmp_path / "broken")
    jobs = [Job(str(broken), ["resume=true"]), Job(str(write("whole")))]
    ended = in_processes(jobs, tmp_path)
    assert [one.statuses for one in ended] == [[0, 0], [0, 0]], ended[0].said
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")
