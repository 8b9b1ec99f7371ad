"""What `axtune plan` prints, for people and for machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import axtune_forked
from support.plans import RECIPES
from support.rows import chat, write_jsonl

from axtune.plan.gpus import SIZES


def test_the_command_prints_a_plan(tmp_path: Path) -> None:
    words = ["plan", str(RECIPES / "sft_qlora.yaml"), "model=tiny-ax-4.0", "--gpu", "RTX 3060"]
    done = axtune_forked(*words, "--gpu", "8GB")
    assert (done.status, done.err) == (0, "")
    for said in ("longest step", "evaluation", "merge", "saved states", "80GB", "tokens/s", "yes"):
        assert said in done.out
    machine = json.loads(axtune_forked(*words, "--json").out)
    assert list(machine) == [
        "model", "task", "parameters", "trained_parameters", "samples", "tokens", "longest_tokens",
        "mean_tokens", "steps", "refused_rows", "processes", "sharded", "exchanged",
        "memory", "host", "cards",
    ]  # fmt: skip
    longest = machine["memory"]["longest_step"]
    parts = sum(longest[name] for name in ("weights", "adapter", "optimizer", "saved", "workspace"))
    assert longest["total"] == pytest.approx(parts + max(longest["recompute"], longest["head"]))
    assert [card["gigabytes"] for card in machine["cards"]] == [12, *SIZES]
    assert machine["cards"][0]["edits"] == []
    assert machine["cards"][0]["seconds"] > 0 < machine["steps"]


def test_the_plan_of_several_cards() -> None:
    words = ["plan", str(RECIPES / "sft_qlora.yaml"), "model=tiny-ax-4.0", "--tokens", "2048"]
    one, ddp, fsdp = (
        json.loads(axtune_forked(*words, *several, "--json").out)
        for several in ([], ["--gpus", "4"], ["--gpus", "4", "--engine", "fsdp2"])
    )
    assert [plan["processes"] for plan in (one, ddp, fsdp)] == [1, 4, 4]
    assert [plan["sharded"] for plan in (one, ddp, fsdp)] == [False, False, True]
    assert one["exchanged"] == 0 < ddp["exchanged"] < fsdp["exchanged"]
    weights = [plan["memory"]["longest_step"]["weights"] for plan in (one, ddp, fsdp)]
    assert weights[0] == weights[1] > 3 * weights[2]
    said = axtune_forked(*words, "--gpus", "4", "--engine", "fsdp2").out
    assert "4 processes, each with a share of the weights (FSDP2)" in said


def test_the_plan_says_what_questions_add(tmp_path: Path) -> None:
    words = ["plan", str(RECIPES / "sft_lora.yaml"), "model=tiny-ax-4.0", "--gpu", "RTX 3060"]
    done = axtune_forked(*words, "evaluate.limit=7")
    assert (done.status, done.err) == (0, "")
    assert "evaluate: about 7 questions, asked 3 times, as many at once" in done.out
    assert "; the time holds asking, at most: as if" in " ".join(done.out.split())
    assert "asking, at most" in done.out.splitlines()[-9]
    (card, *others) = json.loads(axtune_forked(*words, "evaluate.limit=7", "--json").out)["cards"]
    assert 0 < card["evaluate_seconds"] < card["seconds"]
    assert others[0]["evaluate_seconds"] is None  # of no known rate
    done = axtune_forked(*words, "evaluate={data: data_templates/chat.jsonl, limit: null}")
    assert "the time is without them" in " ".join(done.out.split())
    done = axtune_forked(
        *words[:-2], "evaluate={data: data_templates/chat.jsonl, limit: 9, every: end}"
    )
    said = " ".join(done.out.split())
    assert "evaluate: at most 9 questions, asked 1 time, as many at once as" in said
    assert "the time" not in said.partition("evaluate:")[2]  # no card here tells one


def test_the_command_on_wrong_words(tmp_path: Path) -> None:
    recipe = str(RECIPES / "sft_lora.yaml")
    done = axtune_forked("plan", recipe, "model=tiny-ax-4.0", "--gpu", "RTX 3O60")
    assert done.status == 1
    assert "did you mean RTX 3060" in done.err
    done = axtune_forked("plan", recipe, "modle=x")
    assert done.status == 1
    assert "did you mean model?" in done.err
    done = axtune_forked("plan", recipe, "model=tiny-ax-4.0", "data.train=none.jsonl")
    assert done.status == 1
    assert "none.jsonl" in done.err
    rows = write_jsonl(tmp_path / "rows.jsonl", [chat("q", "a"), {}, chat("r", "b")])
    done = axtune_forked("plan", recipe, "model=tiny-ax-4.0", f"data.train={rows}", "--json")
    assert json.loads(done.out)["refused_rows"] == 1
