#!/usr/bin/env python
"""The plan's memory beside measured memory: fifteen settings, each trained in a process of its own.

Builds random checkpoints in the proportions of A.X 4.0 Light and A.X 3.1 Light at a quarter of
their width and three layers, trains a few steps of each setting on this machine's CPU, and prints
the peak that `axtune plan` predicts, the measured one, and how far they are apart.

Measured is the peak of resident memory from the start of training (Linux: VmHWM), less what the
process held before it loaded the model: interpreter, libraries, data.

    python scripts/bench_plan.py                 # all of them, about 15 minutes on 2 cores
    python scripts/bench_plan.py --only 3 9      # some of them
    python scripts/bench_plan.py --layers 2      # at another depth
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measuring import child, machine, memory, reset_memory, resident

VOCABULARY = 25_600  # a quarter of the real one, as the widths
WIDTHS: dict[str, dict[str, int]] = {
    "4.0": {
        "hidden_size": 896,
        "intermediate_size": 4736,
        "num_attention_heads": 7,
        "num_key_value_heads": 1,
    },
    "3.1": {
        "hidden_size": 1024,
        "intermediate_size": 2752,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
}
FOUR_BIT = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}


@dataclass(frozen=True)
class Setting:
    """One point of the grid.

    Attributes:
        model: The layout, 4.0 or 3.1.
        task: The recipe's.
        precision: The recipe's.
        four_bit: What 4-bit layers compute in; None for a base in the precision.
        checkpointing: The recipe's.
        batch: Samples of a forward pass.
        lengths: Of the samples, in tokens, again and again; of preferences, of the prompts.
        answer: Tokens of each answer.
        packing: The recipe's.
        further: Keys of the recipe's preference section.
    """

    model: str
    task: str = "sft"
    precision: str = "fp32"
    four_bit: str | None = None
    checkpointing: bool = True
    batch: int = 1
    lengths: Sequence[int] = (1024,)
    answer: int = 64
    packing: bool = False
    shared_prefix: bool = True

    def __str__(self) -> str:
        base = f"QLoRA ({self.four_bit})" if self.four_bit else "LoRA"
        again = "recomputed" if self.checkpointing else "all saved"
        lengths = "/".join(map(str, self.lengths))
        layout = " plain" if self.task != "sft" and not self.shared_prefix else ""
        layout += " packed" if self.packing else ""
        return (
            f"{self.model} {self.task}{layout} {base} {self.precision}, {again}, "
            f"{self.batch} x {lengths}+{self.answer}"
        )


GRID = (
    Setting("3.1"),
    Setting("3.1", checkpointing=False),
    Setting("4.0", lengths=(2048,)),
    Setting("4.0", checkpointing=False, batch=2, lengths=(768, 500)),
    Setting("4.0", four_bit="bfloat16", lengths=(512,)),
    Setting("3.1", four_bit="bfloat16", checkpointing=False, lengths=(512,)),
    Setting("4.0", four_bit="float32", batch=2, lengths=(768, 300)),
    Setting("3.1", precision="bf16", batch=2, lengths=(512, 300)),
    Setting("4.0", task="dpo", lengths=(1024,), answer=128),
    Setting("3.1", task="dpo", four_bit="bfloat16", checkpointing=False, batch=2, lengths=(192,)),
    Setting("4.0", task="dpo", lengths=(512,), answer=128, shared_prefix=False),
    Setting("3.1", packing=True, batch=4, lengths=(300, 500, 700), answer=96),
    Setting("4.0", lengths=(8192,)),
    Setting("3.1", lengths=(8192,)),
    Setting("4.0", four_bit="bfloat16", lengths=(6144,)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=int, nargs="*", help="numbers of settings, from 1")
    parser.add_argument("--layers", type=int, default=3, help="depth of the checkpoints")
    parser.add_argument("--child", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(run(GRID[options.child - 1], options.folder, options.layers)))
        return
    with tempfile.TemporaryDirectory(prefix="axtune-bench-") as name:
        compare(options, Path(name))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Take each setting's peak and print the table."""
    print(machine(("torch", "transformers", "trl", "peft", "bitsandbytes")))
    print(f"{options.layers} layers\n{'predicted':>12}{'measured':>10}{'error':>8}  setting, MB")
    errors = []
    for number in options.only or range(1, len(GRID) + 1):
        words = [f"--child={number}", f"--folder={folder}", f"--layers={options.layers}"]
        result = json.loads(child(__file__, words, folder))
        error = result["predicted"] / result["measured"] - 1
        errors.append(abs(error))
        print(
            f"{number:2}{result['predicted'] / 1e6:10,.0f}{result['measured'] / 1e6:10,.0f}"
            f"{error:8.1%}  {GRID[number - 1]}",
            flush=True,
        )
        if options.only:
            print("   ", {name: round(value / 1e6) for name, value in result["parts"].items()})
        shutil.rmtree(folder / "run", ignore_errors=True)
    print(f"largest error {max(errors):.1%}, mean {sum(errors) / len(errors):.1%}")


def checkpoint(folder: Path, layout: str, shape: dict[str, int]) -> Any:
    """A random checkpoint in the layout of a real one; built once.

    Args:
        folder: In which it is made.
        layout: 4.0 or 3.1.
        shape: Of its ``config.json``, where it is not the embedded model's.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from axtune.checkpoint import locate

    made = folder / f"base-{layout}"
    if not made.is_dir():
        like = locate.find(f"tiny-ax-{layout}", weights=False)
        config = {**like.config, **shape}
        if "max_window_layers" in config:
            config["max_window_layers"] = config["num_hidden_layers"]
        made.mkdir()
        (made / "config.json").write_text(json.dumps(config), encoding="utf-8")
        torch.manual_seed(0)
        loaded = AutoConfig.from_pretrained(made)
        AutoModelForCausalLM.from_config(loaded, dtype=torch.bfloat16).save_pretrained(made)
        (made / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for name in (*locate.TOKENIZER_FILES, "generation_config.json"):
            if (like.folder / name).is_file():
                shutil.copyfile(like.folder / name, made / name)
    return locate.find(str(made))


def write_rows(setting: Setting, tokenizer: Any, file: Path) -> None:
    """Rows of the setting's lengths, give or take a few tokens; no two alike."""
    text = "창고 배송 주문 회의 날씨 예약 확인 취소 도착 오늘 내일 언제 어디 얼마 가능 문의 "

    def words(seed: int, tokens: int) -> str:
        turned = f"{seed} " + text[seed % 20 :] * (1 + tokens // 20)
        return str(tokenizer.decode(tokenizer.encode(turned)[:tokens])).replace("�", "")

    with file.open("w", encoding="utf-8") as stream:
        for number in range(8 * setting.batch):
            length = setting.lengths[number % len(setting.lengths)]
            if setting.task == "sft":
                turns = [
                    {"role": "user", "content": words(number, length - setting.answer)},
                    {"role": "assistant", "content": words(number + 7, setting.answer - 8)},
                ]
                row: dict[str, Any] = {"messages": turns}
            else:
                row = {"prompt": words(number, length)}
                row["chosen"] = words(number + 3, setting.answer - 4)
                row["rejected"] = words(number + 9, setting.answer - 4)
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def run(setting: Setting, folder: Path, layers: int) -> dict[str, Any]:
    """Train a setting.

    Returns:
        The ``predicted`` and the ``measured`` peak in bytes, and the prediction's ``parts``.
    """
    shape = {**WIDTHS[setting.model], "vocab_size": VOCABULARY, "num_hidden_layers": layers}
    base = checkpoint_apart(folder, setting.model, shape)

    from axtune.checkpoint.tokenizer import load_tokenizer

    rows = folder / "rows.jsonl"
    write_rows(setting, load_tokenizer(base), rows)
    values: dict[str, Any] = {
        "task": setting.task,
        "precision": setting.precision,
        "data": {"max_length": 16384, "packing": setting.packing},
        "training": {
            "per_device_train_batch_size": setting.batch,
            "per_device_eval_batch_size": setting.batch,
            "gradient_accumulation_steps": 1 if not setting.packing else 2,
            "gradient_checkpointing": setting.checkpointing,
            "max_steps": 2,
        },
    }
    if setting.four_bit:
        values["quantization"] = {**FOUR_BIT, "bnb_4bit_compute_dtype": setting.four_bit}
    if setting.task != "sft":
        values["preference"] = {"shared_prefix": setting.shared_prefix}
    done = trained(values, base, rows, folder / "run")
    plan = done["plan"]
    return {"predicted": plan.peak, "measured": done["peak"], "parts": asdict(plan.longest)}


def trained(values: dict[str, Any], base: Any, rows: Path, out: Path) -> dict[str, Any]:
    """Train a recipe in this process.

    Args:
        values: The recipe, but for its paths.
        base: The checkpoint.
        rows: What is trained on.
        out: Where the run goes.

    Returns:
        ``peak``, in bytes, of what the process took more than before it loaded the model (on a
        card, of what torch allocated); ``seconds`` and ``losses`` of each step; ``plan``, what
        axtune said of it.
    """
    import bitsandbytes  # noqa: F401  what training loads late is not the model's memory
    import torch
    from transformers import TrainerCallback

    from axtune.checkpoint.run_dir import claim
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.config.recipe import Recipe
    from axtune.data.dataset import prepare
    from axtune.model.load import choose_precision, load_model
    from axtune.plan.architecture import read_architecture
    from axtune.plan.estimate import PlanInputs, make_plan
    from axtune.plan.memory import CPU, GPU
    from axtune.quiet import quiet_libraries
    from axtune.training.arguments import training_arguments
    from axtune.training.initial_adapter import start_adapter
    from axtune.training.progress import Report
    from axtune.training.trainer import RunContext, make_trainer

    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            seconds.append(-time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds[-1] += time.perf_counter()

    on_gpu = torch.cuda.is_available()
    tokenizer = load_tokenizer(base)
    recipe = Recipe.model_validate(
        values
        | {
            "model": str(base.folder),
            "output_dir": str(out),
            "data": {**values["data"], "train": str(rows)},
            "training": {"logging_steps": 1, **values["training"]},
        }
    )
    precision = choose_precision(recipe.precision)
    with quiet_libraries():
        args = training_arguments(recipe, precision)
        run_dir = claim(recipe)
        scratch = out / "scratch"
        scratch.mkdir(parents=True)
        prepared = prepare(recipe, tokenizer, scratch, lambda fault: None)
        before = 0 if on_gpu else resident("VmRSS")
        model = load_model(base, tokenizer, precision=precision, quantization=recipe.quantization)
        report = Report(enabled=False)
        adapter = start_adapter(model, recipe, base, report)
        run_dir.begin(recipe, {})
        run = RunContext(adapter, args, tokenizer, prepared, run_dir, report, recipe)
        trainer = make_trainer(run)
        trainer.add_callback(Clock())
        reset_memory()
        trainer.make_ready(base, precision)
        trainer.train()
        peak = memory() - before
    assert prepared.sizes is not None
    known = PlanInputs("bench", read_architecture(base.config, "bench"), prepared.sizes)
    plan = make_plan(recipe, known, GPU if on_gpu else CPU)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"peak": peak, "seconds": seconds, "losses": losses, "plan": plan}


def checkpoint_apart(folder: Path, layout: str, shape: dict[str, int]) -> Any:
    """The checkpoint, built in a process of its own: building leaves memory behind."""
    import multiprocessing

    from axtune.checkpoint import locate

    builder = multiprocessing.get_context("spawn").Process(
        target=checkpoint, args=(folder, layout, shape)
    )
    builder.start()
    builder.join()
    return locate.find(str(folder / f"base-{layout}"))


if __name__ == "__main__":
    main()
