"""`torchrun … -m support.worker train RECIPE`: a process of a launcher's, which has itself forked.

Its fork has the launcher's environment and streams, and it ends as its fork does.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from support.forked import Forked


def train(words: list[str]) -> None:
    """What a recipe does that is started as a script."""
    from axtune.cli import main

    main(["train", *words])


def train_sharded(words: list[str]) -> None:
    """The same with FSDP on a CPU."""
    from support.processes import fsdp_on_cpu

    fsdp_on_cpu()
    train(words)


def accelerate_launch(words: list[str]) -> None:
    """``accelerate launch WORDS``."""
    from accelerate.commands.launch import main

    sys.argv[1:] = words
    main()


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    streams = [Path(f"/proc/{os.getpid()}/fd/{stream}") for stream in (1, 2)]
    process = Forked(f"support.worker:{what}", given, output=streams[0], errors=streams[1])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: process.send_signal(number))
    status = process.wait()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)
