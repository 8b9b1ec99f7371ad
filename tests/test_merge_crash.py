"""A merge that is killed, or runs out of disk, leaves the whole folder or none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from adapters import adapter_for, sharded_checkpoint
from tiny import LIBRARY_WARNINGS

from axtune.catalog import Checkpoint
from axtune.errors import AxtuneError
from axtune.merge import merge

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


def test_a_disk_that_fills_up_leaves_nothing(
    base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    real, calls = os.pwrite, []

    def full(*arguments: Any) -> int:
        calls.append(arguments)
        if len(calls) > 20:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(AxtuneError, match="filled up; nothing was left behind"):
        merge([adapter], str(base.folder), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


# Merges again and again, each time in a process of its own (a fork) that kills itself, as kill -9
# does, before its next call that changes anything on the disk: the first, the second, and so on.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from axtune.merge import merge
adapter, base, out, whole = map(Path, sys.argv[1:])
calls = limit = 0
def counted(real):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call
for module, names in ((os, ("pwrite", "ftruncate", "fsync", "rename")),
                      (Path, ("write_text", "mkdir", "rename")), (shutil, ("copyfile",))):
    for name in names:
        setattr(module, name, counted(getattr(module, name)))
def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}
status = 9
while status == 9:
    limit += 1
    child = os.fork()
    if child == 0:
        merge([adapter], str(base), out)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    state = "absent"
    if out.exists():
        state = "whole" if contents(out) == contents(whole) else "half"
        shutil.rmtree(out)
    print(limit, status, state)
"""


@pytest.mark.slow
def test_killed_before_any_write_the_target_is_absent_or_whole(
    base: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    merge([adapter], str(base.folder), tmp_path / "whole")
    paths = [adapter, base.folder, tmp_path / "out", tmp_path / "whole"]
    command = [sys.executable, "-W", "ignore", "-c", KILLED, *map(str, paths)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    runs = [line.split()[1:] for line in output.splitlines()]
    assert len(runs) > 50
    assert runs.pop() == ["0", "whole"]  # clears what all the killed ones left
    assert {status for status, _ in runs} == {"9"}
    states = [state for _, state in runs]
    # Only the very last flush comes after the folder has its name.
    assert states == ["absent"] * (len(states) - 1) + ["whole"]
    assert not list(tmp_path.glob(".*"))
