"""Two and four processes train what one trains, with DDP and FSDP2.

Every job has an effective batch of four samples, of which two processes take two each. With four
processes some kinds are trained; all of them with AXTUNE_PROCESSES=full.
"""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from support import tiny
from support.commands import ENVIRONMENT, axtune_in_process, losses
from support.forked import Forked
from support.processes import Ended, Job, in_processes
from support.tiny import RECIPES, write_rows
from transformers import AutoModelForCausalLM

from axtune.checkpoint import locate

pytestmark = pytest.mark.slow

STEPS = 3
BF16 = "precision=bf16"
PLAIN = "data.packing=false"
FLOAT = "quantization.bnb_4bit_compute_dtype=float32"
# SGD: where a gradient is nearly zero, Adam makes a whole step of its rounding.
SGD = ("training.optim=sgd", "training.learning_rate=0.3")

# Of each kind the recipe and what is changed.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sft": ("sft_lora", (PLAIN,)),
    "packed": ("sft_lora", ()),
    "bf16": ("sft_lora", (PLAIN, BF16)),
    "dora": ("sft_lora", (PLAIN, "lora.use_dora=true", "lora.lora_dropout=0.0")),
    "pissa": ("sft_lora", (PLAIN, "lora.init_lora_weights=pissa")),
    "whole_head": ("sft_lora", (PLAIN, "lora.modules_to_save=[lm_head]")),
    "qlora": ("sft_qlora", (PLAIN, FLOAT)),
    "quantised": ("sft_qlora", (PLAIN, "quantization=null", "model={base}", BF16)),
    "narrow_72b": (
        "qlora_72b",
        (PLAIN, "quantization=null", "model={narrow}", "data.train={rows}", BF16),
    ),
    "cpt": ("cpt_lora", (PLAIN,)),
    "dpo": ("dpo_lora", ()),
    "dpo_each_step": ("dpo_lora", ("preference.reference=each_step",)),
    "dpo_on": ("dpo_lora", ("start_from={sft}", "preference.reference=each_step")),
    "kto": ("kto_lora", ()),
    "orpo": ("orpo_lora", ()),
}
# A.X 4.0 (72B) a sixteenth as wide, with four of its 80 layers: eight heads to a pair of keys.
NARROW = {"hidden_size": 512, "intermediate_size": 1856, "num_attention_heads": 16,
          "num_key_value_heads": 2, "num_hidden_layers": 4}  # fmt: skip
ONE: dict[str, Any] = {"processes": 1, "fsdp": False}
TWO: dict[str, Any] = {"processes": 2, "fsdp": True}
FOUR: dict[str, Any] = {"processes": 4, "fsdp": True}
RESUMED = {"two_to_four": (TWO, FOUR), "two_to_one": (TWO, ONE), "one_to_two": (ONE, TWO)}
ADAM = (PLAIN, "training.learning_rate=1e-3", "training.eval_strategy=steps",
        "training.eval_steps=2")  # fmt: skip
OF_TWO = ("packed",)  # one process has other packs: they are made for so many processes
AT_ONCE = ("kto",)  # its divergence is estimated from the rows that all processes have at once
OF_FOUR = ("sft", "qlora", "dpo")
if os.environ.get("AXTUNE_PROCESSES") == "full":
    OF_FOUR = tuple(kind for kind in KINDS if kind not in OF_TWO)


class Runs:
    """The runs of the module's jobs.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: dict[str, Job] = {}
        self.ended: dict[str, Ended] = {}

    def add(
        self, name: str, recipe: str, *words: str, processes: int = 2, fsdp: bool = True,
        fault: str | None = None, run: str | None = None,
    ) -> None:  # fmt: skip
        """A job of some kind."""
        task = recipe.split("_")[0]
        here = {"sft": self.folder / "sft-one", "base": self.folder / "base",
                "narrow": self.folder / "narrow", "rows": self.folder / "sft.jsonl"}  # fmt: skip
        self.jobs[name] = Job(
            str(RECIPES / f"{recipe}.yaml"),
            [
                "model=tiny-ax-4.0", f"data.train={self.folder / task}.jsonl", "data.eval=null",
                f"output_dir={self.folder / (run or name)}", "precision=fp32", "lora.r=2",
                "data.max_length=64", f"training.max_steps={STEPS}", "training.warmup_steps=0",
                "training.lr_scheduler_type=constant",
                f"training.per_device_train_batch_size={1 if processes == 4 else 2}",
                f"training.gradient_accumulation_steps={2 if processes == 1 else 1}",
                *(word.format(**here) for word in words),
            ],
            processes, fsdp, fault,
        )  # fmt: skip

    def run(self) -> None:
        """All that were added, in their order."""
        ended = in_processes(list(self.jobs.values()), self.folder)
        self.ended |= dict(zip(self.jobs, ended, strict=True))
        self.jobs = {}

    def sound(self, name: str) -> Path:
        """The folder of a run that ended well."""
        ended = self.ended[name]
        assert not any(ended.statuses), "\n---\n".join(ended.said)
        return self.folder / name.removesuffix("-begun")

    def adapter(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.sound(name) / "adapter" / "adapter_model.safetensors")


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference between two adapters of the same tensors."""
    assert one.keys() == other.keys()
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def at_once(kind: str) -> tuple[str, ...]:
    """For one process, what makes it take all rows of a step at once where a kind needs that."""
    whole = ("training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=1")
    return whole if kind in AT_ONCE else ()


def write_data(folder: Path) -> None:
    """Rows of every task."""
    write_rows(folder / "sft.jsonl", 16)
    rows: dict[str, list[dict[str, Any]]] = {"dpo": [], "kto": [], "cpt": []}
    for number in range(16):
        prompt = [{"role": "user", "content": f"비밀 {number}번은?"}]
        good, bad = ([{"role": "assistant", "content": text}] for text in (f"{number}", "몰라요"))
        answer, label = (good, True) if number % 2 else (bad, False)
        rows["kto"].append({"prompt": prompt, "completion": answer, "label": label})
        rows["dpo"].append({"prompt": prompt, "chosen": good, "rejected": bad})
        rows["cpt"].append({"text": f"비밀 {number}번은 {number} 입니다. " * (1 + number % 3)})
    rows["orpo"] = rows["dpo"]
    for task, these in rows.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in these)
        (folder / f"{task}.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("processes")
    write_data(folder)
    like = locate.find("tiny-ax-4.0", weights=False).folder
    tiny.with_weights(like, folder / "narrow-16", **NARROW)
    for base, out in (("tiny-ax-4.0", "base"), (str(folder / "narrow-16"), "narrow")):
        made = axtune_in_process("quantize", base, "--out", str(folder / out))
        assert made.status == 0, made.said
    runs = Runs(folder)
    for kind, (recipe, words) in KINDS.items():
        if kind not in OF_TWO:
            runs.add(f"{kind}-one", recipe, *SGD, *words, *at_once(kind), **ONE)
        if kind in OF_FOUR:
            runs.add(f"{kind}-four", recipe, *SGD, *words, **FOUR)
        if kind == "sft":
            runs.add("sft-ddp-four", recipe, *SGD, *words, processes=4, fsdp=False)
        if kind in ("sft", "dpo", *OF_TWO):
            runs.add(f"{kind}-ddp", recipe, *SGD, *words, fsdp=False)
        runs.add(f"{kind}-fsdp", recipe, *SGD, *words, fault="support.one_rank:counted")
    runs.add("whole", "sft_lora", *ADAM, "training.max_steps=4")
    for name, (before, after) in RESUMED.items():
        runs.add(f"{name}-begun", "sft_lora", *ADAM, "training.max_steps=2", **before, run=name)
        further = ("training.max_steps=4", "resume=true")
        runs.add(name, "sft_lora", *ADAM, *further, **after)
    runs.add("packs-begun", "sft_lora", "training.max_steps=2", fsdp=False, run="packs")
    further = ("training.max_steps=4", "resume=true")
    runs.add("packs", "sft_lora", *further, **ONE)
    runs.run()
    return runs


@pytest.mark.parametrize("kind", KINDS)
def test_shared_weights_learn_what_one_process_learns(runs: Runs, kind: str) -> None:
    other = f"{kind}-{'ddp' if kind in OF_TWO else 'one'}"
    curves = [losses(runs.sound(name)) for name in (other, f"{kind}-fsdp")]
    near = 2e-2 if BF16 in KINDS[kind][1] else 1e-5
    assert len(curves[0]) == STEPS
    assert curves[0] == pytest.approx(curves[1], abs=near)
    assert apart(runs.adapter(other), runs.adapter(f"{kind}-fsdp")) < near


@pytest.mark.parametrize("kind", [*OF_FOUR, "sft-ddp"])
def test_four_processes_learn_what_one_learns(runs: Runs, kind: str) -> None:
    one = kind.removesuffix("-ddp")
    near = 2e-2 if BF16 in KINDS[one][1] else 1e-5
    curves = [losses(runs.sound(name)) for name in (f"{one}-one", f"{kind}-four")]
    assert curves[0] == pytest.approx(curves[1], abs=near)
    assert apart(runs.adapter(f"{one}-one"), runs.adapter(f"{kind}-four")) < near


@pytest.mark.parametrize("kind", ["sft", "qlora", "quantised", "narrow_72b"])
def test_each_process_holds_its_share(runs: Runs, kind: str) -> None:
    runs.sound(f"{kind}-fsdp")
    said = [
        re.search(r"holds (0\.\d+) of (\d+) bytes", text)
        for text in runs.ended[f"{kind}-fsdp"].said
    ]
    assert all(found and float(found[1]) <= 0.505 for found in said)
    if kind == "qlora":  # as many bytes as a base in 4 bit has
        plain = re.search(r"of (\d+) bytes", runs.ended["sft-fsdp"].said[0])
        assert plain
        assert said[0]
        assert int(said[0][2]) < 0.75 * int(plain[1])


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_two_copies_learn_what_one_process_learns(runs: Runs, kind: str) -> None:
    one, ddp = (losses(runs.sound(f"{kind}-{how}")) for how in ("one", "ddp"))
    assert one == pytest.approx(ddp, abs=1e-5)
    assert apart(runs.adapter(f"{kind}-one"), runs.adapter(f"{kind}-ddp")) < 1e-5


@pytest.mark.filterwarnings("ignore:::transformers")
def test_what_is_saved_is_a_plain_adapter(runs: Runs) -> None:
    run = runs.sound("sft-fsdp")
    base = AutoModelForCausalLM.from_pretrained(locate.find("tiny-ax-4.0").folder)
    loaded = PeftModel.from_pretrained(base, str(run / "adapter"))
    assert loaded.peft_config["default"].r == 2
    checkpoint = run / "checkpoints" / f"checkpoint-{STEPS}"
    saved = load_file(checkpoint / "adapter_model.safetensors")
    assert all(".lora_" in name for name in saved)
    assert apart(saved, runs.adapter("sft-fsdp")) == 0
    weights = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    assert weights < 4 * sum(4 * tensor.numel() for tensor in saved.values()) + 100_000


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_goes_on_in_other_processes(runs: Runs, name: str) -> None:
    runs.sound(f"{name}-begun")
    assert losses(runs.sound(name)) == pytest.approx(losses(runs.sound("whole")), abs=1e-5)
    assert apart(runs.adapter(name), runs.adapter("whole")) < 1e-5


def test_packs_are_for_so_many_processes(runs: Runs) -> None:
    ended = runs.ended["packs"]
    assert ended.statuses == [1]
    assert "processes that samples are packed for: 2 → unset" in ended.said[0]


def test_one_process_alone_reports(runs: Runs) -> None:
    first, second = runs.ended["sft-fsdp"].said
    assert f"step {STEPS}/{STEPS}" in first
    assert re.fullmatch(r"holds .* bytes\n", second)


def launch(
    config: str, folder: Path, *options: str, sharded: bool = True, **environment: str
) -> Forked:
    """Start a recipe as the head of recipes/accelerate/CONFIG.yaml says, on a CPU."""
    paths = {"PYTHONPATH": f"{RECIPES.parent}:{RECIPES.parent / 'tests'}"}
    recipe = RECIPES / ("sft_qlora.yaml" if "qlora" in config else "sft_lora.yaml")
    words = [
        "--quiet", "--num_processes", "2",
        "--config_file", str(RECIPES / "accelerate" / f"{config}.yaml"), *options,
        "-m", "support.worker", "train_sharded" if sharded else "train", str(recipe),
        f"data.train={write_rows(folder / 'rows.jsonl', 8)}", "data.eval=null",
        "model=tiny-ax-4.0", f"output_dir={folder / 'run'}", "training.max_steps=2",
        "precision=fp32", PLAIN, "data.max_length=64", "training.gradient_accumulation_steps=1",
    ]  # fmt: skip
    return Forked(
        "support.worker:accelerate_launch", words, output=folder / f"said-by-{options[-1]}",
        environment=ENVIRONMENT | paths | environment,
    )  # fmt: skip


@pytest.mark.parametrize("config", ["ddp", "fsdp2", "fsdp2_qlora"])
def test_a_configuration_for_accelerate_trains(config: str, tmp_path: Path) -> None:
    process = launch(config, tmp_path, "--main_process_port", "0")
    assert process.wait() == 0, process.said
    assert "2 processes × 1 × 1 accumulated" in process.said
    assert len(losses(tmp_path / "run")) == 2


def test_two_machines_train_together(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    where = ("--main_process_ip", "127.0.0.1", "--main_process_port", port)
    machines = []
    for rank in (0, 1):
        (own := tmp_path / f"machine-{rank}").mkdir()  # machines do not share their /tmp
        options = (*where, "--machine_rank", str(rank))
        machines.append(launch("multi_node", tmp_path, *options, TMPDIR=str(own)))
    statuses = [machine.wait() for machine in machines]
    assert statuses == [0, 0], [machine.said for machine in machines]
    assert "2 processes × 1 × 1 accumulated" in machines[0].said
    assert len(losses(tmp_path / "run")) == 2


def test_fsdp_on_a_cpu_is_refused_once(tmp_path: Path) -> None:
    process = launch("fsdp2", tmp_path, "--main_process_port", "0", sharded=False)
    assert process.wait()
    assert process.said.count("configured for FSDP, which it has for GPUs only") == 1
