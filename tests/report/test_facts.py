"""What a run folder says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.reported import certified, evaluated, run_folder

from axtune.errors import AxtuneError
from axtune.report.facts import differences, names_of, read_run


def test_a_run_with_everything(tmp_path: Path) -> None:
    run = read_run(certified(evaluated(run_folder(tmp_path))), "run")
    assert run.best_step == 30
    assert run.result
    assert run.result.questions == 149
    assert run.certificates["merged"]["passed"]
    assert run.answers == []


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / "metrics.jsonl").unlink()
    (folder / "manifest.json").write_text('{"status": "running"}', encoding="utf-8")
    run = read_run(folder, "run")
    assert (run.best_step, run.events, run.result, run.certificates) == (None, [], None, {})


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AxtuneError, match="is not a run folder"):
        read_run(tmp_path, "x")
    with pytest.raises(AxtuneError, match="does not exist"):
        read_run(tmp_path / "nowhere", "x")


def test_examples_need_an_evaluation(tmp_path: Path) -> None:
    with pytest.raises(AxtuneError, match="axtune eval"):
        read_run(run_folder(tmp_path), "run", with_answers=True)
    assert len(read_run(evaluated(tmp_path / "run"), "run", with_answers=True).answers) == 6


def test_names_tell_runs_apart() -> None:
    assert names_of(["runs/a", "runs/b"]) == ["a", "b"]
    assert names_of(["may/a", "june/a"]) == ["may/a", "june/a"]
    with pytest.raises(AxtuneError, match="given twice"):
        names_of(["runs/a", "runs/../runs/a"])


def test_keys_that_differ(tmp_path: Path) -> None:
    one = run_folder(tmp_path, name="one", lora={"r": 8})
    other = run_folder(tmp_path, name="other", lora={"r": 16, "target_modules": ["q_proj"]})
    runs = [read_run(one, "one"), read_run(other, "other")]
    assert differences(runs) == [("lora.r", ["8", "16"]), ("lora.target_modules", ["–", "q_proj"])]
    assert differences([runs[0], runs[0]]) == []


def test_values_that_differ_are_written_as_in_a_recipe(tmp_path: Path) -> None:
    """One is no ``true``, and a source is its path with what is set beside it."""
    rows = str(tmp_path / "rows.jsonl")
    more = [{"path": rows, "weight": 0.5, "limit": 9}, {"path": rows}]
    changes: list[dict[str, Any]] = [
        {"data": {"train": rows, "packing": True}, "training": {"num_train_epochs": 1}},
        {"data": {"train": more, "packing": False}, "training": {"num_train_epochs": 0.5}},
    ]
    folders = [run_folder(tmp_path, name=str(n), **each) for n, each in enumerate(changes)]
    found = dict(differences([read_run(folder, folder.name) for folder in folders]))
    assert found["training.num_train_epochs"] == ["1", "0.5"]
    assert found["data.packing"] == ["true", "false"]
    assert found["data.train"] == [rows, f"{rows} weight=0.5 limit=9, {rows}"]
