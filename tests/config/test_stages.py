"""Recipes of stages: what each stage comes to, and every fault at the line of its own file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.rows import ROOT
from support.tiny import RECIPES

from axtune.config.loader import load
from axtune.config.stages import has_stages, is_recipe, jobs_of, load_stages
from axtune.errors import RecipeError

ROWS = ROOT / "data_templates/chat.jsonl"
TEXT = f"""\
model: tiny-ax-4.0
output_dir: runs/path
seed: 7
lora: {{r: 4, lora_alpha: 8}}
stages:
  sft:
    recipe: {ROOT}/recipes/sft_lora.yaml
    data: {{train: {ROWS}, eval: null}}
    training:
      max_steps: 3
  again:
    recipe: {ROOT}/recipes/sft_lora.yaml
    data: {{train: {ROWS}}}
    lora: {{lora_dropout: 0.5}}
after: [merge, verify]
evaluate:
  data: {ROWS}
  limit: 4
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "path.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_stage_is_its_recipe_with_changes(tmp_path: Path) -> None:
    stages = load_stages(written(tmp_path, TEXT), ["stages.again.seed=9", "precision=fp32"])
    first, second = stages.recipes["sft"], stages.recipes["again"]
    assert (first.output_dir, second.output_dir) == ("runs/path/sft", "runs/path/again")
    assert (first.start_from, second.start_from) == (None, "runs/path/sft")
    assert (first.seed, second.seed) == (7, 9)
    assert first.precision == second.precision == "fp32"
    assert first.model == "tiny-ax-4.0"
    assert first.training["max_steps"] == 3
    assert first.training["lr_scheduler_type"] == "cosine"  # of sft_lora.yaml
    assert "max_steps" not in second.training
    assert (first.lora["r"], second.lora["r"], second.lora["lora_dropout"]) == (4, 4, 0.5)
    assert first.data.eval is None
    assert second.data.eval == 0.1
    assert stages.after == ("merge", "verify")
    assert stages.evaluate is not None
    assert (stages.evaluate.data, stages.evaluate.limit) == ([str(ROWS)], 4)


def test_stages_take_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    recipes = (ROOT / "recipes/sft_lora.yaml").read_text(encoding="utf-8")
    (tmp_path / "sft_lora.yaml").write_text(recipes, encoding="utf-8")
    (tmp_path / "rows.jsonl").write_bytes(ROWS.read_bytes())
    text = TEXT.replace(f"{ROOT}/recipes", "~").replace(str(ROWS), "~/rows.jsonl")
    text = text.replace("runs/path", "~/runs/path")
    stages = load_stages(written(tmp_path, text))
    home = str(tmp_path)
    assert stages.output_dir == f"{home}/runs/path"
    assert stages.recipes["sft"].output_dir == f"{home}/runs/path/sft"
    assert stages.recipes["again"].start_from == f"{home}/runs/path/sft"
    assert stages.recipes["sft"].data.train[0].path == f"{home}/rows.jsonl"
    assert stages.evaluate is not None
    assert stages.evaluate.data == [f"{home}/rows.jsonl"]


def test_files_of_stages_are_told_from_others(tmp_path: Path) -> None:
    assert has_stages(written(tmp_path, TEXT))
    assert not has_stages(ROOT / "recipes/sft_lora.yaml")
    with pytest.raises(RecipeError, match=r"path\.yaml:5: has-stages: .*axtune train"):
        load(written(tmp_path, TEXT))


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("seed: 7", "sead: 7", 3, r"unknown-key: sead: .*seed"),
        ("output_dir: runs/path\n", "", 0, "missing-key: output_dir"),
        ("seed: 7", "task: sft", 3, "unknown-key: task: .*single stage"),
        ("seed: 7", "resume: true", 3, "unknown-key: resume: .*the same command"),
        ("max_steps: 3", "max_stepz: 3", 10, "unknown-key: training.max_stepz: .*max_steps"),
        ("max_steps: 3", "max_steps: drei", 10, "bad-value: training.max_steps"),
        ("    training:\n", "    output_dir: x\n    training:\n", 9, "not of a stage"),
        ("lora: {lora_dropout", "start_from: x\n    lora: {lora_dropout", 14, "the stage before"),
        ("sft_lora.yaml\n    data: {train: /", "no.yaml\n    data: {train: /", 0, "unreadable"),
        ("after: [merge, verify]", "after: [verify]", 15, "conflict: after: verify needs"),
        ("after: [merge, verify]", "after: [evaluate]", 15, "bad-value: after: .*key of its own"),
        ("  limit: 4", "  limit: 0", 18, "bad-value: evaluate.limit"),
        ("  limit: 4", "  every: 4", 18, "bad-value: evaluate.every"),
        (f"  data: {ROWS}", "  data: gone.jsonl", 17, "evaluate.data: .*gone.jsonl"),
        ("  again:\n", "  ../x:\n", 11, "bad-value: stages.../x: .*folder"),
    ],
)  # fmt: skip
def test_faults(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    assert TEXT.count(old) >= 1
    file = written(tmp_path, TEXT.replace(old, new, 1))
    with pytest.raises(RecipeError) as raised:
        load_stages(file)
    (fault, *others) = raised.value.faults
    assert not others, others
    assert re.search(message, str(fault)), str(fault)
    assert fault.line == line
    if line:
        assert fault.file == str(file)


def test_all_faults_at_once_and_each_once(tmp_path: Path) -> None:
    text = TEXT.replace("seed: 7", "seed: -1").replace("max_steps: 3", "max_stepz: 3")
    with pytest.raises(RecipeError) as raised:
        load_stages(written(tmp_path, text.replace("limit: 4", "limit: 0")))
    assert [fault.line for fault in raised.value.faults] == [3, 10, 18]


@pytest.mark.parametrize("stages", ["stages: 3", "stages: {}", "stages: {sft: 1}", "stages: [a]"])
def test_stages_of_another_kind(tmp_path: Path, stages: str) -> None:
    text = f"model: tiny-ax-4.0\noutput_dir: runs/x\n{stages}\n"
    with pytest.raises(RecipeError, match=r"path\.yaml:3: .*recipe"):
        load_stages(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("model: a\ndata: {train: b}", True),
        ("output_dir: a\nstages: {sft: {recipe: b.yaml}}", True),
        ("task: sft\nmodel: a\ndta: {train: b}", False),  # of nothing to train on
        ("stages: {build: {cmd: make}}", False),  # another program's
        ("- a\n- b", False),
        ("a: [", False),
    ],
)
def test_a_yaml_file_is_a_recipe_or_a_document(tmp_path: Path, text: str, wanted: bool) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text, encoding="utf-8")
    assert is_recipe(str(file)) == wanted
    assert not is_recipe(str(tmp_path / "gone.yaml"))


def test_the_jobs_of_a_recipe_are_those_of_its_stages_or_its_own() -> None:
    assert list(jobs_of(RECIPES / "domain_adaptation.yaml", ["model=tiny-ax-4.0"])) == [
        "cpt",
        "sft",
    ]
    own = jobs_of(RECIPES / "sft_lora.yaml", ["model=tiny-ax-4.0"])
    assert own[""].task == "sft"
