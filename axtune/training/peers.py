"""What the processes of one run tell each other when something goes wrong, so that all end soon.

They meet in the store that their launcher keeps for them: it answers when collective operations do
not any more.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch

from axtune.config.objective import listed
from axtune.config.recipe import Recipe
from axtune.errors import AxtuneError

_PATIENCE = 1800  # seconds, where the recipe has no ddp_timeout: transformers' own
_ASKING = timedelta(seconds=5)  # for the store to answer
_PLACE = "axtune/place/{}"  # how far a process has come, by its rank
_FAILED = "axtune/failed"


def meet(recipe: Recipe) -> None:
    """Let the processes of a run on CPUs wait for each other as long as the recipe says.

    With GPUs transformers does it; on a CPU it drops ``ddp_timeout``.

    Args:
        recipe: The job; a value that is no number is refused later.
    """
    seconds = recipe.training.get("ddp_timeout", _PATIENCE)
    if _processes() == 1 or torch.cuda.is_available() or not isinstance(seconds, int):
        return
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=seconds))


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _meeting_place() -> Any:
    """The store that a launcher keeps for the processes of a run.

    Raises:
        KeyError, ValueError, RuntimeError: When nobody is there to ask any more.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return torch.distributed.TCPStore(  # type: ignore[attr-defined]
        address, port, timeout=_ASKING
    )


def is_first_to_say(message: str) -> bool:
    """Whether no process of this run has said something yet: what ends all of them is said once.

    Args:
        message: The same text in all of them.
    """
    if _processes() == 1:
        return True
    digest = hashlib.sha256(message.encode("utf-8", "replace")).hexdigest()
    try:
        return bool(_meeting_place().add(f"axtune/said/{digest}", 1) == 1)
    except (KeyError, ValueError, RuntimeError):
        return True


class Place:
    """How far this process has come, where the others can read it when they wait in vain."""

    def __init__(self) -> None:
        self._steps = 0
        self._store: Any = None

    def passed(self) -> None:
        """Note that a part of a micro-batch is done: it came, or its loss is computed."""
        if _processes() == 1:
            return
        self._steps += 1
        self._store = self._store or _meeting_place()
        self._store.set(_PLACE.format(os.environ["RANK"]), str(self._steps))


def _behind() -> list[int]:
    """The processes that are not as far as the others; none where all are."""
    try:
        store = _meeting_place()
        names = [_PLACE.format(rank) for rank in range(_processes())]
        steps = [int(store.get(name)) if store.check([name]) else 0 for name in names]
    except (KeyError, ValueError, RuntimeError):
        return []
    return [rank for rank, step in enumerate(steps) if step < max(steps)]


def note_failure() -> None:
    """Let the other processes know that this one has failed, and that none need wait for it."""
    if _processes() > 1:
        with suppress(KeyError, ValueError, RuntimeError):
            _meeting_place().set(_FAILED, "1")


def has_failed_peer() -> bool:
    """Whether another process of this run has failed."""
    if _processes() == 1:
        return False
    try:
        return bool(_meeting_place().check([_FAILED]))
    except (KeyError, ValueError, RuntimeError):
        return True  # whoever started the processes has gone, too


def of_peers(error: BaseException | None) -> AxtuneError | None:
    """What is to be said of an error that another process of the run has caused; None of others.

    Args:
        error: In gloo's words, or NCCL's kind.
    """
    if not isinstance(error, RuntimeError):
        return None
    if "Timed out waiting" in (text := str(error)):
        return _silent_peer(_behind())
    gone = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    if isinstance(error, torch.distributed.DistError) or any(words in text for words in gone):
        return AxtuneError(
            "Another process of this run has ended, and the run with it.",
            "Its own message says why. If there is none it was killed, most often because the "
            "machine ran out of memory; what was saved is sound: resume=true.",
        )
    return None


def _silent_peer(ranks: list[int]) -> AxtuneError:
    """What the processes say that have waited for one too long."""
    who = "Another process"
    if ranks:
        who = f"Process {ranks[0]}" if len(ranks) == 1 else f"Processes {listed(map(str, ranks))}"
    return AxtuneError(
        f"{who} of this run did not answer within training.ddp_timeout, and the run ends.",
        "Look at what it was waiting for, such as a disk or a card that does not answer. If it was "
        "at work, set a longer training.ddp_timeout; what was saved is sound: resume=true.",
    )
