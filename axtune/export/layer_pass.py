"""Calibration rows on their way through the layers of a checkpoint, which may be stopped.

What enters a layer is written down whenever one is done, with what was found so far. Whoever makes
the same export again begins there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

from axtune.checkpoint.atomic import fsync, written_whole
from axtune.weights.decoder import Decoder

_STATES = "states.safetensors"


class LayerPass:
    """Rows before the first layer that is not done.

    Args:
        decoder: The checkpoint's layers.
        sequences: Token ids of the rows.
        work: A folder that outlives this process.

    Attributes:
        begins_at: The first layer to do.
        states: What enters the next layer, (tokens, width) of each row.
        found: What was kept of the layers before.
    """

    def __init__(self, decoder: Decoder, sequences: Sequence[Sequence[int]], work: Path) -> None:
        self._file = work / _STATES
        self.begins_at = 0
        self.found: dict[str, torch.Tensor] = {}
        if not self._file.is_file():
            self.states = decoder.embed(sequences)
            return
        with safe_open(self._file, framework="pt") as file:
            self.begins_at = int(file.metadata()["layer"])
            self.found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.states = [self.found.pop(str(number)) for number in range(len(sequences))]

    def keep(self, index: int) -> None:
        """Write down that a layer is done: `states` and `found` are those behind it."""
        states = {str(number): state for number, state in enumerate(self.states)}
        write_tensors(self._file, states | self.found, layer=str(index + 1))


@contextmanager
def stopped_at(index: int, layers: int) -> Iterator[None]:
    """Say with what stops a pass, Ctrl-C or SIGTERM, which layer it was at."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(f"It was at layer {index + 1} of {layers}.")
        raise


def counted(what: str, begins_at: int, layers: int) -> str:
    """What is counted, for the eye: of a pass that goes on, from which layer."""
    return f"{what}, from layer {begins_at + 1} of {layers}" if begins_at else what


def write_tensors(file: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> None:
    """A safetensors file, whole or not at all; its mode is the umask's, as safetensors' is not."""
    with written_whole(file) as part:
        part.write_bytes(save(tensors, metadata={"format": "pt", **metadata}))
        fsync(part)
