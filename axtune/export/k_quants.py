"""A GGUF file in llama.cpp's K-quants: Q4_K_M, Q5_K_M and Q6_K.

A file in the checkpoint's own dtype is written first, and llama.cpp's quantiser makes the other one
of it. It rounds so that least is lost where the inputs are large: its importance matrix has for
each input of a linear layer the mean of its squares, over calibration rows that go through the
checkpoint's layers in 16 bit. Embeddings and head have none, as with llama.cpp's own tool. An
interrupted export goes on behind the last layer that was seen, or behind the last of its files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from axtune.checkpoint.atomic import written_whole
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.errors import AxtuneError, MissingPackageError
from axtune.export.calibration import (
    Calibration,
    Counting,
    RoundingOptions,
    device,
    rounding_facts,
)
from axtune.export.gguf import (
    Numbers,
    complete_config,
    gguf_file,
    matrix_dtypes,
    tensor_names,
)
from axtune.export.layer_pass import LayerPass, counted, stopped_at, write_tensors
from axtune.plan.architecture import read_architecture
from axtune.plan.serving import FALLS_BACK, KQuant, weight_bytes
from axtune.units import gigabytes, package_version
from axtune.weights.decoder import Decoder, watched
from axtune.weights.folder import CheckpointPlan
from axtune.weights.stream_writer import File, write_files

_PROGRAM = Path(__file__).with_name("llama_quantizer.py")

# In the folder while it is being written: what a pass keeps, its outcome, and both files.
_WORK = ".work"
_MATRIX, _UNROUNDED, _ROUNDED = "importance.safetensors", "unrounded.gguf", "rounded.gguf"
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

    @property
    def resumes(self) -> str:
        """What an interrupted export must have been of, so that what it left is this one's."""
        header = hashlib.sha256(self.file.header).hexdigest()
        text = json.dumps([self.facts(), str(self.file.path), header], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """What a record says of it, under ``gguf``."""
        facts = rounding_facts(self.planned, self.calibration)
        program = "llama-cpp-python"
        facts["versions"] |= {program: package_version(program)}
        return {"gguf": {"type": self.kind, **facts}}

    def scheme(self) -> str:
        """How its numbers are rounded, for a card."""
        how = "without an importance matrix"
        if self.calibration:
            on = self.calibration.size
            how = f"with an importance matrix that was calibrated on {on}"
        return (
            f"The matrices of the GGUF file are in llama.cpp's {self.kind.upper()}, rounded {how} "
            "from the 16-bit weights. What that costs was not measured here: `axtune eval RUN "
            "--url URL` asks the server that runs it."
        )

    def write(self, folder: Path) -> tuple[str, ...]:
        """Write it into a folder that has room for both files, or go on with what is there.

        Returns:
            Which tensors have another type than their kind of file gives them, a sentence each.

        Raises:
            AxtuneError: When a weight or what comes out of a layer is not finite, or llama.cpp
                fails.
            OSError: When the disk fills up.
        """
        work, written = folder / _WORK, folder / self.file.path
        if not written.is_file():
            work.mkdir(exist_ok=True)
            self._round(work).rename(written)
        shutil.rmtree(work, ignore_errors=True)
        return fallen_back(written, self.kind)

    def _round(self, work: Path) -> Path:
        """Matrix, file and rounded file, those that are not in the folder yet; the last of them."""
        matrix = None
        if self.calibration:
            matrix = work / _MATRIX
            if not matrix.is_file():
                found = importance(self.planned, self.calibration, self.counting, work)
                write_tensors(matrix, found)
        unrounded, rounded = work / _UNROUNDED, work / _ROUNDED
        if not unrounded.is_file():
            with written_whole(unrounded) as part:
                write_files([dataclasses.replace(self.file, path=part)])
        with self.counting(f"tensors in {self.kind}", len(self.file.pieces)) as count:
            for line in _quantizing(unrounded, rounded, self.kind, matrix):
                if _TENSOR.match(line):
                    count()
        return rounded


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
    planned: CheckpointPlan, calibration: Calibration, counting: Counting, work: Path
) -> dict[str, torch.Tensor]:
    """How much each input of the linear layers counts, the mean of its squares.

    Args:
        planned: The checkpoint, in 16 bit; a layer at a time is in memory.
        calibration: The rows.
        counting: Shows how many rows went through how many layers.
        work: A folder in which an interrupted pass is kept.

    Returns:
        (inputs,) in float32 by the name that llama.cpp has for a layer's weight.

    Raises:
        AxtuneError: When a weight, or what comes out of a layer, is not finite.
    """
    names = tensor_names(complete_config(planned))
    pieces = [piece for shard in planned.shards.values() for piece in shard]
    decoder = Decoder(planned.config, pieces, torch.device(device()))
    rows, layers = LayerPass(decoder, calibration.sequences, work), len(decoder)
    what = counted("rows through layers", rows.begins_at, layers)
    with counting(what, (layers - rows.begins_at) * len(rows.states)) as count:
        for index in range(rows.begins_at, layers):
            with stopped_at(index, layers):
                for modules, total in _squares(decoder, index, rows, count).items():
                    mean = _never_zero(total / calibration.tokens).cpu()
                    for module in modules:
                        name = f"model.layers.{index}.{module}.weight"
                        ours = str(names.get_name(name, try_suffixes=(".weight",)))
                        rows.found[ours] = mean.clone()
                rows.keep(index)
    return rows.found


def _squares(
    decoder: Decoder, index: int, rows: LayerPass, count: Callable[[], None]
) -> Mapping[Sequence[str], torch.Tensor]:
    """Rows go through a layer: the sums of the squares of what its linear layers see."""
    squares: defaultdict[Sequence[str], Any] = defaultdict(int)

    def add(modules: Sequence[str], inputs: torch.Tensor) -> None:
        squares[modules] += inputs.square().sum(dim=0)

    layer, states = decoder.layer(index), []
    with watched(layer, add):
        for state in decoder.run(layer, rows.states):
            states.append(state)
            count()
    decoder.require_finite(index, states)
    rows.states = states
    return squares


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
    _require_room(target)
    how = "failed"
    if process.returncode < 0:
        how = f"was ended by {signal.Signals(-process.returncode).name}"
    raise AxtuneError(
        f"llama.cpp's quantiser {how}; the last that it said: "
        f"{last.decode(errors='replace') or 'nothing'}",
        "If memory ran out, free some. Other releases of llama-cpp-python may do better; "
        "--dtype q8_0 does without.",
    )


def _require_room(file: Path) -> None:
    """llama.cpp does not say what it could not write for: a little more is written to its file.

    Raises:
        OSError: When the disk is full, or the file may not become larger.
    """
    with file.open("ab") as stream:
        stream.write(bytes(_PROBE_BYTES))
        stream.flush()
        os.fsync(stream.fileno())
