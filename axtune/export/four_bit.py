"""A checkpoint with its linear layers in 4 bit, in one pass over its layers.

A layer's weights are made, the calibration rows go through it and leave the second moments of what
its linear layers see, these are rounded (`axtune.weights.gptq`), and the rows go through it again,
so that the next layer is rounded for what it will see. Each layer has a file of its own, written
when it is done: an interrupted pass goes on behind the last of them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from axtune.checkpoint.locate import INDEX
from axtune.checkpoint.run_dir import Run
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.errors import AxtuneError
from axtune.export.calibration import (
    Calibration,
    Counting,
    RoundingOptions,
    rounding_facts,
)
from axtune.export.layer_pass import LayerPass, counted, stopped_at, write_tensors
from axtune.model.dtypes import stated_dtype
from axtune.model.int4 import Int4, group_of, quantization_config, round_to_nearest
from axtune.weights import gptq
from axtune.weights.decoder import LINEAR, SAME_INPUTS, Decoder, watched
from axtune.weights.folder import (
    CheckpointPlan,
    FolderPlan,
    certified,
    public_name,
    served_card,
)
from axtune.weights.output_tensor import OutputTensor, in_memory
from axtune.weights.safetensors_file import read_header
from axtune.weights.stream_writer import write_checkpoint, write_index

# In the folder while it is being written: what a pass keeps, and that all but the layers is done.
_WORK, _REST = ".work", "rest-is-written"

_LAYER = re.compile(r"model\.layers\.(\d+)\.")
# The second moment of a layer with more inputs is kept in blocks of at most so many on a CPU, where
# factoring the 18,944 of A.X 4.0's whole takes 100 s a layer and four blocks of 4,736 a few, and on
# a card that has no room for the whole with what factoring makes of it.
_WIDE, _BLOCK = 12_288, 5_120
_ALIVE = 4  # square matrices in float32
_NUMBERS_AT_ONCE = 1 << 22  # of a weight that is rounded to nearest


@dataclass(frozen=True)
class FourBitPlan(FolderPlan):
    """A folder in 4 bit, before it is written.

    Attributes:
        pieces: The tensors of the 16-bit checkpoint that it stands for.
        title: Of its card.
        runs: That its weights come from.
        group: Inputs that share a scale.
        calibration: The rows that it is rounded by; None to round to nearest.
        facts: What its record says of how it was made.
        counting: Shows how many linear layers are done.
    """

    pieces: Sequence[OutputTensor]
    title: str
    runs: Sequence[Run]
    group: int
    calibration: Calibration | None
    facts: Mapping[str, Any]
    counting: Counting

    @property
    def nbytes(self) -> int:
        """The size of all tensors."""
        return sum(map(self._nbytes, self.pieces))

    @property
    def resumes(self) -> str:
        """What an interrupted pass must have been of, so that its layers are these."""
        shapes = [(piece.name, piece.shape, str(piece.dtype)) for piece in self.pieces]
        text = json.dumps([self.facts, self.config, shapes], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def record_facts(self) -> Mapping[str, Any]:
        """How it was made, under ``four_bit``."""
        return {"four_bit": dict(self.facts)}

    def card(self) -> str:
        """README.md: what this is, and how to load it."""
        tags = ["compressed-tensors", "w4a16", self.facts["method"]]
        return served_card(self.title, self.runs, library="vllm", tags=tags, rounded=self._scheme())

    def _scheme(self) -> str:
        how = "rounded to nearest, without calibration"
        if self.calibration:
            how = f"by GPTQ, calibrated on {self.calibration.size}"
        rest = stated_dtype(self.config)
        measured = certified(
            "How far its answers are from those of the 16-bit weights is measured by `axtune "
            "verify THIS_FOLDER`, which was not run yet."
        )
        return (
            f"Its linear layers are in 4 bit (compressed-tensors, W4A16): {how}; groups of "
            f"{self.group} inputs share a scale. Embeddings and head are in {rest}. It was rounded "
            f"from the 16-bit weights of {public_name(self.base)}"
            f"{' with its adapter merged' if self.facts['adapters'] else ''}.\n\n{measured}"
        )

    @property
    def learned_documents(self) -> bool:
        """Whether one of its runs did."""
        return any(run.learned_documents for run in self.runs)

    def write_weights(self, folder: Path) -> dict[str, str]:
        """Round and write the layers, those behind the last one that is there already."""
        work = folder / _WORK
        if (folder / INDEX).is_file() and not work.is_dir():
            return {}  # interrupted behind the last layer
        work.mkdir(exist_ok=True)
        layers = 1 + max(int(found[1]) for p in self.pieces if (found := _LAYER.match(p.name)))
        names = [f"model-{n:05d}-of-{layers + 1:05d}.safetensors" for n in range(1, layers + 2)]
        if not (work / _REST).is_file():
            (folder / names[-1]).unlink(missing_ok=True)
            others = [piece for piece in self.pieces if not _LAYER.match(piece.name)]
            write_checkpoint(folder, {names[-1]: others})
            (work / _REST).touch()
        if self.calibration:
            decoder = Decoder(self.config, self.pieces, torch.device(self.facts["device"]))
            rounding: _Rounding = _ByRows(decoder, self.calibration, self.group, work)
        else:
            rounding = _Rounding(self.pieces, self.group)
        begins_at = rounding.begins_at([folder / name for name in names[:-1]])
        what = counted("linear layers in 4 bit", begins_at, layers)
        linear = [found for p in self.pieces if (found := LINEAR.fullmatch(p.name))]
        left = sum(int(found[1]) >= begins_at for found in linear)
        with self.counting(what, left) as count:
            for index in range(begins_at, layers):
                with stopped_at(index, layers):
                    write_tensors(folder / names[index], rounding.layer(index, count))
                    rounding.keep(index)
        written = {tensor.name: name for name in names for tensor in read_header(folder / name)}
        write_index(folder, written, self.nbytes)
        shutil.rmtree(work)
        return {}

    def _nbytes(self, piece: OutputTensor) -> int:
        if not LINEAR.fullmatch(piece.name):
            return piece.nbytes
        rows, width = piece.shape
        return rows * width // 2 + rows * (width // self.group) * piece.dtype.itemsize + 16


@dataclass(frozen=True)
class FourBitOptions(RoundingOptions):
    """How an export in 4 bit is made.

    Attributes:
        group: Inputs that share a scale: 128, 64 or 32; None for the largest that divides all
            layers.
    """

    group: int | None = None


def in_four_bit(
    planned: CheckpointPlan, tokenizer: AxTokenizer, title: str, options: FourBitOptions
) -> FourBitPlan:
    """The same checkpoint with its linear layers in 4 bit.

    Args:
        planned: In 16 bit, in the layout that is served.
        tokenizer: Its own.
        title: Of its card.
        options: How.

    Raises:
        AxtuneError: When there is nothing to calibrate on, or the layers cannot be rounded so.
    """
    pieces = [piece for shard in planned.shards.values() for piece in shard]
    group = _group(pieces, options.group, planned.base.name)
    calibration = options.calibration(planned, tokenizer)
    facts = {
        "method": "gptq" if calibration else "rtn",
        "bits": 4,
        "group": group,
        **rounding_facts(planned, calibration),
    }
    return FourBitPlan(
        base=planned.base,
        tokenizer_folder=planned.tokenizer_folder,
        config={**planned.config, "quantization_config": quantization_config(group)},
        pieces=pieces,
        title=title,
        runs=planned.runs(),
        group=group,
        calibration=calibration,
        facts=facts,
        counting=options.counting,
    )


def _group(pieces: Sequence[OutputTensor], wanted: int | None, name: str) -> int:
    """The group of all linear layers of a checkpoint.

    Args:
        pieces: Its tensors.
        wanted: 128, 64 or 32; None for the largest.
        name: The checkpoint's.

    Raises:
        AxtuneError: When a layer's inputs cannot be divided so.
    """
    linear = [piece for piece in pieces if LINEAR.fullmatch(piece.name)]
    if not linear:
        raise AxtuneError(
            f"{name} has no linear layers of the names that Llama and Qwen2 models give them.",
            "Export it in 16 bit: leave --bits out.",
        )
    groups = {piece.name: group_of(piece.shape[1], wanted) for piece in linear}
    if strange := next((piece for piece in linear if groups[piece.name] is None), None):
        raise AxtuneError(
            f"{strange.name} has {strange.shape[1]} inputs, which groups of 32 do not divide.",
            "Export it in 16 bit: leave --bits out.",
        )
    return min(group for group in groups.values() if group)


class _Rounding:
    """Rounds each number of a layer to the nearest that its group has.

    Args:
        pieces: The checkpoint's tensors.
        group: Inputs that share a scale.
    """

    def __init__(self, pieces: Sequence[OutputTensor], group: int) -> None:
        self._pieces = pieces
        self._group = group

    def begins_at(self, files: Sequence[Path]) -> int:
        """The first layer that an interrupted pass left to do.

        Args:
            files: Of the layers.
        """
        return next((index for index, file in enumerate(files) if not file.is_file()), len(files))

    def layer(self, index: int, count: Callable[[], None]) -> dict[str, torch.Tensor]:
        """The tensors of a layer, in 4 bit those of its linear layers.

        Args:
            index: Of the layer.
            count: Called for each of its linear layers.
        """
        tensors: dict[str, torch.Tensor] = {}
        for piece in self._pieces:
            if piece.name.startswith(f"model.layers.{index}."):
                if LINEAR.fullmatch(piece.name):
                    tensors |= _named(piece.name, self._nearest(piece))
                    count()
                else:
                    tensors[piece.name] = in_memory(piece)
        return tensors

    def keep(self, index: int) -> None:
        """Note that a layer is written."""

    def _nearest(self, piece: OutputTensor) -> Int4:
        step = max(1, _NUMBERS_AT_ONCE // piece.shape[1])
        parts = [
            round_to_nearest(
                in_memory(piece, start, min(start + step, piece.shape[0])).float(),
                self._group,
                piece.dtype,
            )
            for start in range(0, piece.shape[0], step)
        ]
        return Int4(
            torch.cat([part.numbers for part in parts]), torch.cat([part.scales for part in parts])
        )


class _ByRows(_Rounding):
    """Rounds the layers by what calibration rows show them, in order.

    Args:
        decoder: The checkpoint's layers.
        calibration: The rows.
        group: Inputs that share a scale.
        work: A folder for what goes into the next layer.
    """

    def __init__(self, decoder: Decoder, calibration: Calibration, group: int, work: Path) -> None:
        super().__init__(decoder.pieces, group)
        self._decoder = decoder
        self._rows = LayerPass(decoder, calibration.sequences, work)

    def begins_at(self, files: Sequence[Path]) -> int:
        """As `_Rounding.begins_at`: what enters the layer has to be known as well."""
        return self._rows.begins_at

    def layer(self, index: int, count: Callable[[], None]) -> dict[str, torch.Tensor]:
        """As `_Rounding.layer`; what goes into the next one is what comes out of these weights."""
        layer = self._decoder.layer(index)
        moments = self._moments(layer, index)
        tensors: dict[str, torch.Tensor] = {}
        for names in SAME_INPUTS:
            try:
                factors = moments.pop(names[0]).factor()
            except gptq.Singular:
                raise AxtuneError(
                    f"What goes into model.layers.{index}.{names[0]} is not finite, or nothing "
                    "but zeros.",
                    "The training of this model diverged, or its base is broken; use an earlier "
                    "checkpoint.",
                ) from None
            for name in names:
                full = f"model.layers.{index}.{name}.weight"
                linear: Any = layer.get_submodule(name)
                dtype = self._decoder.piece(full).dtype
                rounded = gptq.gptq(linear.weight.data, factors, self._group, dtype)
                linear.weight.data = rounded.dequantized().float()
                tensors |= _named(full, rounded)
                count()
        for name in self._decoder.names(index):
            if not LINEAR.fullmatch(name):
                tensors[name] = in_memory(self._decoder.piece(name))
        self._rows.states = list(self._decoder.run(layer, self._rows.states))
        self._decoder.require_finite(index, self._rows.states)
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}

    def keep(self, index: int) -> None:
        """Write down what goes into the next layer."""
        self._rows.keep(index)

    def _moments(self, layer: torch.nn.Module, index: int) -> dict[str, gptq.SecondMoment]:
        """Of the inputs of a layer's linear layers, by the first of those that share them."""
        moments = {}
        for names in SAME_INPUTS:
            linear: Any = layer.get_submodule(names[0])
            width: int = linear.in_features
            moments[names[0]] = gptq.SecondMoment(width, self._blocks(width), self._decoder.device)
        with watched(layer, lambda names, inputs: moments[names[0]].add(inputs)):
            for _ in self._decoder.run(layer, self._rows.states):
                pass
        return moments

    def _blocks(self, width: int) -> int:
        if width <= _WIDE:
            return 1
        if self._decoder.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info()
            if _ALIVE * 4 * width**2 < free:
                return 1
        groups = width // self._group
        fits = (n for n in range(2, groups + 1) if groups % n == 0 and width / n <= _BLOCK)
        return next(fits, 1)


def _named(name: str, rounded: Int4) -> dict[str, torch.Tensor]:
    """The three tensors of a linear layer, by their names."""
    module = name.removesuffix("weight")
    return {f"{module}{part}": tensor for part, tensor in rounded.tensors().items()}
