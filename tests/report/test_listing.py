"""The runs in a folder: what is said of each, whatever state it is in."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from support.reported import result, run_folder

from axtune.checkpoint.run_dir import EVALUATION
from axtune.checkpoint.run_lock import locked
from axtune.errors import AxtuneError
from axtune.report.listing import list_runs, show_runs


def shown(folder: Path, width: int = 120) -> str:
    said = io.StringIO()
    show_runs(Console(file=said, width=width), list_runs(folder), str(folder))
    return said.getvalue()


def set_status(run: Path, status: str) -> None:
    file = run / "manifest.json"
    manifest = json.loads(file.read_text()) | {"status": status}
    file.write_text(json.dumps(manifest), encoding="utf-8")


def test_a_run_is_a_line(tmp_path: Path) -> None:
    run = run_folder(tmp_path, name="sft/first")
    (run / EVALUATION).mkdir()
    result("first").write(run / EVALUATION)
    (run / "adapter").mkdir()  # else the checkpoints were all that it has
    (run / "checkpoints/checkpoint-40").mkdir(parents=True)
    (run / "checkpoints/checkpoint-40/x").write_bytes(b"0" * 2_000_000)
    (found,) = list_runs(tmp_path)
    assert (found.path, found.status, found.task) == ("sft/first", "finished", "sft")
    assert found.base == "tiny-ax-4.0"
    assert found.steps == (40, 40)
    assert (found.loss, found.held_out) == (0.1, 1.0)
    assert found.evaluation == ("accuracy", 0.7, 149)
    assert found.data is not None
    assert len(found.data) == 8
    assert found.spare == found.checkpoints == 2_000_000
    assert found.bytes > found.checkpoints
    text = shown(tmp_path)
    assert "accuracy 70%" in text
    assert [line.split()[-1] for line in text.splitlines()[:2]] == ["spare", "MB"]
    assert "Checkpoints of 1 finished run take 2 MB" in text


def test_runs_of_one_data_have_one_digest_whatever_its_order(tmp_path: Path) -> None:
    one, two = run_folder(tmp_path, name="a"), run_folder(tmp_path, name="b")
    for run, digests in ((one, {"x": "1", "y": "2"}), (two, {"other": "2", "name": "1"})):
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["data"]["train"]["digests"] = digests
        (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert len({run.data for run in list_runs(tmp_path)}) == 1


def test_a_run_that_trains_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    set_status(run, "running")
    assert list_runs(tmp_path)[0].status == "killed"
    with locked(run):
        assert list_runs(tmp_path)[0].status == "running"


def test_checkpoints_of_a_run_that_has_not_finished_are_not_spare(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    set_status(run, "interrupted")
    (run / "checkpoints").mkdir()
    (run / "checkpoints/x").write_bytes(b"0" * 1000)
    (found,) = list_runs(tmp_path)
    assert (found.checkpoints, found.spare) == (1000, 0)
    assert "clean" not in shown(tmp_path)


def test_stages_are_listed_each(tmp_path: Path) -> None:
    for name in ("cpt", "sft"):
        run_folder(tmp_path, name=f"domain/{name}")
    record = {"begun": {"cpt": "key", "sft": "key"}, "done": {}}
    (tmp_path / "domain/stages.json").write_text(json.dumps(record))
    for folder, prefix in ((tmp_path, "domain/"), (tmp_path / "domain", "")):
        found = [(run.path, run.status) for run in list_runs(folder)]
        assert found == [(f"{prefix}cpt", "finished"), (f"{prefix}sft", "finished")]


@pytest.mark.parametrize(
    "text", ["[]", '{"base": [1]}', '{"data": 3}', '{"data": {"train": 1}}', '{"plan": "x"}']
)
def test_a_manifest_of_other_types_is_damage(tmp_path: Path, text: str) -> None:
    (run_folder(tmp_path) / "manifest.json").write_text(text)
    (found,) = list_runs(tmp_path)
    assert found.status == "damaged"
    assert "manifest.json" in str(found.fault)


def test_a_loss_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": "low"}\n')
    assert list_runs(tmp_path)[0].loss == 2
    assert "2.000" in shown(tmp_path)


@pytest.mark.parametrize("what", ["cut", "gone", "evaluation"])
def test_a_damaged_run_is_listed_with_its_fault(tmp_path: Path, what: str) -> None:
    run = run_folder(tmp_path, name="broken")
    run_folder(tmp_path, name="sound")
    if what == "cut":
        (run / "manifest.json").write_text('{"status": "fin', encoding="utf-8")
    elif what == "gone":
        (run / "recipe.yaml").unlink()
    else:
        (run / EVALUATION).mkdir()
        (run / EVALUATION / "result.json").write_text("{}", encoding="utf-8")
    broken, sound = list_runs(tmp_path)
    assert (broken.status, sound.status) == ("damaged", "finished")
    assert broken.fault
    assert f"broken: {broken.fault}" in " ".join(shown(tmp_path).split())


def test_a_run_itself_may_be_named_and_nothing_in_it_is_a_run(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    run_folder(run, name="checkpoints/inner")
    assert [found.path for found in list_runs(run)] == ["."]


def test_a_folder_without_runs_and_a_path_that_is_none(tmp_path: Path) -> None:
    assert "no runs in" in shown(tmp_path)
    with pytest.raises(AxtuneError, match="There is no folder"):
        list_runs(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(AxtuneError, match="is not a folder"):
        list_runs(tmp_path / "file")


def test_a_narrow_terminal_does_without_columns_and_a_wide_one_has_all(tmp_path: Path) -> None:
    run = run_folder(tmp_path, name="mine")
    (run / EVALUATION).mkdir()
    result("mine").write(run / EVALUATION)
    heads = [shown(tmp_path, width).splitlines()[0].split() for width in (40, 80, 200)]
    assert heads[0] == ["run", "status", "steps", "loss", "size"]
    assert "evaluation" in heads[1]
    assert {"task", "base", "data", "evaluation", "size"} < set(heads[2])


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_fits_its_terminal(tmp_path: Path, width: int) -> None:
    run_folder(tmp_path, name="customer-service-2026-11")
    text = shown(tmp_path, width)
    assert "customer-service" in text  # the rest may stand below
    assert "finished" in text
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
