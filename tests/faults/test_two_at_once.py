"""Two runs started into one folder, a fork, and runs that saved too little to go on from."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.commands import losses
from support.forked import Forked
from support.tiny import LIBRARY_WARNINGS, recipe

from axtune.checkpoint.run_lock import locked
from axtune.config import loader
from axtune.errors import AxtuneError
from axtune.run import train

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]

STEADY = {"eval_strategy": "steps", "eval_steps": 1}


@pytest.mark.parametrize("resume", [False, True])
def test_of_two_runs_one_trains_and_the_other_is_told(tmp_path: Path, resume: bool) -> None:
    started = []
    for number in range(2):
        job = recipe(
            tmp_path, output_dir=str(tmp_path / "deep" / "run"), seed=number, resume=resume
        )
        (tmp_path / f"{number}.yaml").write_text(loader.dump(job), encoding="utf-8")
        words = ["train", str(tmp_path / f"{number}.yaml")]
        started.append(Forked("axtune.cli:main", words, output=tmp_path / f"{number}.said"))
        time.sleep(0.1)
    codes = [process.wait() for process in started]
    said = [process.said for process in started]
    assert sorted(codes) == [0, 1], said
    winner = codes.index(0)
    # The slower one may come when the other has finished; either way nothing is mixed.
    assert any(words in said[1 - winner] for words in ("Another run", "already holds", "another"))
    assert "Traceback" not in said[1 - winner]
    folder = tmp_path / "deep" / "run"
    assert loader.load(folder / "recipe.yaml", check_paths=False).seed == winner
    assert json.loads((folder / "manifest.json").read_text())["seed"] == winner


def test_a_resume_while_the_first_still_trains_is_told(tmp_path: Path) -> None:
    job = recipe(tmp_path)
    train(job)
    with locked(Path(job.output_dir)), pytest.raises(AxtuneError, match="Another run is writing"):
        train(recipe(tmp_path, resume=True))


def test_a_fork_begins_with_the_weights_and_a_fresh_schedule(tmp_path: Path) -> None:
    first = train(recipe(tmp_path, training={**STEADY, "max_steps": 3}))
    kept = {file: file.read_bytes() for file in first.path.rglob("*") if file.is_file()}
    forked = train(
        recipe(tmp_path, resume="fork", training={**STEADY, "max_steps": 1, "learning_rate": 1e-9})
    )
    assert forked.path == tmp_path / "run-fork"
    assert forked.manifest["forked_from"] == {"run": str(first.path), "weights": "checkpoint-3"}
    assert losses(forked.path)[0] < losses(first.path)[0] - 1
    before, after = (
        load_file(run.adapter / "adapter_model.safetensors") for run in (first, forked)
    )
    for name, tensor in before.items():
        assert after[name].allclose(tensor, atol=1e-6)
    assert kept == {file: file.read_bytes() for file in first.path.rglob("*") if file.is_file()}


def test_a_run_that_saves_weights_alone_is_forked_not_resumed(tmp_path: Path) -> None:
    alone = {**STEADY, "max_steps": 1, "save_only_model": True}
    train(recipe(tmp_path, training=alone))
    with pytest.raises(AxtuneError, match=r"holds weights alone(.|\n)*resume=fork"):
        train(recipe(tmp_path, resume=True, training={**alone, "max_steps": 2}))
    assert train(recipe(tmp_path, resume="fork", training=alone)).path.name == "run-fork"


def test_a_checkpoint_in_pickles_is_merged_and_forked_not_resumed(tmp_path: Path) -> None:
    run = train(recipe(tmp_path, training={**STEADY, "max_steps": 1}))
    checkpoint = run.path / "checkpoints" / "checkpoint-1"
    for name in ("axtune-files.json", "optimizer.json", "optimizer.safetensors"):
        (checkpoint / name).unlink()
    (checkpoint / "optimizer.pt").write_bytes(b"\x80cposix\nsystem\n")
    with pytest.raises(AxtuneError, match="pickle files"):
        train(recipe(tmp_path, resume=True, training=STEADY))
    assert train(recipe(tmp_path, resume="fork", training=STEADY)).path.name == "run-fork"


def test_a_run_writes_no_pickle(tmp_path: Path) -> None:
    run = train(recipe(tmp_path, training={"max_steps": 1}))
    ends = {file.suffix for file in run.path.rglob("*") if file.is_file()}
    texts = {".json", ".jsonl", ".yaml", ".md", ".html", ".jinja", ".txt"}
    assert ends <= texts | {".safetensors", ".png"}
