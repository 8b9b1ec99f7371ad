#!/usr/bin/env python
"""Answers a second: axtune's batches beside one at a time and lm-evaluation-harness's HF backend.

The same model, prompts and longest answer for each, greedily, in one process, in turns; of each the
fastest of its rounds counts. Three sets of prompts, as they are served:

- ``tools``: what stands before each turn of the assistant in a file of conversations, tools among
  it, hundreds of tokens.
- ``chat``: each conversation's first question alone, tens of tokens.
- ``benchmark``: all questions of a file as ``axtune eval`` asks them, FunctionChat-Bench's dialogs
  unless another is given: several of one dialog begin alike, rows of BFCL do not.

The contenders:

- ``one at a time``: axtune's generation with batches of one.
- ``axtune``: its batches, as many prompts as memory allows, of like length.
- ``lm-eval, N``: ``generate_until`` of its backend ``hf`` with batches of N: of one, its default,
  and as large as axtune's. It is given axtune's tokenizer, or it would answer other prompts
  (`axtune.evaluate.harness`).

Answers are compared by their texts, without what stands behind the end of a turn.

    python scripts/bench_eval.py                        # the embedded model, some minutes
    python scripts/bench_eval.py --model DIR --prompts 64
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from measuring import CONVERSATIONS, SHARED, machine

DIALOGS = SHARED / "functionchat/FunctionChat-Dialog.jsonl"
SETS = ("tools", "chat", "benchmark")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny-ax-4.0", help="a name, a checkpoint or a run")
    parser.add_argument("--conversations", type=Path, default=CONVERSATIONS)
    parser.add_argument("--benchmark", type=Path, default=DIALOGS)
    parser.add_argument("--prompts", type=int, default=64, help="how many at most, of each set")
    parser.add_argument("--only", nargs="*", default=SETS, help="some of the sets")
    parser.add_argument("--longest", type=int, default=64, help="longest answer, in tokens")
    parser.add_argument("--batch", type=int, default=None, help="size; what memory allows")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts")
    compare(parser.parse_args())


def compare(options: argparse.Namespace) -> None:
    """Take each contender's time, print a table for each set of prompts."""
    from axtune.model.trained import load_trained
    from axtune.quiet import quiet_libraries

    print(machine(("torch", "transformers", "lm-eval")))
    with quiet_libraries():
        model, tokenizer = load_trained(options.model, print)
        for name in options.only:
            file = options.benchmark if name == "benchmark" else options.conversations
            prompts = read_prompts(file, tokenizer, options.prompts, name)
            lengths = [len(prompt.ids) for prompt in prompts]
            print(
                f"{name}: {len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens "
                f"({sum(lengths):,} together), answers of at most {options.longest}",
                flush=True,
            )
            show(*race(contenders(options, model, tokenizer, prompts), options.rounds), tokenizer)


def contenders(
    options: argparse.Namespace, model: Any, tokenizer: Any, prompts: list[Any]
) -> dict[str, Callable[[], list[str]]]:
    """Each of them, ready to answer."""
    from axtune.evaluate.generate import Sampling, batches

    sampling = Sampling(max_new_tokens=options.longest, batch_size=options.batch)
    one = Sampling(max_new_tokens=options.longest, batch_size=1)
    size = max(map(len, batches(prompts, model, sampling)))
    shared = (model, tokenizer, prompts)
    return {
        "one at a time": partial(axtune, *shared, one),
        "axtune": partial(axtune, *shared, sampling),
        "lm-eval, 1": partial(harness, *shared, options.longest, 1),
        f"lm-eval, {size}": partial(harness, *shared, options.longest, size),
    }


def show(seconds: dict[str, float], answers: dict[str, list[str]], tokenizer: Any) -> None:
    """The table."""
    count = len(answers["axtune"])
    print(f"  {'':16}{'seconds':>9}{'answers/s':>11}{'tokens/s':>10}{'as axtune':>13}")
    for name, took in seconds.items():
        said = sum(map(len, map(tokenizer.encode, answers[name])))
        same = sum(map(str.__eq__, answers[name], answers["axtune"]))
        print(
            f"  {name:16}{took:9.2f}{count / took:11.2f}{said / took:10.1f}{same:6} of {count}",
            flush=True,
        )
    for name in [name for name in seconds if name != "axtune"]:
        print(f"  axtune / {name}: {seconds[name] / seconds['axtune']:.1f}x", flush=True)


def race(
    contenders: dict[str, Callable[[], list[str]]], rounds: int
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """The fastest round of each, in seconds, and its answers."""
    seconds: dict[str, float] = {}
    answers = {}
    for _ in range(rounds):
        for name, answer in contenders.items():
            began = time.monotonic()
            answers[name] = answer()
            took = time.monotonic() - began
            seconds[name] = min(took, seconds.get(name, took))
    return seconds, answers


def read_prompts(file: Path, tokenizer: Any, count: int, name: str) -> list[Any]:
    """The first prompts of a file, of one of the sets."""
    from axtune.data.render import prompt_ids
    from axtune.evaluate.benchmarks import read_questions
    from axtune.evaluate.generate import Prompt

    if name == "benchmark":
        return [
            Prompt(prompt_ids(tokenizer, question.messages, question.tools))
            for question in islice(read_questions(file), count)
        ]
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    if name == "chat":
        asked = dict.fromkeys(
            next(turn["content"] for turn in row["messages"] if turn["role"] == "user")
            for row in rows
        )
        before = ([{"role": "user", "content": question}] for question in asked)
        return [Prompt(prompt_ids(tokenizer, turns)) for turns in islice(before, count)]
    turns_and_tools = (
        (row["messages"][:place], row.get("tools"))
        for row in rows
        for place, message in enumerate(row["messages"])
        if message["role"] == "assistant"
    )
    return [Prompt(prompt_ids(tokenizer, *one)) for one in islice(turns_and_tools, count)]


def axtune(model: Any, tokenizer: Any, prompts: list[Any], sampling: Any) -> list[str]:
    """Answers of axtune's generation."""
    from axtune.evaluate.generate import generate

    texts = {}
    for batch in generate(model, prompts, sampling):
        for number, answer in batch.items():
            texts[number] = tokenizer.decode(answer.ids[:-1] if answer.ended else answer.ids)
    return [texts[number] for number in range(len(prompts))]


def harness(
    model: Any, tokenizer: Any, prompts: list[Any], longest: int, batch_size: int
) -> list[str]:
    """Answers of lm-evaluation-harness's backend."""
    from lm_eval.api.instance import Instance

    from axtune.evaluate.harness import loaded_model

    lm = loaded_model(model, tokenizer, batch_size=batch_size, chat=True)
    settings = {"until": [tokenizer.end_of_turn], "max_gen_toks": longest, "do_sample": False}
    texts = [tokenizer.decode(prompt.ids) for prompt in prompts]
    assert [lm.tok_encode(text) for text in texts] == [prompt.ids for prompt in prompts]
    requests = [
        Instance("generate_until", {}, (text, settings), number)
        for number, text in enumerate(texts)
    ]
    found: list[str] = lm.generate_until(requests, disable_tqdm=True)
    return found


if __name__ == "__main__":
    main()
