"""A base in 4 bit, made once: what `axtune.model.load.load_model` would quantise at every start.

The arithmetic is bitsandbytes' own, and so is the layout (``QuantState.as_dict``): a checkpoint as
transformers saves and loads it. bitsandbytes quantises whole tensors; here a few threads each take
a block of one, since blocks of 64 numbers are independent of each other. Only their scales are
rounded together, and those are gathered first. The bits are those of loading on the same machine:
the mean of the scales depends, in its last bit, on the device and its number of threads.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch

from axtune.checkpoint import locate
from axtune.checkpoint.atomic import refuse_existing
from axtune.checkpoint.locate import SINGLE, Checkpoint
from axtune.checkpoint.provenance import QuantizationSource, base_digests
from axtune.errors import AxtuneError, CheckpointError
from axtune.model.dtypes import dtype_name, with_dtype
from axtune.model.finite import count_nonfinite
from axtune.model.load import bits_and_bytes
from axtune.model.shapes import fit
from axtune.quiet import quiet_libraries
from axtune.units import package_version, shard_bytes
from axtune.weights.direct_io import Buffer, DirectReader, write_at
from axtune.weights.folder import FolderPlan, quantized_card, write_folder
from axtune.weights.nf4 import BLOCK, CHUNK, SCALES, FourBit, four_bit
from axtune.weights.output_tensor import resharded
from axtune.weights.safetensors_file import (
    BLOCK_BYTES,
    TensorInfo,
    header_bytes,
    read_checkpoint,
    require_floats,
)
from axtune.weights.stream_writer import write_index

_STATE_BYTES = 512  # most that the JSON of a tensor's state takes; about 180 as a rule

_PACKAGES = ("axtune", "torch", "transformers", "bitsandbytes")


@dataclass(frozen=True)
class Quantized:
    """A quantised checkpoint that was written.

    Attributes:
        folder: Where.
        layers: Linear layers in 4 bit.
        nbytes: The size of all tensors.
        original_nbytes: That of the original's.
    """

    folder: Path
    layers: int
    nbytes: int
    original_nbytes: int


def quantize(
    base: str,
    out: str | Path,
    *,
    quant_type: Literal["nf4", "fp4"] = "nf4",
    double_quant: bool = True,
    precision: Literal["bf16", "fp16"] = "bf16",
    max_shard_size: str = "5GB",
) -> Quantized:
    """Quantise a base as a QLoRA run would at its start, into a folder that runs load instead.

    Args:
        base: The 16-bit weights, as `axtune.checkpoint.locate.find` takes them.
        out: The folder to produce; it appears whole or not at all.
        quant_type: ``bnb_4bit_quant_type``.
        double_quant: ``bnb_4bit_use_double_quant``.
        precision: Of the runs that are to load it, which the other weights are kept in. What was
            made for bf16 from weights in bf16 serves runs in fp32 as well.
        max_shard_size: Such as ``5GB``.

    Returns:
        What was written.

    Raises:
        AxtuneError: When `out` exists, the base is quantised already, incomplete or not finite, or
            the disk is too small. Nothing is left behind then.
        MissingPackageError: When bitsandbytes is not installed.
    """
    target = Path(out)
    refuse_existing(target)
    limit = shard_bytes(max_shard_size)
    checkpoint = locate.find(base)
    if made := checkpoint.config.get("quantization_config"):
        raise CheckpointError(
            f"{base} is quantised already ({made.get('quant_method')}); expected 16-bit weights.",
            "Give the original that it was made from.",
        )
    section = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": quant_type,
        "bnb_4bit_use_double_quant": double_quant,
        # Cards that train in fp16 do so because they have no bf16.
        "bnb_4bit_compute_dtype": "float16" if precision == "fp16" else "bfloat16",
    }
    settings = bits_and_bytes(section, precision)
    how = four_bit(section, precision)
    tensors = _tensors(checkpoint)
    shards = resharded([_Job(tensor, how) for tensor in tensors], limit)
    same = all(tensor.dtype == how.dtype for tensor in tensors)
    device = _device()
    original = QuantizationSource(
        name=checkpoint.name,
        commit=checkpoint.commit,
        digests=base_digests(checkpoint.folder),
        quantization=section,
        precisions=[precision, "fp32"] if same else [precision],  # widening is exact
        device=device.type,
        versions={name: package_version(name) for name in _PACKAGES},
    )
    config = with_dtype(checkpoint.config, how.dtype)
    config["quantization_config"] = settings.to_dict()
    planned = _Plan(checkpoint, checkpoint.folder, config, shards, how, device)
    with quiet_libraries():
        write_folder(planned, target, finish=original.write)
    written = [tensor for shard in read_checkpoint(target).values() for tensor in shard]
    return Quantized(
        folder=target,
        layers=sum(how.concerns(tensor) for tensor in tensors),
        nbytes=sum(tensor.nbytes for tensor in written),
        original_nbytes=sum(tensor.nbytes for tensor in tensors),
    )


def _tensors(checkpoint: Checkpoint) -> list[TensorInfo]:
    """The base's tensors in the order of its files, all that its model has."""
    found = [tensor for shard in read_checkpoint(checkpoint.folder).values() for tensor in shard]
    require_floats(found, checkpoint.name)
    if fault := fit(checkpoint, {tensor.name: tensor.shape for tensor in found}).fault:
        raise CheckpointError(
            f"{checkpoint.name}: {fault}.",
            "Weights and config.json are of different checkpoints, or the copy is incomplete.",
        )
    return found


def _device() -> torch.device:
    """Where loading would quantise: a GPU's arithmetic may differ from the CPU's in a last bit."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# --- layout -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A tensor of the folder.

    Attributes:
        name: Its name.
        dtype: Its dtype.
        shape: Its shape.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class _Job:
    """A tensor of the base, and what becomes of it.

    Attributes:
        tensor: Of the base.
        how: Linear weights are quantised so; all others are kept in its dtype.
    """

    tensor: TensorInfo
    how: FourBit

    @property
    def quantised(self) -> bool:
        """Whether it becomes 4 bit."""
        return self.how.concerns(self.tensor)

    @property
    def parts(self) -> list[_Part]:
        """The tensors that it becomes, but for the state; the one with its numbers comes first."""
        name, shape = self.tensor.name, self.tensor.shape
        if not self.quantised:
            return [_Part(name, self.how.dtype, shape)]
        count = math.prod(shape)
        scales = -(-count // BLOCK)
        dtype = torch.uint8 if self.how.double else torch.float32
        parts = [
            _Part(name, torch.uint8, (-(-count // 2), 1)),
            _Part(f"{name}.absmax", dtype, (scales,)),
            _Part(f"{name}.quant_map", torch.float32, (16,)),
        ]
        if self.how.double:
            nested = -(-scales // SCALES)
            parts.append(_Part(f"{name}.nested_absmax", torch.float32, (nested,)))
            parts.append(_Part(f"{name}.nested_quant_map", torch.float32, (256,)))
        return parts

    @property
    def state(self) -> list[_Part]:
        """The JSON of its state, at its longest; a digit more or less is known at the end only."""
        name = f"{self.tensor.name}.quant_state.bitsandbytes__{self.how.kind}"
        return [_Part(name, torch.uint8, (_STATE_BYTES,))] if self.quantised else []

    @property
    def nbytes(self) -> int:
        """The size of all that it becomes, at most."""
        return sum(part.nbytes for part in (*self.parts, *self.state))


@dataclass(frozen=True)
class _Plan(FolderPlan):
    """A quantised folder, before it is written.

    Attributes:
        shards: What becomes of the base's tensors, by file.
        how: All are quantised so.
        device: What quantises them.
    """

    shards: dict[str, list[_Job]]
    how: FourBit
    device: torch.device

    @property
    def nbytes(self) -> int:
        """The size of all tensors, at most."""
        return sum(job.nbytes for jobs in self.shards.values() for job in jobs)

    def write_weights(self, folder: Path) -> dict[str, str]:
        """Quantise the base's tensors into the folder; none is hashed on the way."""
        _write_shards(folder, self.shards, self.device)
        return {}

    def card(self) -> str:
        """README.md: what this is, and how to load it."""
        return quantized_card(self.base, self.how.kind, dtype_name(self.how.dtype))


# --- writing ----------------------------------------------------------------------------------


def _write_shards(folder: Path, shards: dict[str, list[_Job]], device: torch.device) -> None:
    """Write the weights, and their index if there are several files."""
    weight_map, total = {}, 0
    for name, jobs in shards.items():
        with (folder / name).open("xb") as file:
            parts = _Shard(file, jobs, device).write()
        weight_map.update({part.name: name for part in parts})
        total += sum(part.nbytes for part in parts)
    if list(shards) != [SINGLE]:
        write_index(folder, weight_map, total)


class _Shard:
    """One file of the folder.

    Tensors lie by the size of their numbers, so that each begins at a multiple of it; the states,
    whose lengths are known last, lie behind all others, and the header is written when all is done.

    Args:
        file: New.
        jobs: Its tensors.
        device: What quantises them.
    """

    def __init__(self, file: BinaryIO, jobs: Sequence[_Job], device: torch.device) -> None:
        self._file = file
        self._jobs = jobs
        self._device = device
        self._own = threading.local()
        known = [part for job in jobs for part in job.parts]
        bounds = [part for job in jobs for part in job.state]
        self._parts = sorted(known, key=lambda part: -part.dtype.itemsize)
        self._places: dict[str, int] = {}
        self._end = 0
        for part in self._parts:
            self._places[part.name] = self._end
            self._end += part.nbytes
        most = self._end + sum(part.nbytes for part in bounds)
        longest = [(part.name, part.dtype, part.shape, most) for part in (*known, *bounds)]
        self._header = len(header_bytes(longest))

    def write(self) -> list[_Part]:
        """Write the file; returns the tensors that it holds."""
        threads = torch.get_num_threads()
        cores = len(os.sched_getaffinity(0))
        # Each worker computes by itself: threads that wait for each other at every step of a
        # small chunk take many times as long.
        workers = ThreadPoolExecutor(cores, "quantize", torch.set_num_threads, (1,))
        sources = {job.tensor.file: DirectReader(job.tensor.file) for job in self._jobs}
        waiting: deque[tuple[_Job, list[Future[list[Any]]]]] = deque()
        try:
            for job in self._jobs:
                source = sources[job.tensor.file]
                blocks = [
                    workers.submit(self._block, job, source, start, stop)
                    for start, stop in _ranges(job.tensor)
                ]
                waiting.append((job, blocks))
                if len(waiting) > 1:  # the workers have the next tensor, while this one ends
                    self._finish(*waiting.popleft(), threads)
            while waiting:
                self._finish(*waiting.popleft(), threads)
        finally:
            workers.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
            for source in sources.values():
                source.close()
        placed = [
            (part.name, part.dtype, part.shape, self._places[part.name]) for part in self._parts
        ]
        header = header_bytes(placed, self._header)
        assert len(header) == self._header
        write_at(self._file.fileno(), memoryview(header), 0)
        return self._parts

    def _block(self, job: _Job, source: DirectReader, start: int, stop: int) -> list[Any]:
        """Read numbers ``[start, stop)`` of a tensor and write what becomes of them.

        Returns:
            bitsandbytes' state of each chunk that was quantised.
        """
        tensor, part = job.tensor, job.parts[0]
        itemsize = tensor.dtype.itemsize
        if not hasattr(self._own, "buffer"):
            self._own.buffer = Buffer()
        buffer: Buffer = self._own.buffer
        offset = tensor.offset + start * itemsize
        skip = source.read(buffer, offset, (stop - start) * itemsize, 0)
        numbers = buffer.view(stop - start, tensor.dtype, skip).to(job.how.dtype)
        if count_nonfinite(numbers):
            raise AxtuneError(
                f"{tensor.name} holds numbers that are not finite in {dtype_name(job.how.dtype)} "
                f"({count_nonfinite(numbers):,} or more).",
                "Copy the weights again (their training may have diverged), or choose a wider "
                "precision.",
            )
        if not job.quantised:
            self._put(part.name, start * part.dtype.itemsize, numbers)
            return []
        states = []
        numbers = numbers.to(self._device)
        for chunk in torch.split(numbers, len(numbers) if self._device.type != "cpu" else CHUNK):
            packed, state = _quantize_4bit(chunk, job.how)
            self._put(part.name, start // 2, packed.cpu())
            start += len(chunk)
            states.append(state)
        return states

    def _finish(self, job: _Job, blocks: Sequence[Future[list[Any]]], threads: int) -> None:
        """Wait for a tensor's blocks and write its state."""
        states = [state for block in blocks for state in block.result()]
        if not job.quantised:
            return
        torch.set_num_threads(threads)  # the scales' mean is taken as loading takes it
        state = _whole_state(job, states)
        values: dict[str, torch.Tensor] = state.as_dict(packed=True)
        name = job.tensor.name
        for part in job.parts[1:]:
            value = values.pop(part.name.removeprefix(f"{name}."))
            assert (value.dtype, tuple(value.shape)) == (part.dtype, part.shape), part
            self._put(part.name, 0, value.cpu())
        ((key, value),) = values.items()
        assert len(value) <= _STATE_BYTES
        last = _Part(f"{name}.{key}", torch.uint8, (len(value),))
        self._parts.append(last)
        self._places[last.name] = self._end
        self._end += last.nbytes
        self._put(last.name, 0, value)

    def _put(self, name: str, start: int, numbers: torch.Tensor) -> None:
        """Write numbers from a byte of a tensor on."""
        raw = numbers.contiguous().view(-1).view(torch.uint8).numpy().data
        write_at(self._file.fileno(), raw, self._header + self._places[name] + start)


def _ranges(tensor: TensorInfo) -> list[tuple[int, int]]:
    """Ranges of its numbers, of whole blocks, of about the size that is read at once."""
    count = math.prod(tensor.shape)
    step = BLOCK_BYTES // tensor.dtype.itemsize // BLOCK * BLOCK
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def _quantize_4bit(numbers: torch.Tensor, how: FourBit) -> tuple[torch.Tensor, Any]:
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(numbers, blocksize=BLOCK, quant_type=how.kind)
    return packed, state


def _whole_state(job: _Job, states: Sequence[Any]) -> Any:
    """A tensor's state from those of its chunks, as ``quantize_4bit`` makes it of the whole."""
    from bitsandbytes.functional import QuantState, quantize_blockwise

    absmax = torch.cat([state.absmax for state in states])
    nested = {}
    if job.how.double:
        offset = absmax.mean()
        absmax, state = quantize_blockwise(absmax - offset, blocksize=SCALES)
        nested = {"offset": offset, "state2": state}
    return QuantState(
        absmax=absmax,
        shape=torch.Size(job.tensor.shape),
        code=states[0].code,
        blocksize=BLOCK,
        quant_type=job.how.kind,
        dtype=job.how.dtype,
        **nested,
    )
