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
}
ENGINES = {"ddp": False, "fsdp": True}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Ended]]:
    folder = tmp_path_factory.mktemp("faults")
    rows = write_rows(folder / "rows.jsonl", 12)
    jobs = {
        f"{fault}-{engine}": Job(
            str(RECIPES / "sft_lora.yaml"),
            [
                "model=tiny-ax-4.0", f"data.train={rows}", "data.eval=null", "precision=fp32",
                f"output_dir={folder / f'{fault}-{engine}'}", "data.packing=false", "lora.r=2",
                "data.max_length=64", "training.max_steps=4", "training.eval_strategy=steps",
                "training.eval_steps=1", "training.gradient_accumulation_steps=1",
            ],
            fsdp=fsdp, fault=f"support.one_rank:{fault}",
        )
        for fault in FAULTS
        for engine, fsdp in ENGINES.items()
    }  # fmt: skip
    return folder, dict(zip(jobs, in_processes(list(jobs.values()), folder), strict=True))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fault", FAULTS)
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
