"""`axtune train` and `axtune plan`: a recipe's faults are said at once, each with its line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import axtune, axtune_in_process
from support.rows import ROOT


def test_a_broken_recipe_says_every_fault_with_its_line(tmp_path: Path) -> None:
    recipe = tmp_path / "나의 레시피.yaml"
    recipe.write_text("task: sft\nmodle: x\noutput_dir: r\ndata: {train: a, evl: 1}\n", "utf-8")
    done = axtune("train", str(recipe), "lora.alpha=3")
    assert done.returncode == 1
    assert f"{recipe}:2: unknown-key: modle: no such key; did you mean model?" in done.stderr
    assert f"{recipe}:4: unknown-key: data.evl: no such key; did you mean eval?" in done.stderr
    assert "lora.alpha=3: unknown-key: lora.alpha: no such key" in done.stderr


@pytest.mark.parametrize("command", ["train", "plan"])
def test_an_unknown_key_and_a_missing_file_are_said_at_once(tmp_path: Path, command: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "task: sft\nmodel: tiny-ax-4.0\noutput_dir: r\nsead: 1\ndata:\n  train: none.jsonl\n",
        "utf-8",
    )
    done = axtune(command, str(recipe))
    assert done.returncode == 1
    assert done.stderr.startswith("axtune: The recipe has 2 faults.\n")
    assert f"{recipe}:4: unknown-key: sead: no such key; did you mean seed?" in done.stderr
    assert f"{recipe}:6: bad-path: data.train: none.jsonl is no file" in done.stderr


def test_plan_exits_1_when_none_of_the_named_gpus_fits() -> None:
    words = ["plan", str(ROOT / "recipes/sft_lora.yaml"), "model=tiny-ax-4.0", "--tokens", "4096"]
    words.append("training.per_device_train_batch_size=64")
    none = axtune_in_process(*words, "--gpu", "1GB", "--json")
    assert (none.status, none.err) == (1, "")
    assert not json.loads(none.out)["cards"][0]["fits"]
    assert axtune_in_process(*words, "--gpu", "1GB", "--gpu", "12GB").status == 0
    assert axtune_in_process(*words).status == 0


def test_plan_says_what_serves_where() -> None:
    done = axtune_in_process("plan", "--serve", "--gpu", "8GB", "--gpu", "RTX 4090")
    assert (done.status, done.err) == (0, "")
    assert "skt/A.X-4.0-Light" in done.out
    assert "skt/A.X-3.1-Light" in done.out
    named = axtune_in_process("plan", "--serve", "tiny-ax-4.0", "--tokens", "100", "--json")
    rows = json.loads(named.out)
    assert {row["model"] for row in rows} == {"tiny-ax-4.0"}
    assert {row["card"] for row in rows} == {"8GB", "12GB", "16GB", "24GB"}
    recipe = str(ROOT / "recipes/sft_lora.yaml")
    of_recipe = axtune_in_process("plan", "--serve", recipe, "model=tiny-ax-4.0", "--tokens", "100",
                                  "--json")  # fmt: skip
    assert json.loads(of_recipe.out) == rows


def test_the_lights_are_planned_without_their_files() -> None:
    done = axtune_in_process("plan", "--serve", "skt/A.X-4.0-Light", "--gpu", "8GB")
    assert (done.status, done.err) == (0, "")
    assert "4.83 GB" in done.out
    assert "A.X-3.1" not in done.out


@pytest.mark.parametrize("how", [[], ["--json"], ["skt/A.X-3.1-Light"]])
def test_where_no_export_fits_the_gpu_that_is_named_it_exits_with_1(how: list[str]) -> None:
    assert axtune_in_process("plan", "--serve", *how, "--gpu", "1GB").status == 1
    assert axtune_in_process("plan", "--serve", *how, "--gpu", "1GB", "--gpu", "8GB").status == 0


def test_a_conversation_longer_than_the_context_has_a_footnote() -> None:
    done = axtune_in_process("plan", "--serve", "skt/A.X-4.0-Light", "--tokens", "100000")
    assert "skt/A.X-4.0-Light reads 16,384 tokens at most: no conversation of 100,000" in " ".join(
        done.out.split()
    )
    assert "tokens at most" not in axtune_in_process("plan", "--serve").out


def test_plan_needs_a_recipe_or_serve() -> None:
    assert "axtune plan RECIPE" in axtune_in_process("plan").err
    wrong = axtune_in_process("plan", "--serve", "no-such-model")
    assert (wrong.status, wrong.out) == (1, "")


def test_a_plan_of_serving_loads_no_torch() -> None:
    code = (
        "import sys; from axtune.cli import main\n"
        "try: main(['plan', '--serve', '--gpu', '8GB'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
