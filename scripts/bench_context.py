#!/usr/bin/env python
"""Long samples: time and memory of a step with its MLPs in tiles and without, beside the plan.

Builds a random checkpoint of the full width of A.X 4.0 Light or A.X 3.1 Light and trains a fresh
rank-16 adapter on samples of each length, in a process of its own with tiles (`axtune.model.tiles`)
and without. On a CPU in float32; on a card in bf16, over a base in 4 bit with ``--bits 4``, at
whatever depth it holds.

    python scripts/bench_context.py                          # 2 layers, 2 cores: half an hour
    python scripts/bench_context.py --layers 4 --tokens 16384
    python scripts/bench_context.py --model 3.1 --tokens 32768
    python scripts/bench_context.py --layers 28 --bits 4 --offload activations embeddings
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from bench_plan import FOUR_BIT, Setting, checkpoint_apart, trained, write_rows
from measuring import child, machine

STEPS = {2048: 3}  # where a step is short, the shortest of several; elsewhere one


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=("4.0", "3.1"), default="4.0")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 16384])
    parser.add_argument("--bits", type=int, choices=(4, 16), default=16)
    parser.add_argument("--offload", nargs="*", default=[], help="as in a recipe")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(run(options, options.tokens[0])))
        return
    with tempfile.TemporaryDirectory(prefix="axtune-bench-") as name:
        compare(options, Path(name))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Train at each length, in tiles and without, and print the table."""
    print(machine(("torch", "transformers", "trl", "peft", "bitsandbytes")))
    print(f"A.X {options.model} Light's width, {options.layers} layers, one sample a step")
    print("tokens  MLPs      seconds a step  peak, GB  planned, GB")
    common = [f"--model={options.model}", f"--layers={options.layers}", f"--bits={options.bits}"]
    common += [f"--folder={folder}", *(["--offload", *options.offload] if options.offload else [])]
    for tokens in options.tokens:
        for word in ("--plain", None):
            words = [*([word] if word else []), *common, "--tokens", str(tokens)]
            found = json.loads(child(__file__, words, folder))
            print(
                f"{tokens:6,}  {'whole' if word else 'in tiles':8}{found['seconds']:16.1f}"
                f"{found['peak'] / 1e9:10.2f}{found['planned'] / 1e9:13.2f}",
                flush=True,
            )
            shutil.rmtree(folder / "run", ignore_errors=True)


def run(options: argparse.Namespace, tokens: int) -> dict[str, Any]:
    """Train at one length.

    Returns:
        ``seconds`` of the fastest step; the ``peak`` and the ``planned`` one, in bytes.
    """
    import torch

    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.model import tiles
    from axtune.plan import memory
    from axtune.plan.serving import LIGHTS

    if options.plain:
        tiles.install = lambda model: None
        memory.TILE = 1 << 40
    shape = LIGHTS[f"skt/A.X-{options.model}-Light"] | {"num_hidden_layers": options.layers}
    base = checkpoint_apart(options.folder, options.model, shape)
    rows = options.folder / "rows.jsonl"
    write_rows(Setting(options.model, lengths=(tokens,)), load_tokenizer(base), rows)
    values: dict[str, Any] = {
        "task": "sft",
        "precision": "auto" if torch.cuda.is_available() else "fp32",
        "data": {"max_length": 2 * tokens, "packing": False},
        "offload": options.offload,
        "training": {
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": True,
            "max_steps": STEPS.get(tokens, 1),
        },
    }
    if options.bits == 4:
        values["quantization"] = FOUR_BIT
    done = trained(values, base, rows, options.folder / "run")
    return {"seconds": min(done["seconds"]), "peak": done["peak"], "planned": done["plan"].peak}


if __name__ == "__main__":
    main()
