"""What may go wrong in one process of a run, while the others wait for it; and what each one has.

`support.processes` calls one of these in each process before it trains.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import Any

import torch

AT = 3  # the forward pass at which it happens: the trial step, a step, then this one
EXCEPTION = "a bug that nobody foresaw"


def _is(rank: int) -> bool:
    return os.environ.get("RANK") == str(rank)


def _at_the_third_loss(happen: Any) -> None:
    """Let something happen in process 1, with its third loss."""
    from axtune.training.sft import SftTrainer

    computed, calls = SftTrainer.compute_loss, 0

    def compute(self: Any, *args: Any, **further: Any) -> Any:
        nonlocal calls
        calls += 1
        loss = computed(self, *args, **further)
        return happen(loss) if calls == AT and _is(1) else loss

    SftTrainer.compute_loss = compute  # type: ignore[method-assign]


def nan() -> None:
    """Its loss is no number."""
    _at_the_third_loss(lambda loss: loss * float("nan"))


def exception() -> None:
    """Code fails that should not."""

    def fail(loss: Any) -> None:
        raise ValueError(EXCEPTION)

    _at_the_third_loss(fail)


def out_of_memory() -> None:
    """The card is full."""

    def fail(loss: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    _at_the_third_loss(fail)


def hanging() -> None:
    """It waits for something that does not come."""
    _at_the_third_loss(lambda loss: time.sleep(600))


def killed() -> None:
    """The kernel takes it."""
    _at_the_third_loss(lambda loss: os.kill(os.getpid(), signal.SIGKILL))


def disk_full() -> None:
    """Process 0 cannot write a checkpoint."""
    from axtune.training import trainer

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if _is(0):
        trainer.write_state = fail  # type: ignore[attr-defined]


def counted() -> None:
    """Nothing; each process says which part of all bytes it holds once they are shared out."""
    from axtune.training.trainer import RunTrainer

    shard = RunTrainer.shard

    def share(self: Any) -> None:
        whole = sum(p.numel() * p.element_size() for p in self.model.parameters())
        shard(self)
        held = sum(
            p.to_local().numel() * p.element_size()  # what is no share has no such method
            for p in self.model.parameters()
        )
        print(f"holds {held / whole:.3f} of {whole} bytes")

    RunTrainer.shard = share  # type: ignore[method-assign]
