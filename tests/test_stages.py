"""Stages: each from the one before, done once, anew where something changed; one page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import staged
from support.commands import train_in_processes
from support.rows import ROOT

from axtune.checkpoint.run_dir import open_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The recipe, its folder, and what was printed."""
    folder = tmp_path_factory.mktemp("stages")
    recipe = staged.write(folder, folder / "path")
    return recipe, folder / "path", staged.run(recipe)


def test_everything_is_made(done: tuple[Path, Path, str]) -> None:
    _, out, printed = done
    assert "stages      cpt, sft, merge, export, verify, evaluate cpt, evaluate sft" in printed
    sft = open_run(out / "sft")
    assert sft.recipe.start_from == str(out / "cpt")
    assert json.loads((out / "sft/vllm/certificate.json").read_text())["passed"]
    assert json.loads((out / "sft/merged/certificate.json").read_text())["passed"]
    page = (out / "report.html").read_text()
    assert "2 runs compared" in page
    # Base, after documents, after conversations; the base was asked once.
    of_cpt, of_sft = staged.results(out).values()
    before = {(one["category"], one["metric"]): one["before"] for one in of_cpt["measured"]}
    assert before == {(one["category"], one["metric"]): one["before"] for one in of_sft["measured"]}
    losses = [one for one in of_sft["measured"] if one["metric"] == "loss"]
    assert {one["category"] for one in losses} >= {"alpaca.jsonl", "documents.jsonl"}
    (header,) = [
        line for line in printed.splitlines() if line.split() == ["n", "base", "cpt", "sft"]
    ]
    assert header
    assert "tiny-ax-4.0: 4 answers kept from before" in " ".join(printed.split())


def test_what_is_done_is_passed_over(done: tuple[Path, Path, str]) -> None:
    recipe, out, _ = done
    files = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
    printed = staged.run(recipe)
    assert "cpt (done), sft (done), merge (done)" in printed
    changed = {file.name for file, then in files.items() if file.stat().st_mtime_ns != then}
    assert changed == {"report.html"}


def test_what_changed_is_made_anew_and_the_run_that_was_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "path"
    recipe = staged.write(tmp_path, out, ("after: [merge, export, verify]", "after: [merge]"))
    staged.run(recipe)
    before = staged.adapters(out)
    printed = staged.run(recipe, "stages.sft.training.max_steps=2")
    assert "cpt (done), sft, merge, evaluate cpt (done), evaluate sft" in printed
    assert f"sft has changed; the run that it was is kept in {out / 'sft-1'}." in printed
    after = staged.adapters(out)
    assert staged.equal({"cpt": before["cpt"]}, after)
    assert not staged.equal({"sft": before["sft"]}, after)
    assert open_run(out / "sft-1").manifest["status"] == "finished"
    (out / "sft/merged/config.json").unlink()  # a result that is gone is made again
    assert "sft (done), merge, evaluate cpt (done)" in staged.run(
        recipe, "stages.sft.training.max_steps=2"
    )


def test_several_processes_are_refused(tmp_path: Path) -> None:
    words = ["model=tiny-ax-4.0", f"output_dir={tmp_path / 'path'}"]
    process = train_in_processes(2, ROOT / "recipes/domain_adaptation.yaml", words)
    assert process.status == 1
    assert "A recipe of stages runs in one process." in process.said
