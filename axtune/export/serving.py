"""What serves an export: the line, which cards have room for it, and SERVING.md for vLLM."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axtune.checkpoint.families import Family
from axtune.data.native_calls import form_of
from axtune.plan.gpus import SIZES, Card
from axtune.plan.serving import SHARE, Form, served
from axtune.units import gigabytes, typed


@dataclass(frozen=True)
class Exported:
    """What an export left behind.

    Attributes:
        folder: Where.
        nbytes: The size of its tensors.
        command: The line that serves it with vLLM or llama.cpp; None for transformers.
        notes: What a user should know, a sentence each.
        room: Which cards serve it, with how long a context, in words; None where that is not known.
        verify: The line that certifies it; None for what is not verified here.
    """

    folder: Path
    nbytes: int
    command: str | None
    notes: tuple[str, ...]
    room: str | None = None
    verify: str | None = None


def verify_command(folder: Path, source: str, base: str | None, *, adapted: bool) -> str:
    """The line that certifies an export.

    Args:
        folder: The export's.
        source: What was exported.
        base: The base that was given; None where the source names it.
        adapted: Whether the source is a run or an adapter.
    """
    words = ["axtune", "verify", str(folder)]
    words += ["--adapter", source] if adapted else ["--against", source]
    words += ["--against", base] if adapted and base else []
    return shlex.join(words)


def vllm_command(folder: Path, context: int | None, family: Family) -> str:
    """The complete line that serves a folder.

    Args:
        folder: The checkpoint's; ``BASE`` stands for one that the user names.
        context: The longest conversation, in tokens; None for what config.json says.
        family: The model's, which knows its calls.
    """
    name = "" if folder == Path("BASE") else f" --served-model-name {shlex.quote(folder.name)}"
    length = f" --max-model-len {context}" if context else ""
    return (
        f"vllm serve {typed(folder)}{name}{length}"
        f" --enable-auto-tool-choice --tool-call-parser {family.tool_parser}"
    )


def serving(
    command: str,
    target: Path,
    family: Family,
    config: Mapping[str, Any] | None = None,
    form: Form | None = None,
    group: int = 128,
) -> str:
    """SERVING.md.

    Args:
        command: Of `vllm_command`.
        target: The folder.
        family: The model's.
        config: Its ``config.json``; None where the weights are another folder's.
        form: Of the weights, with `config`.
        group: Of weights in 4 bit.
    """
    request = {
        "model": target.name,
        "messages": [{"role": "user", "content": "안녕하세요?"}],
        "temperature": 0,
    }
    parser, line, shown = family.tool_parser, family.line, form_of(family).shown
    room = ""
    if config and form:
        room = _room(dict(config), target.name, form, group)
    return f"""# Serving {target.name}

```sh
{command}
```

`{parser}` is the parser of the calls that {line} models write (`{shown}`). A GPU
with too little memory for the whole context takes a smaller `--max-model-len`; one that is
older than Ampere, such as a T4, computes in fp16: `--dtype half`.

```sh
curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{json.dumps(request, ensure_ascii=False)}'
```
{room}"""


def _room(config: dict[str, Any], name: str, form: Form, group: int) -> str:
    """What fits on which card, and what makes more fit."""
    found = [(size, served(form, config, name, Card("", size), group)) for size in SIZES]
    rows = [
        f"| {size} GB | `--max-model-len {one.context}` | {one.tokens:,} |"
        if one.context
        else f"| {size} GB | does not fit | |"
        for size, one in found
    ]
    table = "\n".join(rows)
    less = ""
    if form == "bf16":
        less = (
            " `--quantization fp8_per_tensor` rounds\nthe linear layers to 8 bit when they are "
            "loaded, which halves them; `axtune export --bits 4` writes them\nin a quarter."
        )
    elif form == "w4a16":
        in_fp8 = gigabytes(served("fp8", config, name, Card("", SIZES[-1])).weights)
        less = (
            " In 8 bit instead, on GPUs, it is the\n16-bit export of the same model that is served "
            f"(`axtune export SOURCE --to vllm --out BASE`),\n{in_fp8} of weights, rounded when "
            "they are loaded:\n\n```sh\nvllm serve BASE --quantization fp8_per_tensor\n```"
        )
    weights = gigabytes(found[0][1].weights)
    return f"""
## Memory

{weights} of weights. By arithmetic, of {SHARE:.2f} of the card less 0.9 GB that vLLM takes for
itself (assumed):

| card | longest context | tokens of all conversations at once |
| --- | --- | --: |
{table}

`--kv-cache-dtype fp8` makes room for twice as many tokens.{less}
"""


def room(config: Mapping[str, Any], name: str, form: Form, group: int = 128) -> str:
    """Which cards serve a form, with how long a context, in a line.

    Args:
        config: The model's ``config.json``.
        name: The model's.
        form: Of the weights.
        group: Of weights in 4 bit.
    """
    whole = int(config["max_position_embeddings"])
    fits = []
    for size in SIZES:
        context = served(form, dict(config), name, Card("", size), group).context
        if context:
            fits.append(f"{size} GB {context:,} tokens")
        if context == whole:
            break
    listed = ", ".join(fits) if fits else f"more than {SIZES[-1]} GB"
    return f"{listed}, by arithmetic (axtune plan --serve says more)"
