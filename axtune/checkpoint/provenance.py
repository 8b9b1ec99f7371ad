"""Which 16-bit weights a checkpoint is: its own, or those that a quantised folder was made from.

An adapter fits the original, whichever of the two it was trained on. So a folder that `axtune
quantize` made keeps a record of its original, and whoever asks for a base is told of that one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from axtune.checkpoint import locate
from axtune.checkpoint.locate import (
    CONFIG_FILES,
    RECORD_FILE,
    TOKENIZER_FILES,
    Checkpoint,
    read_json,
)
from axtune.checkpoint.record import RECORD
from axtune.checkpoint.schemas import QuantizationRecord, fault_of
from axtune.errors import CheckpointError

# What axtune wrote about a folder and is no part of what it holds.
_ABOUT = ("certificate.json", RECORD)

_SAMPLES = 16
_SAMPLE_BYTES = 65_536


@dataclass(frozen=True)
class QuantizationSource:
    """The 16-bit weights that a quantised folder was made from, and how.

    Attributes:
        name: As the user gave it: Hub id, embedded name, or path.
        commit: The Hub commit of the snapshot, when it came from there.
        digests: Of its files, as `base_digests` gives them.
        quantization: ``BitsAndBytesConfig`` by its own names.
        precisions: Of a run (bf16, fp16, fp32): those in which quantising the original while
            loading it gives the same bits as the folder holds.
        device: What quantised it: cpu or cuda.
        versions: Of the packages that took part.
    """

    name: str
    commit: str | None
    digests: dict[str, str]
    quantization: dict[str, Any]
    precisions: list[str]
    device: str
    versions: dict[str, str | None]

    def write(self, folder: Path) -> None:
        """Leave the record in the quantised folder."""
        text = json.dumps(asdict(self), ensure_ascii=False, indent=2)
        (folder / RECORD_FILE).write_text(text + "\n", encoding="utf-8")


def is_for_serving(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of weights in compressed-tensors' format, as engines serve them."""
    stated = config.get("quantization_config")
    return isinstance(stated, dict) and stated.get("quant_method") == "compressed-tensors"


def original_of(checkpoint: Checkpoint) -> QuantizationSource | None:
    """What a quantised folder was made from; None when the checkpoint is not quantised.

    Raises:
        CheckpointError: When it is quantised, and does not say from what.
    """
    if not checkpoint.config.get("quantization_config"):
        return None
    if is_for_serving(checkpoint.config):
        raise CheckpointError(
            f"{checkpoint.name} is in 4 bit for serving: it can be asked and served, not trained, "
            "merged into or exported again.",
            "Give the 16-bit weights that it was made from.",
        )
    if not (checkpoint.folder / RECORD_FILE).is_file():
        raise CheckpointError(
            f"{checkpoint.name} is quantised, and lacks the {RECORD_FILE} that says which "
            "weights it was made from.",
            "Give the original 16-bit weights, or a folder that axtune quantize made from them.",
        )
    record = read_json(checkpoint.folder / RECORD_FILE)
    if fault := fault_of(record, QuantizationRecord):
        raise CheckpointError(
            f"{checkpoint.folder / RECORD_FILE} was not written by this version of axtune: "
            f"{fault}.",
            "Make the folder again with `axtune quantize ORIGINAL --out NEW`.",
        )
    return QuantizationSource(**record)


def unquantized(checkpoint: Checkpoint) -> Checkpoint:
    """The 16-bit checkpoint itself, or the one that a quantised folder was made from.

    Raises:
        CheckpointError: When the original is not to be found, or is not what it was.
    """
    made_from = original_of(checkpoint)
    if made_from is None:
        return checkpoint
    found = find_original(made_from.name, made_from.commit, checkpoint.name)
    if differing := differing_files(made_from.digests, base_digests(found.folder)):
        raise CheckpointError(
            f"{checkpoint.name} was made from {found.name}, whose {', '.join(differing)} "
            f"{'has' if len(differing) == 1 else 'have'} changed since.",
            "Give the unchanged 16-bit weights with --base (verify: --against).",
        )
    return found


def find_original(name: str, revision: str | None, quantized: str) -> Checkpoint:
    """Find the original of a quantised folder.

    Args:
        name: The original's, as `axtune.checkpoint.locate.find` takes it.
        revision: Its commit, if it came from the Hub.
        quantized: The folder's name, for the message.

    Raises:
        CheckpointError: When it is not to be found, with what is needed.
    """
    try:
        return locate.find(name, revision=revision)
    except CheckpointError as error:
        raise CheckpointError(
            f"{quantized} holds 4-bit weights made from {name}, and the adapter is for those "
            f"16-bit ones: {error.found}",
            "Give their folder with --base (verify: --against).",
        ) from None


def base_facts(checkpoint: Checkpoint, revision: str | None) -> dict[str, Any]:
    """What a manifest says of its base: always of the 16-bit weights.

    Args:
        checkpoint: What a run loads.
        revision: As its recipe gives it.

    Returns:
        ``name``, ``revision``, ``commit`` and ``digests``; of a quantised folder the original's,
        and its own as ``quantized``.
    """
    own = {
        "name": checkpoint.name,
        "revision": revision,
        "commit": checkpoint.commit,
        "digests": base_digests(checkpoint.folder),
    }
    made_from = original_of(checkpoint)
    if made_from is None:
        return own
    return {
        "name": made_from.name,
        "revision": made_from.commit,
        "commit": made_from.commit,
        "digests": made_from.digests,
        "quantized": own,
    }


def original_digests(checkpoint: Checkpoint) -> dict[str, str]:
    """The digests of the 16-bit weights that a checkpoint is or was made from."""
    made_from = original_of(checkpoint)
    return made_from.digests if made_from else base_digests(checkpoint.folder)


def differing_files(expected: Mapping[str, str], actual: Mapping[str, str]) -> list[str]:
    """The files whose digests differ, of those that decide what a model computes."""
    decisive = {*TOKENIZER_FILES, *CONFIG_FILES}
    names = {name for name in {*expected, *actual} if name.endswith(".safetensors")} | decisive
    return sorted(name for name in names if expected.get(name) != actual.get(name))


def base_digests(folder: Path) -> dict[str, str]:
    """What identifies a base's files without reading 14.5 GB of them.

    Small files (configs, tokenizer, template) are hashed whole, by SHA-256. A weight file is hashed
    over its size, its safetensors header (every tensor's name, type, shape and place), and 16
    samples of 64 KiB evenly spaced over the tensors' bytes, the first and the last 64 KiB among
    them: any re-trained, merged or re-quantised file differs, a single flipped byte may not.

    Returns:
        ``sha256:…`` or ``fingerprint:…`` by file name; what axtune wrote about the folder
        (its certificate and its record) is left out.
    """
    digests = {}
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        if file.suffix == ".safetensors":
            digests[file.name] = f"fingerprint:{_fingerprint(file)}"
        elif file.suffix in (".json", ".jinja", ".txt") and file.name not in _ABOUT:
            digests[file.name] = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    return digests


def _fingerprint(file: Path) -> str:
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as stream:
        # safetensors: 8 bytes of header length, little-endian, then the header in JSON.
        length = int.from_bytes(stream.read(8), "little")
        length = min(length, max(size - 8, 0))
        digest.update(stream.read(length))
        first, last = 8 + length, max(8 + length, size - _SAMPLE_BYTES)
        for index in range(_SAMPLES):
            stream.seek(first + (last - first) * index // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()
