"""A command that is killed before each of its writes, or runs out of disk, and what it leaves."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.forked import Forked

# Runs the command again and again, each time in a process of its own (a fork) that kills itself, as
# kill -9 does, before its next call that changes anything on the disk: the first, the second, …
_KILLED = """
import os, shutil, signal, sys
from pathlib import Path
every, out, whole = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
words = sys.argv[4:]
calls = limit = 0
def counted(real):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call
{imports}
for module, names in ((os, ("pwrite", "ftruncate", "fsync", "rename")),
                      (Path, ("write_bytes", "write_text", "mkdir", "rename", "replace")),
                      (shutil, ("copyfile",))):
    for name in names:
        setattr(module, name, counted(getattr(module, name)))
def contents(folder):
    return {{file.name: file.read_bytes() for file in folder.iterdir()}}
status = 9
while status == 9:
    limit += every
    child = os.fork()
    if child == 0:
        {call}
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    state = "absent"
    if out.exists():
        state = "whole" if contents(out) == contents(whole) else "half"
        shutil.rmtree(out)
    print(limit, status, state)
"""


def states_when_killed(
    imports: str, call: str, out: Path, whole: Path, *words: str, every: int = 1,
    loaded: bool = True,
) -> list[str]:  # fmt: skip
    """What stands at `out` after each kill; the last run is not killed and must end well.

    Args:
        imports: Statements that come first.
        call: The command, which writes ``out`` and may read ``words``.
        out: The folder that it produces; it is removed after each run.
        whole: What it produces.
        words: For the command.
        every: Kill before each so-manieth write only.
        loaded: Whether it needs the libraries.

    Returns:
        ``absent``, ``whole`` or ``half`` for each kill.
    """
    code = _KILLED.format(imports=imports, call=call)
    arguments = [str(every), str(out), str(whole), *words]
    if loaded:
        printed = whole.with_name(f"{whole.name}.said")
        process = Forked("support.killed:executed", code, arguments, output=printed, cwd=Path.cwd())
        assert process.wait() == 0, process.said
        output = process.said
    else:
        command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    runs = [line.split()[1:] for line in output.splitlines()]
    assert runs.pop() == ["0", "whole"]  # clears what all the killed ones left
    assert {status for status, _ in runs} == {"9"}
    assert not list(out.parent.glob(".*"))
    return [state for _, state in runs]


def executed(code: str, arguments: list[str]) -> None:
    """What ``python -c CODE ARGUMENTS`` does."""
    sys.argv[1:] = arguments
    exec(code, {})


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let twenty writes of weights pass, and no more."""
    real, calls = os.pwrite, []

    def write(*arguments: Any) -> int:
        calls.append(arguments)
        if len(calls) > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", write)


@contextmanager
def files_of_at_most(nbytes: int) -> Iterator[None]:
    """No file may become larger, as under `ulimit -f`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
