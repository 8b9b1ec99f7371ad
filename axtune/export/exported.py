"""What an export leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Exported:
    """What an export left behind.

    Attributes:
        folder: Where.
        nbytes: The size of its tensors.
        command: The line that serves it with vLLM or llama.cpp; None for transformers.
        notes: What a user should know, a sentence each.
        room: Which cards serve it, with how long a context, in words; None where that is not known.
    """

    folder: Path
    nbytes: int
    command: str | None
    notes: tuple[str, ...]
    room: str | None = None
