from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from support.tiny import recipe

from axtune.checkpoint import locate
from axtune.checkpoint.base import run_of
from axtune.checkpoint.identity import recipe_facts
from axtune.checkpoint.record import write_record
from axtune.checkpoint.run_dir import (
    RunDir,
    claim,
    describe,
    fork,
    open_run,
    read_manifest,
    recorded_weights,
    require_whole,
)
from axtune.checkpoint.steps import begin_saving, publish
from axtune.config import loader
from axtune.errors import AxtuneError


def begin(job, status="running"):
    run_dir = claim(job)
    manifest = describe(job, locate.find(job.model), {"counts": {"samples": 3}})
    run_dir.begin(job, {**manifest, "status": status})
    return run_dir


def add_checkpoint(run_dir, step, job=None):
    folder = begin_saving(run_dir.checkpoints) / f"checkpoint-{step}"
    folder.mkdir()
    for name in ("trainer_state.json", "optimizer.json", "adapter_config.json"):
        (folder / name).write_text("{}")
    return publish(folder, {"run": {"recipe": recipe_facts(job)} if job else {}})


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


@pytest.mark.parametrize("status", ["running", "failed", "finished"])
def test_a_folder_without_a_result_is_taken_over(tmp_path, status):
    job = recipe(tmp_path)
    begin(job, status)
    (job_dir := tmp_path / "run" / ".manifest.json.77.tmp").write_text("{")  # killed in a write
    assert claim(job).resumes_from is None
    assert claim(recipe(tmp_path, resume=True)).notes
    (tmp_path / "run" / "manifest.json").unlink()
    assert claim(job).resumes_from is None
    job_dir.unlink()
    (tmp_path / "run" / "recipe.yaml").unlink()
    assert claim(job).resumes_from is None
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(AxtuneError, match=r"other files: notes\.txt"):
        claim(job)


@pytest.mark.parametrize("product", ["merged", "vllm"])
def test_what_was_made_of_a_run_is_not_overwritten(tmp_path, product):
    job = recipe(tmp_path)
    (begin(job, "failed").path / product).mkdir()
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


@pytest.mark.parametrize("name", ["report.html", "evaluation", "logs", ".report.html.7.tmp"])
def test_what_a_run_shows_of_itself_is_its_own(tmp_path: Path, name: str) -> None:
    job = recipe(tmp_path, output_dir=str(tmp_path / "run"))
    (tmp_path / "run" / name).mkdir(parents=True)
    assert claim(job).resumes_from is None


def test_resume_takes_the_newest_sound_checkpoint_and_says_why(tmp_path):
    job = recipe(tmp_path, resume=True)
    run_dir = begin(job)
    older, newer = (add_checkpoint(run_dir, step, job) for step in (9, 10))
    (run_dir.checkpoints / "checkpoint-11").mkdir()  # nothing came into it
    assert claim(job).resumes_from == newer
    (newer / "optimizer.json").write_text("[]")
    claimed = claim(job)
    assert claimed.resumes_from == older
    assert any("checkpoint-10 is damaged: optimizer.json" in note for note in claimed.notes)
    begin(job)
    names = {folder.name for folder in run_dir.checkpoints.iterdir()}
    assert names == {"checkpoint-9", "checkpoint-10.damaged", "checkpoint-11.damaged"}


def test_resume_begins_again_where_no_checkpoint_is_sound(tmp_path):
    job = recipe(tmp_path, resume=True)
    (add_checkpoint(begin(job), 3, job) / "axtune-files.json").unlink()
    assert claim(job).resumes_from is None
    assert "axtune-files.json is missing" in claim(job).notes[0]


def test_a_finished_run_without_checkpoints_is_not_begun_again(tmp_path):
    job = recipe(tmp_path, resume=True)
    run_dir = begin(job)
    run_dir.write_adapter(lambda folder: (folder / "adapter_config.json").write_text("{}") and None)
    with pytest.raises(AxtuneError, match="no checkpoint to continue from"):
        claim(job)


def test_a_recipe_yaml_edited_by_hand_is_refused_with_the_difference(tmp_path):
    job = recipe(tmp_path, resume=True)
    run_dir = begin(job)
    add_checkpoint(run_dir, 3, job)
    file = run_dir.path / "recipe.yaml"
    text = file.read_text()
    file.write_text(text.replace("learning_rate: 0.005", "learning_rate: 0.5"))
    with pytest.raises(AxtuneError, match=r"changed: training\.learning_rate: 0\.005 → 0\.5"):
        claim(job)
    file.write_bytes(b"\xff" + text.encode())
    with pytest.raises(AxtuneError, match="is damaged"):
        claim(job)
    file.unlink()
    assert claim(job).resumes_from is not None


def test_a_fork_goes_beside_its_run(tmp_path):
    job = recipe(tmp_path)
    with pytest.raises(AxtuneError, match="holds no run"):
        fork(job)
    run_dir = begin(job)
    with pytest.raises(AxtuneError, match="no weights to begin from"):
        fork(job)
    weights = add_checkpoint(run_dir, 3, job)
    other = recipe(tmp_path, resume="fork", training={"learning_rate": 1e-4})
    forked, origin = fork(other)
    assert (forked.output_dir, forked.resume) == (str(tmp_path / "run-fork"), False)
    assert origin.weights == weights
    add_checkpoint(begin(forked), 1)
    assert fork(other)[0].output_dir == str(tmp_path / "run-fork2")
    with pytest.raises(AxtuneError, match=r"do not fit this recipe: lora\.r: unset → 4"):
        fork(recipe(tmp_path, lora={"r": 4}))


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
    begun = recipe(tmp_path)
    add_checkpoint(begin(begun), 5, begun)
    job = recipe(tmp_path, resume=True, **change)
    if allowed:
        assert claim(job).resumes_from is not None
    else:
        with pytest.raises(AxtuneError, match=f"another one: {next(iter(change))}"):
            claim(job)


def test_a_resumed_run_drops_events_that_it_will_make_again(tmp_path):
    job = recipe(tmp_path)
    run_dir = begin(job)
    for step in range(1, 8):
        run_dir.log({"step": step, "loss": 1 / step})
    add_checkpoint(run_dir, 5, job)
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


@pytest.mark.parametrize("lost", ["removed", "a folder", "of another adapter"])
def test_a_runs_own_adapter_is_the_one_that_it_trained(tmp_path, lost):
    def fill(folder):
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_bytes(b"trained")

    run_dir = begin(recipe(tmp_path))
    adapter = run_dir.write_adapter(fill)
    run_dir.write_manifest({**read_manifest(run_dir.path),
                            "adapter_sha256": recorded_weights(adapter)})  # fmt: skip
    assert open_run(run_dir.path).adapter == adapter
    record = adapter / "axtune-files.json"
    if lost == "of another adapter":
        (adapter / "adapter_model.safetensors").write_bytes(b"of other rows")
        write_record(adapter)
    else:
        record.unlink()
    if lost == "a folder":
        record.mkdir()
    match = "is not the one" if lost == "of another adapter" else "lacks its record"
    with pytest.raises(AxtuneError, match=f"{adapter} {match}"):
        open_run(run_dir.path)


@pytest.mark.parametrize("name", ["manifest.json", "recipe.yaml"])
def test_a_run_that_lost_a_file_is_no_run_and_says_which(tmp_path, name):
    run_dir = begin(recipe(tmp_path), "finished")
    run_dir.write_adapter(lambda folder: (folder / "adapter_config.json").write_text("{}") and None)
    (run_dir.path / name).unlink()
    for use in (open_run, run_of, lambda path: fork(recipe(path.parent, resume="fork"))):
        with pytest.raises(AxtuneError, match=rf"lacks {name}(.|\n)*{run_dir.path / 'adapter'}"):
            use(run_dir.path)
    assert run_of(run_dir.path / "adapter") is None  # an adapter like any other


def test_a_folder_that_happens_to_hold_a_recipe_is_no_run(tmp_path):
    (tmp_path / "recipe.yaml").write_text("")
    require_whole(tmp_path)


def test_a_folder_of_stages_is_no_run_and_names_them(tmp_path):
    folder = tmp_path / "domain"
    for name, status in (("cpt", "finished"), ("sft", "finished"), ("dpo", "running")):
        begin(recipe(tmp_path, output_dir=str(folder / name)), status)
    begun = {"begun": dict.fromkeys(("cpt", "sft", "dpo", "gone"), "key"), "done": {}}
    (folder / "stages.json").write_text(json.dumps(begun))
    for opened in (open_run, run_of, require_whole):
        with pytest.raises(AxtuneError, match=r"stages: cpt, sft, dpo\.") as refused:
            opened(folder)
        assert refused.value.remedy == f"Name one of them: {folder / 'sft'}."  # the last one done
