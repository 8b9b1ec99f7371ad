"""The checkpoints of a run on the disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from axtune.checkpoint import steps
from axtune.checkpoint.record import RECORD
from axtune.errors import AxtuneError


def save(checkpoints: Path, step: int, *names: str) -> Path:
    made = steps.begin_saving(checkpoints) / f"checkpoint-{step}"
    made.mkdir()
    (made / "trainer_state.json").write_text('{"best_model_checkpoint": "/home/me"}')
    for name in names or ("optimizer.json", "adapter_model.safetensors"):
        (made / name).write_text(f"{name} of {step}")
    return steps.publish(made, {"run": {}})


def names(checkpoints: Path) -> list[str]:
    return sorted(entry.name for entry in checkpoints.iterdir())


def test_a_checkpoint_has_its_record_and_no_path_of_this_machine(tmp_path: Path) -> None:
    saved = save(tmp_path, 3)
    assert names(tmp_path) == ["checkpoint-3"]
    assert json.loads((saved / "trainer_state.json").read_text())["best_model_checkpoint"] is None
    assert steps.facts_of(saved) == {"step": 3, "run": {}}
    assert steps.newest_sound(tmp_path) == steps.Newest(saved, {})
    steps.require_resumable(saved)


def test_a_checkpoint_takes_the_place_of_one_of_the_same_step(tmp_path: Path) -> None:
    (save(tmp_path, 3) / "mark").write_text("old")
    assert not (save(tmp_path, 3) / "mark").exists()
    assert names(tmp_path) == ["checkpoint-3"]


def test_the_record_is_written_when_all_else_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path) -> None:
        assert not (folder / RECORD).exists()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    older = save(tmp_path, 1)
    monkeypatch.setattr(steps, "flush", refused)
    with pytest.raises(OSError, match="Input/output"):
        save(tmp_path, 2)
    assert not list(tmp_path.rglob(f"checkpoint-2/{RECORD}"))
    assert steps.newest_sound(tmp_path) == steps.Newest(older, {})


def test_only_checkpoints_by_their_names_count(tmp_path: Path) -> None:
    saved = save(tmp_path, 9)
    for name in ("checkpoint-10.damaged", "checkpoint-x", ".saving", "checkpoint-²"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-11").write_text("a file")
    assert steps.all_checkpoints(tmp_path) == [saved]
    assert steps.last_checkpoint(tmp_path) == saved
    assert steps.last_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / RECORD).unlink(), "is missing"),
        (lambda folder: (folder / RECORD).write_text("{"), "is damaged"),
        (lambda folder: (folder / "trainer_state.json").unlink(), "trainer_state.json is missing"),
        (lambda folder: (folder / "optimizer.json").write_text(""), "has 0 bytes"),
        (lambda folder: folder.rename(folder.with_name("checkpoint-20")), "of step 12"),
    ],
)
def test_the_next_older_one_is_offered(tmp_path: Path, damage: object, said: str) -> None:
    older, newer = save(tmp_path, 9), save(tmp_path, 12)
    assert callable(damage)
    damage(newer)
    found = steps.newest_sound(tmp_path)
    assert found.checkpoint == older
    (note,) = found.notes()
    assert said in note
    assert "Going on from checkpoint-9" in note


def test_what_cannot_be_gone_on_from_says_why(tmp_path: Path) -> None:
    weights_only = save(tmp_path, 1, "adapter_model.safetensors")
    with pytest.raises(AxtuneError, match="holds weights alone"):
        steps.require_resumable(weights_only)
    older = tmp_path / "checkpoint-2"
    older.mkdir()
    for name in ("optimizer.pt", "trainer_state.json"):
        (older / name).write_text("{}")
    assert steps.newest_sound(tmp_path).checkpoint == older  # to be merged, still
    with pytest.raises(AxtuneError, match=r"pickle files.*\n.*resume=fork"):
        steps.require_resumable(older)


@pytest.mark.parametrize(
    ("limit", "best", "kept"),
    [(2, None, [3, 4]), (1, None, [4]), (2, 1, [1, 4]), (1, 2, [2, 4]), (None, None, [1, 2, 3, 4])],
)
def test_the_newest_and_the_best_stay(
    tmp_path: Path, limit: int | None, best: int | None, kept: list[int]
) -> None:
    newest = [save(tmp_path, step) for step in (1, 2, 3, 4)][-1]
    steps.rotate(newest, best, limit)
    assert names(tmp_path) == [f"checkpoint-{step}" for step in kept]


def test_leftovers_and_abandoned_steps_are_cleared(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    for name in (".saving/checkpoint-4", ".removing/a", "checkpoint-3.damaged/a"):
        (tmp_path / name).mkdir(parents=True)
    steps.clear(tmp_path, 2)
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-3.damaged"]
    assert (tmp_path / "checkpoint-3.damaged" / RECORD).is_file()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("Error while serializing: I/O error: whatever (os error 28)"),
    ],
)
def test_a_full_disk_is_told_with_what_is_whole(tmp_path: Path, error: Exception) -> None:
    said = str(steps.not_saved(tmp_path, 5, error))
    assert "step 5" in said
    assert "No space left on device" in said
    assert "no checkpoint was saved before it" in said
    save(tmp_path, 4)
    assert "checkpoint-4 is whole" in str(steps.not_saved(tmp_path, 5, error))


def test_a_save_that_broke_leaves_nothing(tmp_path: Path) -> None:
    steps.begin_saving(tmp_path)
    assert steps.saving_in(tmp_path).is_dir()
    steps.discard_saving(tmp_path)
    assert names(tmp_path) == []
