"""Data preparation, measured: axtune beside TRL's own preparation and beside the bare minimum.

    python scripts/bench_data.py
    python scripts/bench_data.py --data conversations.jsonl --model skt/A.X-4.0-Light

Three ways from the same conversations to token ids, in one process, each the best of a few rounds
taken in turn:

- raw: render the checkpoint's template once for each conversation and `encode_batch_fast` them all;
  no labels, no checks, already normalised: the floor.
- axtune: parsed rows to ids and labels, with every check of `axtune data check`.
- TRL: `SFTTrainer`'s preparation of the same rows (chat template, tokenisation; no labels).

Then, each in a process of its own: how long the light commands take to answer, and the peak memory
of a check over the file once and many times over.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.config.loader import data_options
from axtune.data.conversation import as_served
from axtune.data.parse import read_row
from axtune.data.pipeline import RowChecker
from axtune.data.rows import Row

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parent / "data_templates/chat.jsonl")
    parser.add_argument("--model", default="tiny-ax-4.0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=20, help="copies of the file, for memory")
    options = parser.parse_args()

    lines = options.data.read_text(encoding="utf-8").splitlines()
    rows = [keep_conversation(json.loads(line)) for line in lines if line.strip()]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{options.data.name}: {len(rows)} conversations, {options.model}\n")

    show_commands(rows, options.model, options.times)  # first: a child inherits our peak memory
    tokenizer = load_tokenizer(options.model)
    ways: dict[str, Callable[[], int]] = {
        "raw": raw_way(tokenizer, rows),
        "axtune": axtune_way(tokenizer, rows),
        "TRL": trl_way(tokenizer, rows),
    }
    best = dict.fromkeys(ways, float("inf"))
    tokens = dict.fromkeys(ways, 0)
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            tokens[name] = way()
            best[name] = min(best[name], time.perf_counter() - start)
    speed = {name: tokens[name] / best[name] for name in ways}
    print(f"{'':8}{'seconds':>10}{'tokens':>12}{'tokens/s':>12}{'of raw':>9}{'of TRL':>9}")
    for name in ways:
        print(
            f"{name:8}{best[name]:10.3f}{tokens[name]:12,}{speed[name]:12,.0f}"
            f"{speed[name] / speed['raw']:9.0%}{speed[name] / speed['TRL']:8.1f}x"
        )


def show_commands(rows: list[dict[str, Any]], model: str, times: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        once = Path(folder) / "once.jsonl"
        once.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        many = Path(folder) / "many.jsonl"
        many.write_text(once.read_text() * times)
        check = ["data", "check", "--model", model]
        print(f"{'command':44}{'seconds':>10}{'peak MB':>10}")
        for label, words in (
            ("axtune --help", ["--help"]),
            (f"axtune data check ({len(rows)} rows)", [*check, str(once)]),
            (f"axtune data check ({len(rows) * times} rows)", [*check, str(many)]),
        ):
            seconds, peak = run([sys.executable, "-m", "axtune", *words])
            print(f"{label:44}{seconds:10.2f}{peak:10.0f}")
    print()


def keep_conversation(row: dict[str, Any]) -> dict[str, Any]:
    """A row without columns that are no part of the conversation."""
    return {key: row[key] for key in ("messages", "tools") if key in row}


def raw_way(tokenizer: AxTokenizer, rows: list[dict[str, Any]]) -> Callable[[], int]:
    conversations = [read_row(row)[0] for row in rows]
    ready = [(as_served(c.messages), c.tools) for c in conversations if c]

    def way() -> int:
        texts = [tokenizer.render(m, t, add_generation_prompt=False) for m, t in ready]
        return sum(map(len, tokenizer.encode_batch(texts)))

    return way


def axtune_way(tokenizer: AxTokenizer, rows: list[dict[str, Any]]) -> Callable[[], int]:
    data = data_options(["-"], max_length=tokenizer.context)
    batch = [Row("-", number, row) for number, row in enumerate(rows, 1)]

    def way() -> int:
        checker = RowChecker(tokenizer, data)
        checked = [
            c for at in range(0, len(batch), 256) for c in checker.check(batch[at : at + 256])
        ]
        return sum(len(sample.input_ids) for c in checked for sample in c.samples)

    return way


def trl_way(tokenizer: AxTokenizer, rows: list[dict[str, Any]]) -> Callable[[], int]:
    warnings.simplefilter("ignore")
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    datasets.disable_caching()
    datasets.disable_progress_bars()
    small = LlamaConfig(
        vocab_size=tokenizer.backend.get_vocab_size(),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    processing = tokenizer.to_transformers()

    def as_trl(row: dict[str, Any]) -> dict[str, Any]:
        messages = [{**m, "content": m.get("content") or ""} for m in row["messages"]]
        tools = row.get("tools")
        return {"messages": messages, "tools": json.dumps(tools) if tools else None}

    data = datasets.Dataset.from_list([as_trl(row) for row in rows])
    with tempfile.TemporaryDirectory() as folder:
        args = SFTConfig(
            folder, max_length=tokenizer.context, report_to="none", use_cpu=True, bf16=False
        )
        trainer = SFTTrainer(
            LlamaForCausalLM(small),
            args,
            train_dataset=data.select([0]),
            processing_class=processing,
        )

    def way() -> int:
        prepared = trainer._prepare_dataset(data, processing, args, False, None, "train")
        return sum(map(len, prepared["input_ids"]))

    return way


def run(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident MB of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
