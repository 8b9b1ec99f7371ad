"""How a checkpoint folder is written: its weights, the small files beside them, and its card.

Merge, export, repair and quantise each plan a folder in their own way; all have it written here.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axtune.checkpoint.atomic import staged
from axtune.checkpoint.base import run_of
from axtune.checkpoint.families import LAYOUTS, known_names
from axtune.checkpoint.locate import CONFIG_FILES, TOKENIZER_FILES, Checkpoint
from axtune.checkpoint.model_card import facts, written
from axtune.checkpoint.record import checked, write_record
from axtune.checkpoint.run_dir import Run
from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.errors import CheckpointError
from axtune.weights.output_tensor import Shards, total_bytes
from axtune.weights.stream_writer import write_checkpoint

_LICENCES = ("LICENSE*", "NOTICE*")


@dataclass(frozen=True)
class FolderPlan(ABC):
    """A checkpoint folder to write, before a byte of it is written.

    Attributes:
        base: The checkpoint it comes from.
        tokenizer_folder: Where its tokenizer files are.
        config: Its ``config.json``.
    """

    base: Checkpoint
    tokenizer_folder: Path
    config: dict[str, Any]

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """The size of all tensors; the most that it can be, where writing tells."""

    @property
    def resumes(self) -> str | None:
        """What an interrupted writing must have been of to be gone on with; None begins anew."""
        return None

    @property
    def learned_documents(self) -> bool:
        """Whether it ends a completion as documents end, besides a turn as turns do."""
        return False

    def record_facts(self) -> Mapping[str, Any]:
        """What the folder's record says besides its files."""
        return {}

    @abstractmethod
    def write_weights(self, folder: Path) -> dict[str, str]:
        """Write the safetensors files into an empty folder, or one that can be gone on with.

        Returns:
            SHA-256 of those that were hashed on the way, by name.
        """

    @abstractmethod
    def card(self) -> str:
        """README.md: what the folder is, and how to load it."""


@dataclass(frozen=True)
class CheckpointPlan(FolderPlan):
    """A checkpoint whose tensors are streamed from those of its base.

    Attributes:
        shards: Its tensors, by file.
        adapters: What is merged into it.
        changed: How many tensors differ from the base's.
        notes: What a user should know, a sentence each.
    """

    shards: Shards
    adapters: tuple[Path, ...]
    changed: int
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """The size of all tensors."""
        return total_bytes(self.shards)

    def write_weights(self, folder: Path) -> dict[str, str]:
        """Write the shards, and their index if there are several."""
        return write_checkpoint(folder, self.shards)

    def card(self) -> str:
        """README.md: what the folder is, and how to load it."""
        return _card(self)

    @property
    def learned_documents(self) -> bool:
        """Whether one of its runs did."""
        return any(run.learned_documents for run in self.runs())

    def runs(self) -> list[Run]:
        """The runs that its adapters are of; none where one is from elsewhere."""
        found = [run_of(adapter) for adapter in self.adapters]
        return [] if None in found else [run for run in found if run]


def write_folder(
    planned: FolderPlan,
    target: Path,
    *,
    tokenizer: AxTokenizer | None = None,
    finish: Callable[[Path], object] | None = None,
) -> None:
    """Write a checkpoint folder, whole or not at all.

    Args:
        planned: What it holds.
        target: The folder to produce.
        tokenizer: The folder's: what ends a turn and what pads is set as it has it; None leaves
            that as `planned` and its base have it.
        finish: Given the filled folder before it becomes `target`, to add files or to check it;
            nothing is left behind when it raises.

    Raises:
        AxtuneError: As `axtune.checkpoint.atomic.staged`; also when a tensor would hold numbers
            that are not finite.
    """
    if tokenizer:
        planned = dataclasses.replace(planned, config={**planned.config, **_ends(tokenizer)})
    # A repair takes the tokenizer's files from elsewhere, since they are what is damaged.
    elsewhere = planned.tokenizer_folder != planned.base.folder
    unread = TOKENIZER_FILES if elsewhere else ()
    with (
        staged(target, planned.nbytes, planned.resumes) as folder,
        checked(planned.base.folder, unread),
    ):
        digests = planned.write_weights(folder)
        _copy_small_files(planned, folder)
        if tokenizer or planned.learned_documents:
            _write_generation_config(folder, planned, tokenizer or load_tokenizer(planned.base))
        if tokenizer:
            _write_tokenizer_class(folder, planned, tokenizer)
        (folder / "README.md").write_text(planned.card(), encoding="utf-8")
        if finish:
            finish(folder)
        write_record(folder, known=digests, facts=planned.record_facts())


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """A JSON file as transformers writes its own."""
    file.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def copy_licences(source: Path, folder: Path) -> None:
    """A checkpoint's licence and notice files.

    Raises:
        CheckpointError: When one is a link to a file elsewhere: it may be anything that the user
            may read, and what is written here is handed on.
    """
    for file in (file for pattern in _LICENCES for file in source.glob(pattern)):
        if not file.is_file():
            continue
        # The Hub's cache links a snapshot's files to blobs/ beside snapshots/.
        home = source.parent.parent if source.parent.name == "snapshots" else source
        if not file.resolve().is_relative_to(home.resolve()):
            raise CheckpointError(
                f"{file} is a link to a file outside of its folder; it is not copied.",
                "Put the file itself there, or remove the link.",
            )
        shutil.copyfile(file, folder / file.name)


# --- small files ------------------------------------------------------------------------------


def _copy_small_files(planned: FolderPlan, folder: Path) -> None:
    """Config, tokenizer and licence; byte for byte what has not changed."""
    source = planned.base.folder
    for name in CONFIG_FILES:
        if name == "config.json" and planned.config != planned.base.config:
            write_json(folder / name, planned.config)
        elif (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    for name in TOKENIZER_FILES:
        if (planned.tokenizer_folder / name).is_file():
            shutil.copyfile(planned.tokenizer_folder / name, folder / name)
    copy_licences(source, folder)


def _ends(tokenizer: AxTokenizer) -> dict[str, Any]:
    """What ends a turn and what pads, as the tokenizer has it."""
    return {"eos_token_id": tokenizer.end_of_turn_id, "pad_token_id": tokenizer.pad_id}


def _write_generation_config(folder: Path, planned: FolderPlan, tokenizer: AxTokenizer) -> None:
    """Engines stop where this file says; without it vLLM stops at config.json's token."""
    config = planned.base.generation_config
    stops = config.get("eos_token_id")
    known = stops if isinstance(stops, list) else [stops]
    ends = _ends(tokenizer)
    wanted = [tokenizer.end_of_turn_id]
    if planned.learned_documents:
        wanted.append(tokenizer.end_of_document_id)
        ends["eos_token_id"] = wanted
    if not set(wanted) <= set(known):  # else it is the base's own file, copied
        write_json(folder / "generation_config.json", {**config, **ends})


def _write_tokenizer_class(folder: Path, planned: FolderPlan, tokenizer: AxTokenizer) -> None:
    """In another layout, the class of the old one brings the wrong pre-tokenizer with its name."""
    if planned.config["model_type"] != planned.base.config["model_type"]:
        config = {**tokenizer.config, "tokenizer_class": "PreTrainedTokenizerFast"}
        write_json(folder / "tokenizer_config.json", config)


# --- cards ------------------------------------------------------------------------------------


def loading_notes(config: Mapping[str, Any]) -> str:
    """How to load a folder's tokenizer right, in Markdown, for its README.md.

    Args:
        config: The folder's ``config.json``.
    """
    kind = str(config.get("model_type"))
    if kind not in LAYOUTS or not LAYOUTS[kind].replaces_pre_tokenizer:
        return """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")
```
"""
    return f"""\
`tokenizer.json` of this folder is right, but AutoTokenizer of transformers 5 replaces
its pre-tokenizer for every `model_type: {kind}`: digits are split one by one and text is normalised
to NFC, so the model sees tokens that it was not trained on. Load it like this:

```python
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

tokenizer = PreTrainedTokenizerFast.from_pretrained("THIS_FOLDER")
model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")
```

To serve it with vLLM, use the folder that `axtune export THIS_FOLDER --to vllm` makes.
"""


def _card(planned: CheckpointPlan) -> str:
    """README.md: what this is, how it came about, and how to load it."""
    model = public_name(planned.base)
    count = len(planned.adapters)
    title = model
    origin = "Its tensors are the base's"
    if count:
        title += f" with {count} merged adapter" + ("s" if count > 1 else "")
        origin = f"Deltas were added in float32 and rounded once; {planned.changed} tensors changed"
    tokens = "the adapter's" if planned.tokenizer_folder in planned.adapters else "the base's"
    runs = planned.runs()
    text = f"""# {title}

Written by axtune. {origin}. `tokenizer.json` and the chat template are {tokens}, byte for byte.

{loading_notes(planned.config)}
{facts(runs) if runs else ""}"""
    return written(
        text,
        runs,
        base_model=model if planned.base.commit else None,
        library_name="transformers",
        tags=["axtune", str(planned.config.get("model_type"))],
    )


def served_card(
    title: str,
    runs: Sequence[Run],
    *,
    library: str,
    tags: Sequence[str],
    rounded: str | None = None,
) -> str:
    """README.md of a folder whose SERVING.md says how it is loaded.

    Args:
        title: The folder's name.
        runs: That its weights come from, where they are known.
        library: What loads it, as the Hub calls it.
        tags: Besides axtune's own.
        rounded: How its weights were rounded, in Markdown; None where they are in 16 bit. What the
            runs' evaluation measured is not of such weights, and is not in the card's metadata.
    """
    text = f"# {title}\n\nWritten by axtune. `SERVING.md` says how to serve it.\n"
    if rounded:
        text += f"\n## Weights\n\n{rounded}\n"
    if runs:
        text += f"\n{facts(runs, rounded=rounded is not None)}"
    measured = () if rounded else runs
    return written(text, measured, library_name=library, tags=["axtune", *tags])


# In a card: what the certificate measured of rounded weights.
_BEGIN, _END = "<!-- axtune: certificate -->", "<!-- axtune: end of certificate -->"


def certified(measured: str) -> str:
    """A place in a card for what the certificate measured, Markdown."""
    return f"{_BEGIN}\n{measured}\n{_END}"


def certify(folder: Path, measured: str) -> None:
    """Bring what a certificate measured into a folder's card, where that has a place for it.

    Args:
        folder: With a card of `served_card` or another one.
        measured: Markdown.
    """
    card = folder / "README.md"
    if not card.is_file():
        return
    text = card.read_text(encoding="utf-8", errors="surrogateescape")
    place = re.compile(f"{_BEGIN}.*?{_END}", re.DOTALL)
    if place.search(text):
        new = place.sub(lambda _: certified(measured), text)
        card.write_text(new, encoding="utf-8", errors="surrogateescape")


def quantized_card(base: Checkpoint, kind: str, dtype: str) -> str:
    """README.md of a quantised folder.

    Args:
        base: The 16-bit weights.
        kind: nf4 or fp4.
        dtype: What is not in 4 bit, by its name.
    """
    text = f"""# {public_name(base)} in {kind.upper()}

Written by axtune with bitsandbytes: the linear layers in 4 bit, all else in {dtype}.
It is for training: recipes take it as `model:`. `axtune.json` names the 16-bit weights that it was
made from; adapters trained on it are for those, and are merged into them.

Build the tokenizer from `tokenizer.json` (`PreTrainedTokenizerFast`): AutoTokenizer of transformers
5 replaces the pre-tokenizer of A.X 4.0.
"""
    return written(
        text,
        library_name="transformers",
        tags=["axtune", "bitsandbytes", str(base.config.get("model_type"))],
    )


def public_name(base: Checkpoint) -> str:
    """What to call a checkpoint before strangers: a path of this machine is not their business."""
    known = base.name in known_names() or base.commit
    return base.name if known else Path(base.name).name
