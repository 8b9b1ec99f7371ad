"""How a checkpoint folder is made: the small files beside the weights, and its notes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axtune.checkpoint.catalog import CONFIG_FILES, TOKENIZER_FILES, Checkpoint
from axtune.checkpoint.family import LAYOUTS, known_names
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.weights.stream_writer import (
    Shards,
    total_bytes,
)

_LICENCES = ("LICENSE*", "NOTICE*")


@dataclass(frozen=True)
class CheckpointPlan:
    """A checkpoint to write, before a byte of it is written.

    Attributes:
        base: The checkpoint it comes from.
        tokenizer_folder: Where its tokenizer files are.
        config: Its ``config.json``.
        shards: Its tensors, by file.
        adapters: What is merged into it.
        changed: How many tensors differ from the base's.
        notes: What a user should know, a sentence each.
    """

    base: Checkpoint
    tokenizer_folder: Path
    config: dict[str, Any]
    shards: Shards
    adapters: tuple[Path, ...]
    changed: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """A checkpoint that was written.

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


def copy_small_files(planned: CheckpointPlan, folder: Path) -> None:
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


def copy_licences(source: Path, folder: Path) -> None:
    """A checkpoint's licence and notice files."""
    for file in (file for pattern in _LICENCES for file in source.glob(pattern)):
        shutil.copyfile(file, folder / file.name)


def written(planned: CheckpointPlan, target: Path) -> Written:
    """The account of a plan that was carried out."""
    tensors = sum(len(pieces) for pieces in planned.shards.values())
    size = total_bytes(planned.shards)
    return Written(target, tensors, planned.changed, size, planned.notes)


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """A JSON file as transformers writes its own."""
    file.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


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


def card(planned: CheckpointPlan) -> str:
    """README.md: what this is, and how to load it."""
    name = planned.base.name
    # A path of this machine is nobody else's business.
    known = name in known_names() or planned.base.commit
    model = name if known else Path(name).name
    header = f"base_model: {model}\n" if planned.base.commit else ""
    count = len(planned.adapters)
    title = model
    origin = "Its tensors are the base's"
    if count:
        title += f" with {count} merged adapter" + ("s" if count > 1 else "")
        origin = f"Deltas were added in float32 and rounded once; {planned.changed} tensors changed"
    tokens = "the adapter's" if planned.tokenizer_folder in planned.adapters else "the base's"
    return f"""---
library_name: transformers
{header}tags: [axtune, {planned.config.get("model_type")}]
---
# {title}

Written by axtune. {origin}. `tokenizer.json` and the chat template are {tokens}, byte for byte.

{loading_notes(planned.config)}"""


def with_ends(planned: CheckpointPlan, tokenizer: AxTokenizer) -> CheckpointPlan:
    """The same with a config that says what ends a turn and what pads, as the tokenizer has it."""
    ends = {"eos_token_id": tokenizer.end_of_turn_id, "pad_token_id": tokenizer.pad_id}
    return dataclasses.replace(planned, config={**planned.config, **ends})


def write_generation_config(folder: Path, planned: CheckpointPlan, tokenizer: AxTokenizer) -> None:
    """Engines stop where this file says; without it vLLM stops at config.json's token."""
    config = planned.base.generation_config
    stops = config.get("eos_token_id")
    if stops == tokenizer.end_of_turn_id or (
        isinstance(stops, list) and tokenizer.end_of_turn_id in stops
    ):
        return  # the base's own file, copied
    ends = {"eos_token_id": tokenizer.end_of_turn_id, "pad_token_id": tokenizer.pad_id}
    write_json(folder / "generation_config.json", {**config, **ends})
