"""Processes that begin with everything imported: forks of one that did it once for all tests.

A command in a process of its own costs a second or two instead of ten. What is about the start of a
process itself, such as its imports, is started as a user does instead.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
_PLACE = "AXTUNE_TESTS_FORK_AT"  # the variable that holds the server's socket

# What a run imports on its way.
_LOADED = (
    "axtune.after", "axtune.cli", "axtune.run", "axtune.stages", "axtune.evaluate.in_training",
    "axtune.training.preference", "axtune.training.sft", "matplotlib.backends.backend_agg",
    "matplotlib.figure", "torch.distributed.checkpoint.state_dict", "torch.distributed.fsdp",
    "transformers.models.llama.modeling_llama", "transformers.models.qwen2.modeling_qwen2",
    "trl.experimental.orpo",
)  # fmt: skip


class Forked:
    """A function in a process of its own; like subprocess.Popen.

    Args:
        call: ``module:function``; when it returns, its process ends with 0.
        words: Its arguments.
        output: What it prints is added to this file.
        errors: What it says on standard error to another one.
        cwd: Where it runs.
        environment: All of its variables; None for those of this process.
    """

    def __init__(
        self, call: str, *words: Any, output: Path, errors: Path | None = None,
        cwd: Path = TESTS.parent, environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.output = output
        self.returncode: int | None = None
        self.pid = _ask(
            "start",
            {
                "call": call, "words": words, "output": str(output),
                "errors": str(errors or output), "cwd": str(cwd),
                "environment": dict(os.environ if environment is None else environment),
            },
        )  # fmt: skip

    @property
    def said(self) -> str:
        """What it has printed."""
        return self.output.read_text(encoding="utf-8", errors="surrogateescape")

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = _ask("poll", self.pid)
        return self.returncode

    def wait(self) -> int:
        """Its exit status when it has ended."""
        if self.returncode is None:
            self.returncode = _ask("wait", self.pid)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


@functools.cache
def server() -> subprocess.Popen[bytes]:
    """The process that forks, started with the first one that is wanted."""
    place = Path(tempfile.mkdtemp(dir="/tmp")) / "forks"  # a short name, as sockets need it
    environment = {
        **os.environ,
        "PYTHONPATH": f"{TESTS}:{TESTS.parent}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "support.forked", str(place)],
        cwd=TESTS.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
    )  # fmt: skip
    assert process.stdout
    process.stdout.readline()  # it listens
    os.environ[_PLACE] = str(place)
    atexit.register(shutil.rmtree, place.parent)
    atexit.register(process.communicate)  # it ends with its standard input
    return process


def _ask(what: str, value: Any) -> Any:
    if _PLACE not in os.environ:
        server()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(os.environ[_PLACE])
        line.sendall(json.dumps([what, value]).encode() + b"\n")
        return json.loads(line.makefile().readline())


def _begin(asked: dict[str, Any]) -> None:
    """Become the process that was asked for; never returns."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream, file in ((1, asked["output"]), (2, asked["errors"])):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        os.environ.clear()
        os.environ.update(asked["environment"] | {_PLACE: sys.argv[1]})
        os.chdir(asked["cwd"])
        tempfile.tempdir = None
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has none
        module, _, name = asked["call"].partition(":")
        getattr(importlib.import_module(module), name)(*asked["words"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _renew_threads() -> None:
    """Let a fork make its threads of torch anew while it has one thread only.

    Otherwise each thread that loads weights does, and two at once meet half-made ones ("Invalid
    thread pool!": caffe2::pthreadpool, which is not safe for that).
    """
    import torch

    torch.set_num_threads(torch.get_num_threads())


def _serve(place: str) -> None:
    """Fork what is asked for, until nobody can ask any more."""
    waiting: dict[int, socket.socket] = {}

    def answer(line: socket.socket, value: int | None) -> None:
        with line:
            line.sendall(json.dumps(value).encode() + b"\n")

    def ended(child: int) -> int | None:
        child, status = os.waitpid(child, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if child else None

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(place)
        door.listen()
        print("listening", flush=True)
        while True:
            ready, _, _ = select.select([door, sys.stdin], [], [], 0.02 if waiting else None)
            if sys.stdin in ready:
                return
            if door in ready:
                line, _ = door.accept()
                what, value = json.loads(line.makefile().readline())
                if what == "wait":
                    waiting[value] = line
                elif what == "poll":
                    answer(line, ended(value))
                else:
                    if (child := os.fork()) == 0:
                        door.close()
                        line.close()
                        _begin(value)
                    answer(line, child)
            for child in list(waiting):
                if (status := ended(child)) is not None:
                    answer(waiting.pop(child), status)


if __name__ == "__main__":
    from axtune.loading import loading

    with loading():
        for loaded in _LOADED:
            importlib.import_module(loaded)
    os.register_at_fork(after_in_child=_renew_threads)
    _serve(sys.argv[1])
