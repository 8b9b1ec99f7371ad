"""A GGUF file in llama.cpp's K-quants: Q4_K_M, Q5_K_M and Q6_K.

A file in the checkpoint's own dtype is written first, and llama.cpp's quantiser makes the other one
of it. It rounds so that least is lost where the inputs are large: its importance matrix has for
each input of a linear layer the mean of its squares, over calibration rows that go through the
checkpoint's layers in 16 bit. Embeddings and head have none, as with llama.cpp's own tool.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from axtune.checkpoint.leftovers import scratch
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.errors import AxtuneError, MissingPackageError
from axtune.export.calibration import Calibration, Counting, RoundingOptions, device, rounding_facts
from axtune.export.gguf import (
    Numbers,
    complete_config,
    gguf_file,
    matrix_dtypes,
    tensor_names,
)
from axtune.plan.architecture import read_architecture
from axtune.plan.serving import FALLS_BACK, KQuant, weight_bytes
from axtune.units import gigabytes, package_version
from axtune.weights.decoder import Decoder, watched
from axtune.weights.folder import CheckpointPlan
from axtune.weights.stream_writer import File, write_files

_PROGRAM = Path(__file__).with_name("llama_quantizer.py")

_UNROUNDED = ".unrounded.gguf"  # in the folder while it is being written
# What most of a file's matrices become.
K_QUANTS: dict[KQuant, str] = {"q4_k_m": "Q4_K", "q5_k_m": "Q5_K", "q6_k": "Q6_K"}
_TENSOR = re.compile(rb"\[ *\d+/ *\d+\] ")  # a line that llama.cpp logs for each
# Of the mean importance, the least that an input has: what the rows never used may be used yet,
# and a block of nothing else would be rounded to zeros.
_LEAST = 1e-6
_PROBE_BYTES = 1 << 20


@dataclass(frozen=True)
class KQuantPlan:
    """A file in K-quants, before it is written.

    Attributes:
        planned: The checkpoint that it is of.
        file: The same in the checkpoint's own dtype.
        kind: What its matrices become.
        calibration: The rows that it is rounded by; None rounds without.
        counting: Shows how much is done.
    """

    planned: CheckpointPlan
    file: File
    kind: KQuant
    calibration: Calibration | None
    counting: Counting

    @property
    def needed(self) -> int:
        """Bytes on the disk at most, while it is being written."""
        model = read_architecture(complete_config(self.planned), self.planned.base.name)
        return self.file.size + len(self.file.header) + int(weight_bytes(self.kind, model))

    def facts(self) -> dict[str, Any]:
        """What a record says of it, under ``gguf``."""
        facts = rounding_facts(self.planned, self.calibration)
        program = "llama-cpp-python"
        facts["versions"] |= {program: package_version(program)}
        return {"gguf": {"type": self.kind, **facts}}

    def write(self, folder: Path) -> tuple[str, ...]:
        """Write it into a folder that has room for both files.

        Returns:
            Which tensors have another type than their kind of file gives them, a sentence each.

        Raises:
            AxtuneError: When a weight or what comes out of a layer is not finite, or llama.cpp
                fails.
            OSError: When the disk fills up.
        """
        unrounded, written = folder / _UNROUNDED, folder / self.file.path
        with scratch() as place:
            matrix = None
            if self.calibration:
                matrix = place / "importance.safetensors"
                save_file(importance(self.planned, self.calibration, self.counting), matrix)
            write_files([dataclasses.replace(self.file, path=unrounded)])
            with self.counting(f"tensors in {self.kind}", len(self.file.pieces)) as count:
                for line in _quantizing(unrounded, written, self.kind, matrix):
                    if _TENSOR.match(line):
                        count()
        unrounded.unlink()
        return fallen_back(written, self.kind)


def k_quants(
    planned: CheckpointPlan,
    tokenizer: AxTokenizer,
    name: str,
    kind: KQuant,
    options: RoundingOptions,
) -> KQuantPlan:
    """Everything about a file in K-quants but its numbers.

    Args:
        planned: The checkpoint that it is to hold.
        tokenizer: The checkpoint's.
        name: Of the model; the file's path is ``name.gguf``.
        kind: What its matrices become.
        options: How.

    Raises:
        MissingPackageError: When gguf or llama-cpp-python is not installed.
        AxtuneError: As `axtune.export.gguf.gguf_file`; also when there is nothing to calibrate on.
    """
    dtypes = matrix_dtypes(planned)
    own: Numbers | None = None if len(dtypes) == 1 else "float32"
    file = gguf_file(planned, tokenizer, name, own)
    if importlib.util.find_spec("llama_cpp") is None:
        raise MissingPackageError(
            f"{kind} is written by llama.cpp: it needs the package llama-cpp-python, which is not "
            "installed.",
            "Run `pip install 'axtune[gguf]'`, or `pip install llama-cpp-python`; or use "
            "--dtype q8_0, which needs no more than gguf.",
        )
    calibration = options.calibration(planned, tokenizer)
    return KQuantPlan(planned, file, kind, calibration, options.counting)


def importance(
    planned: CheckpointPlan, calibration: Calibration, counting: Counting
) -> dict[str, np.ndarray[Any, Any]]:
    """How much each input of the linear layers counts, the mean of its squares.

    Args:
        planned: The checkpoint, in 16 bit; a layer at a time is in memory.
        calibration: The rows.
        counting: Shows how many layers are done.

    Returns:
        (inputs,) in float32 by the name that llama.cpp has for a layer's weight.

    Raises:
        AxtuneError: When a weight, or what comes out of a layer, is not finite.
    """
    names = tensor_names(complete_config(planned))
    pieces = [piece for shard in planned.shards.values() for piece in shard]
    decoder = Decoder(planned.config, pieces, torch.device(device()))
    states = decoder.embed(calibration.sequences)
    found = {}
    with counting("layers seen", len(decoder)) as count:
        for index in range(len(decoder)):
            squares: defaultdict[Sequence[str], Any] = defaultdict(int)

            def add(
                modules: Sequence[str],
                inputs: torch.Tensor,
                squares: defaultdict[Sequence[str], Any] = squares,
            ) -> None:
                squares[modules] += inputs.square().sum(dim=0)

            layer = decoder.layer(index)
            with watched(layer, add):
                states = list(decoder.run(layer, states))
            decoder.require_finite(index, states)
            for modules, total in squares.items():
                values = _never_zero(total / calibration.tokens).cpu().numpy()
                for module in modules:
                    name = f"model.layers.{index}.{module}.weight"
                    found[str(names.get_name(name, try_suffixes=(".weight",)))] = values
            count()
    return found


def _never_zero(mean: torch.Tensor) -> torch.Tensor:
    least = _LEAST * float(mean.mean())
    return mean.clamp(min=least) if least > 0 else torch.ones_like(mean)


def fallen_back(file: Path, kind: KQuant) -> tuple[str, ...]:
    """Tensors whose rows a K-quant cannot pack, and what their other type costs; a sentence each.

    Args:
        file: In K-quants.
        kind: Of the file.
    """
    import gguf

    wanted_of = {other: wanted for wanted, other in FALLS_BACK.items()}
    counts: Counter[tuple[str, str, int, str]] = Counter()
    costs: Counter[tuple[str, str, int]] = Counter()
    for tensor in gguf.GGUFReader(file).tensors:
        width = int(tensor.shape[0])
        got = tensor.tensor_type.name
        wanted = wanted_of.get(got, K_QUANTS[kind])
        count, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[wanted]]
        if len(tensor.shape) > 1 and width % count:
            counts[got, wanted, width, re.sub(r"^blk\.\d+\.", "", tensor.name)] += 1
            costs[got, wanted, width] += tensor.n_bytes - tensor.n_elements * nbytes // count
    notes = []
    for (got, wanted, width), cost in costs.items():
        tensors = ", ".join(
            f"{number} of {name}" if number > 1 else name
            for (*key, name), number in counts.items()
            if key == [got, wanted, width]
        )
        notes.append(
            f"{tensors} in {got.lower()} instead of {wanted.lower()}, {gigabytes(cost)} more: rows "
            f"of {width:,} are no multiple of 256."
        )
    return tuple(notes)


def _quantizing(source: Path, target: Path, kind: KQuant, matrix: Path | None) -> Iterator[bytes]:
    """llama.cpp's quantiser at work, in a process that may crash; gives the lines that it logs.

    Raises:
        AxtuneError: When it fails.
        OSError: When that is for a full disk.
    """
    words = [str(source), str(target), kind.upper(), str(torch.get_num_threads())]
    last = b""
    with subprocess.Popen(
        [sys.executable, "-P", str(_PROGRAM), *words, str(matrix or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            for line in process.stderr or ():
                last = line.strip() or last
                yield line
        except BaseException:
            process.kill()
            raise
    if not process.returncode:
        return
    _require_room(target.parent)
    how = "failed"
    if process.returncode < 0:
        how = f"was ended by {signal.Signals(-process.returncode).name}"
    raise AxtuneError(
        f"llama.cpp's quantiser {how}; the last that it said: "
        f"{last.decode(errors='replace') or 'nothing'}",
        "If memory ran out, free some. Other releases of llama-cpp-python may do better; "
        "--dtype q8_0 does without.",
    )


def _require_room(folder: Path) -> None:
    """llama.cpp does not say what it could not write for.

    Raises:
        OSError: When the disk is full.
    """
    probe = folder / ".probe"
    probe.write_bytes(bytes(_PROBE_BYTES))
    probe.unlink()
