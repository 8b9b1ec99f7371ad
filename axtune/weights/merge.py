"""Adapter and base become one checkpoint, at the speed of the disk.

The base is streamed from its shards, the delta is added in float32 and the sum rounded once to the
base's dtype. Tensors that no adapter changes, tokenizer and template are copied byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from axtune.checkpoint import locate
from axtune.checkpoint.adapter_layers import EMBEDDING, HEAD
from axtune.checkpoint.atomic import refuse_existing
from axtune.checkpoint.base import find_base, run_of
from axtune.checkpoint.families import LAYOUTS
from axtune.checkpoint.locate import Checkpoint, read_json
from axtune.checkpoint.provenance import base_digests, differing_files, original_of
from axtune.checkpoint.run_dir import Run
from axtune.errors import AxtuneError, CheckpointError
from axtune.plan.architecture import Architecture, read_architecture
from axtune.units import plural
from axtune.weights.folder import CheckpointPlan, write_folder
from axtune.weights.lora_delta import (
    Change,
    SavedAdapter,
    changes,
    open_adapter,
)
from axtune.weights.nf4 import FourBit, four_bit, rounding
from axtune.weights.output_tensor import OutputTensor, Shards, Step
from axtune.weights.safetensors_file import TensorInfo, read_checkpoint, require_floats

Into = Literal["16bit", "nf4"]

_HOW_TEXT_IS_CUT = ("normalizer", "pre_tokenizer")


@dataclass(frozen=True)
class Merged:
    """A merged checkpoint that was written.

    Attributes:
        folder: Where.
        tensors: How many it has.
        changed: How many of them differ from the base's.
        nbytes: The size of all tensors.
        notes: What a user should know, a sentence each.
    """

    folder: Path
    tensors: int
    changed: int
    nbytes: int
    notes: tuple[str, ...]


def merge(
    adapters: Sequence[str | Path],
    base: str | None,
    out: str | Path,
    *,
    into: Into = "16bit",
    weights: Sequence[float] | None = None,
) -> Merged:
    """Merge adapters into their base.

    Args:
        adapters: Run folders, or folders that PEFT saved.
        base: The base, as `axtune.checkpoint.locate.find` takes it, or a folder quantised from it,
            which stands for its original; None takes the one that the first adapter was trained on.
        out: The folder to produce; it appears whole or not at all.
        into: ``16bit`` adds the deltas to the base's own weights; ``nf4`` to the weights that a
            QLoRA run trained on, rounded to 4 bit and back as its recipe says.
        weights: What each delta is multiplied by; 1 for all, unless given.

    Returns:
        What was written.

    Raises:
        AxtuneError: When `out` exists, an adapter is of another base or broken, files are missing,
            or the disk is too small. Nothing is left behind then.
    """
    target = Path(out)
    refuse_existing(target)
    planned = plan(adapters, base, into=into, weights=weights)
    write_folder(planned, target)
    return Merged(
        folder=target,
        tensors=sum(len(pieces) for pieces in planned.shards.values()),
        changed=planned.changed,
        nbytes=planned.nbytes,
        notes=planned.notes,
    )


def plan(
    adapters: Sequence[str | Path],
    base: str | None,
    *,
    into: Into = "16bit",
    weights: Sequence[float] | None = None,
) -> CheckpointPlan:
    """Everything about a merged checkpoint but its numbers; no adapters give the base itself.

    Raises:
        AxtuneError: As `merge`.
    """
    factors = list(weights) if weights is not None else [1.0] * len(adapters)
    if len(factors) != len(adapters):
        raise AxtuneError(
            f"{plural(len(factors), 'weight')} for {plural(len(adapters), 'adapter')}; "
            "expected one for each.",
            "Give --weight once for each adapter, in their order.",
        )
    runs = [run_of(Path(path)) for path in adapters]
    folders = [run.adapter if run else Path(path) for run, path in zip(runs, adapters, strict=True)]
    opened = [open_adapter(path, factor) for path, factor in zip(folders, factors, strict=True)]
    if folders:
        checkpoint = find_base(base, runs[0], folders[0])
    elif base is not None:
        checkpoint = locate.find(base)
    else:
        raise AxtuneError("There is nothing to write: no adapter and no base.", "Give one of them.")
    if made_from := original_of(checkpoint):
        raise CheckpointError(
            f"{checkpoint.name} is quantised; expected 16-bit weights to write from.",
            f"Give the original: {made_from.name}.",
        )
    for run in runs:
        if run:
            _check_digests(run, checkpoint)
    settings = _settings(runs, into)

    stored = read_checkpoint(checkpoint.folder)
    tensors = {tensor.name: tensor for shard in stored.values() for tensor in shard}
    require_floats(tensors.values(), checkpoint.name)
    tied = _is_tied(checkpoint, tensors)
    _require_declared_shapes(checkpoint, tensors)
    found = changes(opened, tensors, checkpoint.name, tied=tied)
    shards = {
        name: [_piece(tensor, found.get(tensor.name), settings) for tensor in shard]
        for name, shard in stored.items()
    }
    config = dict(checkpoint.config)
    if tied and HEAD in found:
        source = tensors[EMBEDDING]
        head = TensorInfo(HEAD, source.dtype, source.shape, source.file, source.offset)
        shards[list(shards)[-1]].append(_piece(head, found[HEAD], None))
        config["tie_word_embeddings"] = False
    tokenizer_folder = checkpoint.folder
    sizes = {change.shape[0] for name in (EMBEDDING, HEAD) if (change := found.get(name))}
    if sizes - {tensors[EMBEDDING].shape[0]}:
        tokenizer_folder = _resized(config, shards, checkpoint, folders)
    return CheckpointPlan(
        base=checkpoint,
        tokenizer_folder=tokenizer_folder,
        config=config,
        shards=shards,
        adapters=tuple(folders),
        changed=len(found),
        notes=(*_notes(runs, into), *_idle(opened)),
    )


def _check_digests(run: Run, base: Checkpoint) -> None:
    """The base must be, file by file, what the run was trained on."""
    expected: dict[str, str] = run.manifest.get("base", {}).get("digests", {})
    if differing := differing_files(expected, base_digests(base.folder)):
        trained_on = run.manifest.get("base", {}).get("name")
        raise AxtuneError(
            f"The run {run.path} is on another base: {', '.join(differing)} of {base.name} "
            f"{'differs' if len(differing) == 1 else 'differ'} from the files it was trained on.",
            f"It was trained on {trained_on}; give exactly those files with --base.",
        )


def _settings(runs: Sequence[Run | None], into: Into) -> FourBit | None:
    if into == "16bit":
        return None
    found = set()
    for run in runs:
        if run is None or run.recipe.quantization is None:
            raise AxtuneError(
                "Merging into 4-bit weights needs a run that was trained on them: "
                + ("this one was not." if run else "an adapter alone does not say how they were."),
                "Merge it with --into 16bit" + (", or give the run folder." if not run else "."),
            )
        found.add(four_bit(run.recipe.quantization, str(run.manifest.get("precision"))))
    if len(found) != 1:
        raise AxtuneError(
            "The runs were trained on different 4-bit weights; expected one kind for all.",
            "Merge them into the 16-bit weights: --into 16bit.",
        )
    return found.pop()


def _is_tied(base: Checkpoint, tensors: Mapping[str, TensorInfo]) -> bool:
    if EMBEDDING not in tensors:
        raise CheckpointError(f"{base.name} lacks {EMBEDDING}.", "Copy the checkpoint again.")
    if HEAD in tensors:
        return False
    if not base.config.get("tie_word_embeddings"):
        raise CheckpointError(
            f"{base.name} lacks {HEAD}, and its config.json does not tie it to the embeddings.",
            "Copy the checkpoint again, its config.json included.",
        )
    return True


def _require_declared_shapes(base: Checkpoint, tensors: Mapping[str, TensorInfo]) -> None:
    """The tensors must be those of the model that config.json describes, where it is one we know.

    `axtune.model.shapes` asks transformers, whose import takes longer than a small merge.
    """
    if base.config.get("model_type") not in LAYOUTS:
        return
    if fault := _disagreement(read_architecture(base.config, base.name), tensors):
        raise CheckpointError(
            f"{base.name}: {fault}.",
            "Weights and config.json are of different checkpoints; copy both from one.",
        )


def _disagreement(declared: Architecture, tensors: Mapping[str, TensorInfo]) -> str | None:
    """The first tensor that is not as config.json has it."""
    for name, shape in declared.tensors():
        if name not in tensors:
            return f"{name} is missing; config.json wants it, of the shape {list(shape)}"
        if tensors[name].shape != shape:
            found = list(tensors[name].shape)
            return f"{name} has the shape {found}; config.json wants {list(shape)}"
    beyond = f"model.layers.{declared.layers}."
    if more := next((name for name in tensors if name.startswith(beyond)), None):
        return f"{more} is there; config.json says {plural(declared.layers, 'layer')}"
    return None


def _piece(tensor: TensorInfo, change: Change | None, settings: FourBit | None) -> OutputTensor:
    """A tensor of the merged checkpoint, in the base's dtype."""
    source, shape = tensor, tensor.shape
    prepare: list[Callable[[], Step]] = []
    if change:
        source, shape = change.replacement or tensor, change.shape
        prepare += change.prepare
    if settings and settings.concerns(tensor) and not (change and change.replacement):
        prepare.insert(0, lambda: rounding(tensor, settings))
    steps = (lambda: [make() for make in prepare]) if prepare else None
    return OutputTensor(tensor.name, tensor.dtype, shape, source, steps)


def _notes(runs: Sequence[Run | None], into: Into) -> list[str]:
    notes = []
    for run in runs:
        if run and run.adapter.name != "adapter":
            notes.append(f"{run.path} has not finished; {run.adapter.name} was merged.")
        if run and run.recipe.quantization and into == "16bit":
            notes.append(
                f"{run.path} was trained on 4-bit weights and merged into the 16-bit ones; "
                "--into nf4 merges into those that training saw."
            )
    return notes


def _idle(adapters: Iterable[SavedAdapter]) -> Iterator[str]:
    """A sentence for each adapter that was never trained."""
    for adapter in adapters:
        if adapter.adds_nothing:
            yield f"{adapter.folder} adds nothing to the base: its B is 0 in every layer."


def _resized(
    config: dict[str, Any], shards: Shards, base: Checkpoint, adapters: Sequence[Path]
) -> Path:
    """An adapter with new tokens brings embeddings, head, and the tokenizer that has the tokens.

    Returns:
        The folder of the tokenizer's files.
    """
    sizes = {
        piece.name: piece.shape[0]
        for pieces in shards.values()
        for piece in pieces
        if piece.name in (EMBEDDING, HEAD)
    }
    if len(set(sizes.values())) != 1:
        raise AxtuneError(
            f"The adapter leaves embeddings of {sizes[EMBEDDING]:,} tokens and a head of "
            f"{sizes[HEAD]:,}; expected as many in both.",
            "Save it with save_embedding_layers=True.",
        )
    config["vocab_size"] = sizes[EMBEDDING]
    ours = Tokenizer.from_file(str(base.folder / "tokenizer.json"))
    for folder in adapters:
        if not (folder / "tokenizer.json").is_file():
            continue
        theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if theirs.get_vocab_size() <= ours.get_vocab_size():
            continue
        parts = [
            {key: read_json(path / "tokenizer.json").get(key) for key in _HOW_TEXT_IS_CUT}
            for path in (folder, base.folder)
        ]
        if parts[0] != parts[1]:
            raise AxtuneError(
                f"{folder / 'tokenizer.json'} splits text differently from the base's: it was "
                "saved by a transformers 5 that replaced its pre-tokenizer.",
                "Add the tokens to the base's own tokenizer.json, and put that file there.",
            )
        return folder
    return base.folder  # rows without tokens: padding to a round number
