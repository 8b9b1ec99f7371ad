#!/usr/bin/env python
"""What the record of a checkpoint costs a run: SHA-256 of all that is saved, beside the saving.

Two tables. A run of an embedded model that saves every few steps, with the seconds that it spends
in saving and in the record, inside the process. And the checkpoint of a rank-16 adapter of A.X 4.0
Light at its exact shapes, with the state of AdamW: saved with SHA-256 and without by turns, the
least seconds of each; as a share of the shortest time between two saves that is asked about.

    python scripts/bench_save.py                     # about two minutes, half a GB on the disk
    python scripts/bench_save.py --folder /mnt/big   # a folder on the disk to measure
    python scripts/bench_save.py --between 30        # seconds of training between two saves
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from bench_merge import LAYERS, build_adapter
from measuring import CHECKPOINT, child, machine

REPEATS = 7
RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "sft_lora.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    parser.add_argument("--every", type=int, default=5, help="steps of the run between two saves")
    parser.add_argument("--between", type=float, default=1200.0, help="seconds between two saves")
    parser.add_argument("--part", choices=("run", "shapes"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part = run if options.part == "run" else shapes
        print(json.dumps(part(options)))
        return
    print(machine())
    with tempfile.TemporaryDirectory(prefix="axtune-bench-", dir=options.folder) as name:
        words = ["--folder", name, "--every", str(options.every)]
        ran = json.loads(child(__file__, [*words, "--part", "run"], Path(name)))
        saved = json.loads(child(__file__, [*words, "--part", "shapes"], Path(name)))
    print(f"\ntiny-ax-4.0, {ran['steps']} steps, {ran['saves']} saves, {ran['seconds']:.1f} s")
    for what in ("saving", "record"):
        print(f"{what:10}{ran[what]:8.2f} s{100 * ran[what] / ran['seconds']:8.2f}%")
    print(f"\nA.X 4.0 Light, rank 16: {saved['bytes'] / 1e6:,.0f} MB a checkpoint")
    alone = saved["hashing alone"]
    print(f"{'SHA-256 alone, one thread':28}{alone:8.3f} s{saved['bytes'] / alone / 1e9:8.2f} GB/s")
    for what in ("without SHA-256", "with SHA-256"):
        print(f"{'saving ' + what:28}{saved[what]:8.3f} s")
    cost = saved["with SHA-256"] - saved["without SHA-256"]
    share = 100 * cost / options.between
    print(f"{'the difference':28}{cost:8.3f} s{share:8.2f}% of {options.between:g} s")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """A run that saves often, and where its seconds went."""
    from axtune.checkpoint import steps
    from axtune.config.loader import load
    from axtune.run import train
    from axtune.training.sft import SftTrainer

    spent: dict[str, list[float]] = {"train": [], "_save_checkpoint": [], "record_of": []}
    with (
        timed(SftTrainer, "train", spent),
        timed(SftTrainer, "_save_checkpoint", spent),
        timed(steps, "record_of", spent),
    ):
        out = options.folder / "run"
        overrides = ["model=tiny-ax-4.0", f"output_dir={out}", "data.eval=null"]
        overrides += ["training.eval_strategy=steps", f"training.eval_steps={options.every}"]
        overrides += [f"training.max_steps={4 * options.every}"]
        train(load(RECIPE, [*overrides, "training.gradient_accumulation_steps=2"]))
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "steps": max(event["step"] for event in events),
        "saves": len(spent["_save_checkpoint"]),
        "seconds": sum(spent["train"]),
        "saving": sum(spent["_save_checkpoint"]),
        "record": sum(spent["record_of"]),
    }


@contextmanager
def timed(owner: Any, name: str, spent: dict[str, list[float]]) -> Iterator[None]:
    """Note the seconds of each call of a function."""
    function = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name].append(time.monotonic() - began)

    with mock.patch.object(owner, name, call):
        yield


def shapes(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of saving a checkpoint of the real size, with SHA-256 and without, by turns."""
    import torch
    from safetensors.torch import load_file

    from axtune.checkpoint import record

    build_adapter(options.folder / "adapter", LAYERS)
    adapter = load_file(options.folder / "adapter" / "adapter_model.safetensors")
    state = {
        number: {
            "step": torch.tensor(1.0),
            "exp_avg": torch.randn_like(tensor),
            "exp_avg_sq": torch.rand_like(tensor),
        }
        for number, tensor in enumerate(adapter.values())
    }
    optimizer = {"state": state, "param_groups": [{"lr": 1e-4, "params": list(state)}]}
    place = options.folder / "checkpoints"
    seconds: dict[str, list[float]] = {"with SHA-256": [], "without SHA-256": []}
    saved = place / "checkpoint-1"
    for _ in range(REPEATS):
        with mock.patch.object(record, "_sha256", return_value="0" * 64):
            seconds["without SHA-256"].append(of(lambda: save(place, adapter, optimizer)))
        seconds["with SHA-256"].append(of(lambda: save(place, adapter, optimizer)))
    files = [file for file in saved.iterdir() if file.is_file()]
    alone = [of(lambda: [record._sha256(file) for file in files]) for _ in range(REPEATS)]
    return {
        "bytes": sum(file.stat().st_size for file in files),
        "hashing alone": min(alone),
        **{what: min(each) for what, each in seconds.items()},
    }


def save(place: Path, adapter: dict[str, Any], optimizer: dict[str, Any]) -> None:
    """What a run does at a save: files, record, flush, name."""
    from safetensors.torch import save_file

    from axtune.checkpoint.steps import OPTIMIZER, STATE, begin_saving, publish
    from axtune.training.plain_state import write_state

    made = begin_saving(place) / "checkpoint-1"
    made.mkdir()
    save_file(adapter, made / "adapter_model.safetensors")
    write_state(made, OPTIMIZER, optimizer)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(CHECKPOINT / name, made / name)
    (made / STATE).write_text("{}")
    publish(made, {})


def of(job: Callable[[], object]) -> float:
    """Seconds of a job."""
    began = time.monotonic()
    job()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
