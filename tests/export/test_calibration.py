"""Calibration rows: the run's own, never those that it is judged by, drawn by a seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import tiny
from support.rows import write_jsonl

from axtune.checkpoint.base import run_of
from axtune.checkpoint.locate import find
from axtune.checkpoint.run_dir import Run, RunDir, describe
from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.config.recipe import Recipe
from axtune.data.dataset import held_out_rows
from axtune.errors import AxtuneError
from axtune.export import calibration
from axtune.export.calibration import RoundingOptions, draw
from axtune.weights.merge import plan


@pytest.fixture(scope="module")
def tokenizer() -> AxTokenizer:
    return load_tokenizer("tiny-ax-4.0")


def run_of_recipe(job: Recipe) -> Run:
    folder = Path(job.output_dir)
    RunDir(folder, None).begin(job, describe(job, find(job.model), {"precision": "fp32"}))
    (folder / "adapter").mkdir()
    (folder / "adapter/adapter_config.json").write_text("{}")
    found = run_of(folder)
    assert found is not None
    return found


def test_a_seed_draws_the_same_rows_again(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    run = run_of_recipe(tiny.recipe(tmp_path))
    one, again, other = (draw(tokenizer, run, [], rows=5, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.facts["sha256"] != other.facts["sha256"]
    assert one.facts["rows"] == len(one.sequences) == 5
    assert one.facts["tokens"] == one.tokens == sum(map(len, one.sequences))
    assert one.facts["files"] == ["rows.jsonl"]


def test_held_out_rows_are_never_drawn(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    job = tiny.recipe(tmp_path, data={"eval": 0.25})
    drawn = draw(tokenizer, run_of_recipe(job), [], rows=100)
    held = [sample.input_ids for row in held_out_rows(job, tokenizer) for sample in row.samples]
    assert len(held) == 4
    assert len(drawn.sequences) == 12
    assert not [ids for ids in held if ids in drawn.sequences]


def test_files_take_the_place_of_the_runs_rows(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    run = run_of_recipe(tiny.recipe(tmp_path))
    other = tiny.write_rows(tmp_path / "other.jsonl", 3, start=500)
    drawn = draw(tokenizer, run, [str(other)])
    assert drawn.facts["files"] == ["other.jsonl"]
    assert all("50" in tokenizer.decode(ids) for ids in drawn.sequences)


def test_preferences_count_with_the_answer_that_is_wanted(
    tokenizer: AxTokenizer, tmp_path: Path
) -> None:
    row = {
        "prompt": [{"role": "user", "content": "수도는?"}],
        "chosen": [{"role": "assistant", "content": "서울입니다."}],
        "rejected": [{"role": "assistant", "content": "부산입니다."}],
    }
    file = write_jsonl(tmp_path / "pairs.jsonl", [row])
    drawn = draw(tokenizer, None, [str(file)])
    (ids,) = drawn.sequences
    assert "서울입니다." in tokenizer.decode(ids)
    assert "부산입니다." not in tokenizer.decode(ids)


def test_a_cpu_takes_as_many_tokens_as_it_computes_in_minutes(
    tokenizer: AxTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(calibration, "_CPU_TOKENS", 100)
    run = run_of_recipe(tiny.recipe(tmp_path))
    assert draw(tokenizer, run, []).tokens == 100
    assert len(draw(tokenizer, run, [], rows=16).sequences) == 16  # what was asked for is taken


def test_long_rows_are_cut(
    tokenizer: AxTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "_LONGEST", 10)
    run = run_of_recipe(tiny.recipe(tmp_path))
    assert {len(ids) for ids in draw(tokenizer, run, [], rows=4).sequences} == {10}


def test_files_without_a_sound_row_are_refused(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"messages": []}])
    with pytest.raises(AxtuneError, match="no row to calibrate on") as caught:
        draw(tokenizer, None, [str(file)])
    assert "axtune data check" in caught.value.remedy


SOUND = {"messages": [{"role": "user", "content": "수도는?"},
                      {"role": "assistant", "content": "서울입니다."}]}  # fmt: skip


def test_rows_that_are_refused_are_named(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [SOUND, *[{"messages": []}] * 7, SOUND | {"id": 1}])
    said: list[str] = []
    drawn = draw(tokenizer, None, [str(file)], say=said.append)
    assert (drawn.facts["rows"], drawn.facts["refused"]) == (2, 7)
    assert said[0] == "7 rows are refused, and not calibrated on:"
    assert said[1].startswith(f"{file}:2: bad-messages: ")
    assert len(said) == 7
    assert "axtune data check" in said[-1]
    assert "서울" not in "".join(said)


def test_of_no_sound_row_the_faults_are_named(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"messages": []}\nnot json\n', encoding="utf-8")
    with pytest.raises(AxtuneError, match="no row to calibrate on: all 2 are refused") as caught:
        draw(tokenizer, None, [str(file)])
    assert f"{file}:1: bad-messages" in str(caught.value)
    assert f"{file}:2: not-json" in str(caught.value)


def test_where_the_rows_of_a_run_are_gone_it_says_what_else_to_give(
    tokenizer: AxTokenizer, tmp_path: Path
) -> None:
    run = run_of_recipe(tiny.recipe(tmp_path))
    for source in run.recipe.data.sources:
        Path(source.path).unlink()
    with pytest.raises(AxtuneError, match=r"The rows of the run .* cannot be read") as caught:
        draw(tokenizer, run, [])
    assert "rows.jsonl" in caught.value.found
    assert "--calibrate FILE" in caught.value.remedy
    assert "--fast" in caught.value.remedy


def test_it_says_how_many_rows_and_tokens_it_uses_and_when_they_are_few(
    tokenizer: AxTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan([], "tiny-ax-4.0")
    file = write_jsonl(tmp_path / "rows.jsonl", [SOUND])
    said: list[str] = []
    options = RoundingOptions(calibrate=(str(file),), say=said.append)
    drawn = options.calibration(planned, tokenizer)
    assert drawn is not None
    assert said[0] == f"calibrating on 1 row ({drawn.tokens} tokens) of rows.jsonl"
    assert said[1].startswith(f"warning: {drawn.tokens} tokens say little")
    monkeypatch.setattr(calibration, "_FEW_TOKENS", drawn.tokens)
    said.clear()
    options.calibration(planned, tokenizer)
    assert len(said) == 1
