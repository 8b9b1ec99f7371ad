from __future__ import annotations

import json
import math
import os

import pytest
from support.tiny import recipe

from axtune.checkpoint import catalog
from axtune.checkpoint.run_dir import RunDir, claim, describe, last_checkpoint, open_run
from axtune.config import loader
from axtune.errors import AxtuneError


def begin(job, status="running"):
    run_dir = claim(job)
    manifest = describe(job, catalog.find(job.model), {"counts": {"samples": 3}})
    run_dir.begin(job, {**manifest, "status": status})
    return run_dir


def add_checkpoint(run_dir, step):
    folder = run_dir.checkpoints / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "trainer_state.json").write_text("{}")
    return folder


def test_a_fresh_run_writes_recipe_and_manifest(tmp_path):
    job = recipe(tmp_path)
    run_dir = begin(job)
    assert loader.load(run_dir.path / "recipe.yaml") == job
    manifest = json.loads((run_dir.path / "manifest.json").read_text())
    assert manifest["status"] == "running"
    assert manifest["base"]["name"] == "tiny-ax-4.0"
    assert manifest["versions"].keys() >= {"python", "torch", "transformers", "trl", "peft"}
    assert str(tmp_path) not in (run_dir.path / "manifest.json").read_text()
    assert not list(run_dir.path.glob(".*"))


def test_a_folder_that_holds_a_run_is_refused_with_both_ways_out(tmp_path):
    job = recipe(tmp_path)
    add_checkpoint(begin(job, "failed"), 5)
    with pytest.raises(AxtuneError) as error:
        claim(job)
    assert "resume=true" in str(error.value)
    assert "output_dir=" in str(error.value)


@pytest.mark.parametrize("status", ["running", "finished"])
def test_a_run_without_a_checkpoint_is_kept_unless_it_broke(tmp_path, status):
    job = recipe(tmp_path)
    begin(job, status)
    with pytest.raises(AxtuneError, match="already holds a run"):
        claim(job)


def test_a_run_that_broke_before_its_first_checkpoint_may_be_started_again(tmp_path):
    job = recipe(tmp_path)
    begin(job, "failed").log({"step": 1, "loss": 2.0})
    assert begin(job).metrics() == []


def test_a_folder_of_other_files_is_refused(tmp_path):
    job = recipe(tmp_path, output_dir=str(tmp_path))
    with pytest.raises(AxtuneError, match="holds other files"):
        claim(job)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    job = recipe(tmp_path, output_dir=str(tmp_path / "rows.jsonl"))
    with pytest.raises(AxtuneError, match="is a file"):
        claim(job)
    with pytest.raises(AxtuneError, match=r"rows\.jsonl is a file"):
        claim(recipe(tmp_path, output_dir=str(tmp_path / "rows.jsonl" / "run")))


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_loaded(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(AxtuneError, match="you may not write into"):
        claim(recipe(tmp_path, output_dir=str(tmp_path / "deep" / "run")))


def test_resume_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(AxtuneError, match="no checkpoint"):
        claim(recipe(tmp_path, resume=True))


def test_resume_takes_the_newest_whole_checkpoint(tmp_path):
    run_dir = begin(recipe(tmp_path))
    for step in (9, 10):
        add_checkpoint(run_dir, step)
    (run_dir.checkpoints / "checkpoint-11").mkdir()  # killed before its state was written
    newest = run_dir.checkpoints / "checkpoint-10"
    assert last_checkpoint(run_dir.checkpoints) == newest
    assert claim(recipe(tmp_path, resume=True)).resumes_from == newest


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({"lora": {"r": 8}}, False),
        ({"seed": 1}, False),
        ({"model": "tiny-ax-3.1"}, False),
        ({"training": {"max_steps": 9}}, True),
        ({"early_stopping_patience": None}, True),
    ],
    ids=str,
)
def test_resume_is_refused_where_steps_would_mean_something_else(tmp_path, change, allowed):
    add_checkpoint(begin(recipe(tmp_path)), 5)
    job = recipe(tmp_path, resume=True, **change)
    if allowed:
        assert claim(job).resumes_from is not None
    else:
        with pytest.raises(AxtuneError, match=f"another {next(iter(change))}"):
            claim(job)


def test_a_resumed_run_drops_events_that_it_will_make_again(tmp_path):
    run_dir = begin(recipe(tmp_path))
    for step in range(1, 8):
        run_dir.log({"step": step, "loss": 1 / step})
    add_checkpoint(run_dir, 5)
    assert [e["step"] for e in begin(recipe(tmp_path, resume=True)).metrics()] == [1, 2, 3, 4, 5]


def test_metrics_are_json_even_when_the_loss_is_not_a_number(tmp_path):
    run_dir = begin(recipe(tmp_path))
    run_dir.log({"step": 1, "loss": math.nan, "grad_norm": math.inf})
    run_dir.log({"step": 2, "loss": 1.5})
    lines = run_dir.metrics_file.read_text().splitlines()
    assert json.loads(lines[0], parse_constant=pytest.fail) == {
        "step": 1,
        "loss": None,
        "grad_norm": None,
    }
    with run_dir.metrics_file.open("a") as file:
        file.write('{"step": 3, "lo')  # a crash in the middle of a line
    assert [event["step"] for event in run_dir.metrics()] == [1, 2]


def test_the_adapter_appears_whole_or_not_at_all(tmp_path):
    run_dir = begin(recipe(tmp_path))

    def breaks(folder):
        (folder / "adapter_config.json").write_text("{}")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        run_dir.write_adapter(breaks)
    assert not (run_dir.path / "adapter").exists()
    for text in ("first", "second"):  # the second replaces the first
        run_dir.write_adapter(lambda folder, text=text: (folder / "a").write_text(text) and None)
        assert (run_dir.path / "adapter" / "a").read_text() == text
    assert not list(run_dir.path.glob(".adapter*"))


def test_open_run_gives_the_adapter_or_the_newest_checkpoint(tmp_path):
    run_dir = begin(recipe(tmp_path))
    with pytest.raises(AxtuneError, match="saved no adapter"):
        open_run(run_dir.path)
    checkpoint = add_checkpoint(run_dir, 3)
    assert open_run(run_dir.path).adapter == checkpoint
    run_dir.write_adapter(lambda folder: (folder / "adapter_config.json").write_text("{}") and None)
    opened = open_run(str(run_dir.path))
    assert opened.adapter == run_dir.path / "adapter"
    assert opened.recipe == recipe(tmp_path)
    assert opened.manifest["counts"] == {"samples": 3}


@pytest.mark.parametrize(("name", "match"), [("nowhere", "does not exist"), (".", "not a run")])
def test_open_run_says_what_is_no_run(tmp_path, name, match):
    with pytest.raises(AxtuneError, match=match):
        open_run(tmp_path / name)


def test_a_finished_run_without_its_adapter_is_no_run_of_its_checkpoint(tmp_path):
    run_dir = RunDir(tmp_path / "run", None)
    run_dir.begin(recipe(tmp_path), {"status": "finished"})
    add_checkpoint(run_dir, 3)
    with pytest.raises(AxtuneError, match="has finished, and its adapter is not there"):
        open_run(run_dir.path)
