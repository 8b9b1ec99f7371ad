"""What goes wrong in one process ends all of them soon, and is said once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.one_rank import EXCEPTION
from support.processes import PATIENCE, Ended, Job, in_processes
from support.tiny import RECIPES, write_rows

pytestmark = pytest.mark.slow

# What happens, in support.one_rank, and what is said of it; of a process that is killed, only its
# launcher can say something.
FAULTS = {
    "nan": "Step 2: the loss is not finite",
    "exception": f"ValueError: {EXCEPTION}",
    "out_of_memory": "There is not enough memory",
    "killed": None,
    "disk_full": "No space left on device",
    "hanging": "Process 1 of this run did not answer within training.ddp_timeout",
}
ENGINES_OF = dict.fromkeys(FAULTS, ("ddp", "fsdp"))
# An error that ends a process by itself ends it in the same way whatever the weights are.
ENGINES_OF |= {"exception": ("ddp",), "out_of_memory": ("ddp",)}
KINDS = [(fault, engine) for fault, engines in ENGINES_OF.items() for engine in engines]


def job(folder: Path, run: str, *words: str, fsdp: bool = False, fault: str | None = None) -> Job:
    return Job(
        str(RECIPES / "sft_lora.yaml"),
        [
            "model=tiny-ax-4.0", f"data.train={folder / 'rows.jsonl'}", "data.eval=null",
            f"output_dir={folder / run}", "precision=fp32", "data.packing=false", "lora.r=2",
            "data.max_length=64", "training.max_steps=4", "training.eval_strategy=steps",
            "training.eval_steps=1", "training.gradient_accumulation_steps=1",
            *words,
        ],
        fsdp=fsdp, fault=fault and f"support.one_rank:{fault}",
    )  # fmt: skip


def run_all(folder: Path, jobs: dict[str, Job]) -> dict[str, Ended]:
    return dict(zip(jobs, in_processes(list(jobs.values()), folder), strict=True))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Ended]]:
    folder = tmp_path_factory.mktemp("faults")
    write_rows(folder / "rows.jsonl", 12)
    soon = {"hanging": ["training.ddp_timeout=10"]}
    jobs = {
        f"{fault}-{engine}": job(
            folder, f"{fault}-{engine}", *soon.get(fault, []), fsdp=engine == "fsdp", fault=fault
        )
        for fault, engine in KINDS
    }
    return folder, run_all(folder, jobs)


@pytest.fixture(scope="module")
def resumed(ended: tuple[Path, dict[str, Ended]]) -> tuple[Path, dict[str, Ended]]:
    """The runs with DDP again, with nothing in their way, and one that never had."""
    folder, _ = ended
    jobs = {fault: job(folder, f"{fault}-ddp", "resume=true") for fault in FAULTS}
    return folder, run_all(folder, {"undisturbed": job(folder, "undisturbed"), **jobs})


@pytest.mark.parametrize(("fault", "engine"), KINDS)
def test_all_end_and_one_says_why(
    ended: tuple[Path, dict[str, Ended]], fault: str, engine: str
) -> None:
    folder, runs = ended
    run = runs[f"{fault}-{engine}"]
    assert all(run.statuses), run.said
    assert run.dying < PATIENCE
    why = FAULTS[fault]
    assert why is None or sum(text.count(why) for text in run.said) == 1, run.said
    left = folder / f"{fault}-{engine}"
    manifest = json.loads((left / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["status"] != "finished"
    assert not (left / "adapter").exists()
    saved = list((left / "checkpoints").glob("checkpoint-*/adapter_model.safetensors"))
    assert len(saved) == (0 if fault == "disk_full" else 1)
    for file in saved:
        assert all(bool(torch.isfinite(one).all()) for one in load_file(file).values())


@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_command_goes_on(resumed: tuple[Path, dict[str, Ended]], fault: str) -> None:
    folder, runs = resumed
    assert runs[fault].statuses == [0, 0], runs[fault].said
    adapters = (folder / run / "adapter" for run in (f"{fault}-ddp", "undisturbed"))
    one, other = (load_file(adapter / "adapter_model.safetensors") for adapter in adapters)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
