#!/usr/bin/env python
"""Adaptation to a domain: what continued pre-training teaches, and what it makes forget.

A real pretrained model of 135M parameters reads the papers of a company that does not exist: its
machines, each with facts that no other text has, told in several papers of different words. Then it
is taught the form of questions and answers on half of the machines, and asked about the other half,
whose facts stand in the papers alone. Printed: perplexity of papers that were held out and of
general English prose (Python's own reference, ``pydoc_data.topics``), and right answers, of

- the base;
- after the papers, without replay and with it (a tenth of the tokens, other topics of that prose);
- after questions and answers alone, and after papers and then questions and answers.

Every part is a command of axtune's, printed as it is run. Papers, questions and all draws are made
by ``--seed``. With one ``--work`` folder, what is there is not made again.

    python scripts/bench_domain.py --work DIR
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from bench_learning import ROOT, axtune, small_model
from measuring import machine

MACHINES = 24
EPOCHS = 6  # of the papers: facts are learned by meeting them in several wordings, often

KINDS = ("press", "mixer", "dryer", "kiln", "lathe", "pump", "labeller", "sorter")
VALUES: dict[str, tuple[str, ...]] = {
    "oil": ("Velmar 12", "Quorin B", "Tessal 40", "Hadrix", "Ombren 7", "Sulvane", "Pirrol 22",
            "Nacrum"),
    "town": ("Ostrel", "Marrowby", "Kinvale", "Dunharrow", "Pelsing", "Tarn Hollow", "Wexcombe",
             "Ibremont"),
    "keeper": ("Ms. Abelard", "Mr. Tosk", "Ms. Quillon", "Mr. Verran", "Ms. Ildry", "Mr. Nambu",
               "Ms. Sorrow", "Mr. Fenwick"),
    "alarm": ("the belt slips", "the drum is full", "the seal leaks", "the guard is open",
              "the feed is dry", "the blade is dull", "the fan stops", "the door is ajar"),
}  # fmt: skip
SENTENCES: dict[str, tuple[str, ...]] = {
    "oil": (
        "The {name} runs on {value} oil.",
        "Fill the {name} with {value} and with no other oil.",
        "{value} is the oil of the {name}.",
        "For the {name}, the store keeps {value} oil.",
        "When the {name} is due for oil, the fitters take {value}.",
    ),
    "town": (
        "The {name} was built in {value}.",
        "{value} is where the {name} was built.",
        "Spare parts for the {name} come from {value}, where it was built.",
        "The works in {value} built the {name}.",
        "The {name} left the works in {value}.",
    ),
    "keeper": (
        "{value} looks after the {name}.",
        "The {name} is looked after by {value}.",
        "Ask {value} before you start the {name}.",
        "The keeper of the {name} is {value}.",
        "{value} keeps the key of the {name}.",
    ),
    "alarm": (
        "The {name} sounds its alarm when {value}.",
        "The alarm of the {name} means that {value}.",
        "If you hear the {name}, {value}.",
        "On the {name}, a red lamp says that {value}.",
        "The {name} stops by itself when {value}.",
    ),
}
QUESTIONS = {
    "oil": "Which oil does the {name} run on?",
    "town": "Where was the {name} built?",
    "keeper": "Who looks after the {name}?",
    "alarm": "What does the alarm of the {name} mean?",
}
HELD_OUT_WORDING = 4  # each fact's last sentence stands in held-out papers only

Facts = dict[str, dict[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=None, help="a folder that is kept")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the papers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="axtune-bench-") as name:
        work = (options.work or Path(name)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        print(machine(), flush=True)
        compare(work, options.seed, options.epochs)


def compare(work: Path, seed: int, epochs: int) -> None:
    """Write the data, train, ask, print the tables."""
    began = time.monotonic()
    base = small_model(work)
    data = work / f"data-{seed}"
    if not data.is_dir():
        write_data(data, seed)
    runs = {
        "papers, no replay": cpt(work, base, data, "no-replay", [], seed, epochs),
        "papers, replay": cpt(work, base, data, "replay", [data / "replay.jsonl"], seed, epochs),
    }
    runs["answers alone"] = sft(work, base, data, "sft", None, seed)
    runs["papers, then answers"] = sft(work, base, data, "cpt-sft", runs["papers, replay"], seed)
    found = {name: ask(work, base, run, data, seed) for name, run in runs.items()}
    lines = ["| | perplexity, papers held out | perplexity, general | right answers |",
             "| --- | --: | --: | --: |"]  # fmt: skip
    first = next(iter(found.values()))
    lines.append(row("base", {key: one["before"] for key, one in first.items()}, None))
    for name, one in found.items():
        lines.append(row(name, {key: each["value"] for key, each in one.items()},
                         {key: each["before"] for key, each in one.items()}))  # fmt: skip
    questions = sum(1 for _ in (data / "questions.jsonl").open(encoding="utf-8"))
    print(f"\nSeed {seed}, {epochs} epochs of {MACHINES} machines' papers, {questions} questions; "
          f"{(time.monotonic() - began) / 60:.0f} minutes in all\n")  # fmt: skip
    print("\n".join(lines))


def row(name: str, values: dict[str, Any], base: dict[str, Any] | None) -> str:
    """A line of the table; changes against the base in brackets."""
    cells = []
    for key in ("papers", "general"):
        value = values[key]["value"]
        change = f" ({value / base[key]['value'] - 1:+.1%})" if base else ""
        cells.append(f"{value:.2f}{change}")
    right = values["exact"]
    cells.append(f"{right['value']:.1%} [{right['low']:.1%}, {right['high']:.1%}]")
    return f"| {name} | {' | '.join(cells)} |"


# --- the company ----------------------------------------------------------------------------------


def write_data(folder: Path, seed: int) -> None:
    """Papers, questions and general prose, in files."""
    draw = random.Random(seed)
    facts = company(draw)
    names = list(facts)
    taught, asked = names[: MACHINES // 2], names[MACHINES // 2 :]
    papers = [paper(draw, facts, names, wording) for wording in range(HELD_OUT_WORDING)
              for _ in range(2)]  # fmt: skip
    held_out = [paper(draw, facts, names, HELD_OUT_WORDING)]
    general = list(paragraphs())
    draw.shuffle(general)
    half = len(general) // 2
    half_finished = folder.with_suffix(".partial")
    shutil.rmtree(half_finished, ignore_errors=True)
    half_finished.mkdir()
    write(half_finished / "papers.jsonl", ({"text": text} for each in papers for text in each))
    write(half_finished / "papers-held-out.jsonl", ({"text": t} for each in held_out for t in each))
    write(half_finished / "replay.jsonl", ({"text": text} for text in general[:half][:40]))
    write(half_finished / "general.jsonl", ({"text": text} for text in general[half:][:30]))
    write(half_finished / "answers.jsonl", conversations(facts, taught))
    write(half_finished / "questions.jsonl", conversations(facts, asked))
    half_finished.rename(folder)


def company(draw: random.Random) -> Facts:
    """Machines, each with a value for every attribute."""
    numbers = draw.sample(range(100, 1000), MACHINES)
    return {
        f"{draw.choice('KRTVZ')}{number} {draw.choice(KINDS)}": {
            attribute: draw.choice(values) for attribute, values in VALUES.items()
        }
        for number in numbers
    }


def paper(draw: random.Random, facts: Facts, names: list[str], wording: int) -> Iterator[str]:
    """One paper on each machine, in one wording, its facts in an order of their own."""
    for name in draw.sample(names, len(names)):
        attributes = draw.sample(list(VALUES), len(VALUES))
        yield " ".join(
            SENTENCES[one][wording].format(name=name, value=facts[name][one]) for one in attributes
        ).replace(". the ", ". The ")


def conversations(facts: Facts, names: list[str]) -> Iterator[dict[str, Any]]:
    """A question and its answer for each fact of some machines."""
    for name in names:
        for attribute, question in QUESTIONS.items():
            answer = facts[name][attribute]
            yield {
                "messages": [
                    {"role": "user", "content": question.format(name=name)},
                    {"role": "assistant", "content": answer[0].upper() + answer[1:] + "."},
                ]
            }


def paragraphs() -> Iterator[str]:
    """Prose of Python's reference, without its code and tables."""
    for text in topics.values():
        for part in re.split(r"\n\s*\n", text):
            plain = " ".join(part.split())
            if len(plain) > 300 and not re.search(r"::|[|=]{2}|\*{3}|>>>", plain):
                yield plain


def write(file: Path, rows: Iterator[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8") as out:
        for one in rows:
            out.write(json.dumps(one, ensure_ascii=False) + "\n")


# --- training and asking --------------------------------------------------------------------------


def cpt(
    work: Path, base: Path, data: Path, name: str, replay: list[Path], seed: int, epochs: int
) -> Path:
    """Continued pre-training on the papers, a tenth of the tokens from elsewhere if so wished."""
    run = work / f"{name}-{seed}"
    if not finished(run):
        shutil.rmtree(run, ignore_errors=True)
        mixed = [f"data.replay.train=[{','.join(map(str, replay))}]", "data.replay.share=0.1"]
        axtune(
            "train", ROOT / "recipes/cpt_lora.yaml", f"model={base}", f"output_dir={run}",
            f"data.train={data / 'papers.jsonl'}", "data.eval=null", f"seed={seed}",
            "precision=fp32", "data.max_length=512", f"training.num_train_epochs={epochs}",
            "training.gradient_accumulation_steps=2", "training.learning_rate=5.0e-4",
            "training.gradient_checkpointing=false",
            "lora.r=32", "lora.lora_alpha=64", *(mixed if replay else ()),
        )  # fmt: skip
    return run


def sft(work: Path, base: Path, data: Path, name: str, start: Path | None, seed: int) -> Path:
    """Questions and answers on half of the machines, from the base or from an adapter."""
    run = work / f"{name}-{seed}"
    if not finished(run):
        shutil.rmtree(run, ignore_errors=True)
        axtune(
            "train", ROOT / "recipes/sft_lora.yaml", f"model={base}", f"output_dir={run}",
            f"data.train={data / 'answers.jsonl'}", "data.eval=null", f"seed={seed}",
            "precision=fp32", "data.max_length=512", "training.num_train_epochs=6",
            "training.gradient_accumulation_steps=1", "training.learning_rate=3.0e-4",
            "training.gradient_checkpointing=false",
            "lora.r=32", "lora.lora_alpha=64", *([f"start_from={start}"] if start else ()),
        )  # fmt: skip
    return run


def finished(run: Path) -> bool:
    return (run / "adapter/adapter_model.safetensors").is_file()


def ask(work: Path, base: Path, run: Path, data: Path, seed: int) -> dict[str, Any]:
    """Perplexities and right answers of a run and its base."""
    out = work / f"answers-{seed}"  # of all runs, so that the base is asked once
    files = [data / name for name in ("questions.jsonl", "papers-held-out.jsonl", "general.jsonl")]
    asked = [word for file in files for word in ("--data", file)]
    axtune("eval", run, *asked, "--against", base, "--out", out, "--max-new-tokens", 16,
           "--seed", seed)  # fmt: skip
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    by = {(one["category"], one["metric"]): one for one in result["measured"]}
    return {
        "papers": by["papers-held-out.jsonl", "perplexity"],
        "general": by["general.jsonl", "perplexity"],
        "exact": by["all", "exact"],
    }


if __name__ == "__main__":
    main()
