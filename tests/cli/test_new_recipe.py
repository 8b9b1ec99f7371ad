"""`axtune init`: what it writes for which data and card, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from support.commands import axtune_in_process
from support.tiny import write_rows

from axtune.config.loader import load

TEMPLATES = Path(__file__).parents[2] / "data_templates"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def made(*words: str, data: str = "chat.jsonl") -> str:
    given = ["--data", str(TEMPLATES / data)] if data else []
    done = axtune_in_process("init", "--model", "tiny-ax-4.0", *given, "--yes", *words)
    assert done.status == 0, done.err
    return done.out


@pytest.mark.parametrize(
    ("data", "task"),
    [
        ("chat.jsonl", "sft"),
        ("preference.jsonl", "dpo"),
        ("unpaired.jsonl", "kto"),
        ("documents.jsonl", "cpt"),
    ],
)
def test_the_rows_say_which_task(data: str, task: str) -> None:
    said = made("mine.yaml", data=data)
    recipe = load("mine.yaml")
    assert (recipe.task, recipe.model, recipe.output_dir) == (task, "tiny-ax-4.0", "runs/mine")
    assert f"recipes/{task}_lora.yaml" in said
    assert "accelerate launch mine.yaml" in said
    assert "accelerate launch mine.yaml" in Path("mine.yaml").read_text()  # its own head
    assert "at the peak of" in said


def test_a_small_card_gets_four_bits_and_a_large_one_does_not() -> None:
    tiny = TEMPLATES.parent / "axtune/embedded/tiny-ax-4.0"
    wide = Path("wide")
    wide.mkdir()
    for file in tiny.iterdir():
        if file.suffix == ".json":
            (wide / file.name).write_bytes(file.read_bytes())
    config = json.loads((wide / "config.json").read_text())
    config |= {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
               "num_attention_heads": 28, "num_key_value_heads": 4}  # fmt: skip
    config.pop("layer_types", None)
    config.pop("head_dim", None)
    (wide / "config.json").write_text(json.dumps(config))
    for gpu, four_bit in (("8GB", True), ("24GB", False)):
        done = axtune_in_process(
            "init", f"{gpu}.yaml", "--model", "wide", "--data", str(TEMPLATES / "chat.jsonl"),
            "--gpu", gpu, "--yes",
        )  # fmt: skip
        assert done.status == 0, done.err
        recipe = load(f"{gpu}.yaml")
        assert bool(recipe.quantization) is four_bit
        assert f"of {gpu}" in done.out


def test_what_is_refused_is_said_and_skipped(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 8)
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    said = made("mine.yaml", "--data", "rows.jsonl", data="")
    assert "rows.jsonl:9: not-json" in said
    assert "1 refused, which the recipe skips" in said
    assert load("mine.yaml").data.on_error == "skip"


def test_rows_of_other_tasks_are_said_and_skipped(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 8)
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write((TEMPLATES / "preference.jsonl").read_text("utf-8").splitlines()[0] + "\n")
        file.write('{"text": "문서"}\n')
    said = made("mine.yaml", "--data", "rows.jsonl", data="")
    assert "2 rows of other tasks, which the recipe skips" in said
    assert load("mine.yaml").data.on_error == "skip"
    said = made("cpt.yaml", "--data", "rows.jsonl", "--task", "cpt", data="")
    assert "1 row of other tasks" in said  # for conversations may stand among documents


def test_a_model_that_is_not_here_is_not_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = axtune_in_process(
        "init", "--data", str(TEMPLATES / "chat.jsonl"), "--gpu", "8GB", "--yes"
    )
    assert done.status == 0, done.err
    assert "not planned" in done.out
    recipe = load("recipe.yaml")
    assert (recipe.model, bool(recipe.quantization)) == ("skt/A.X-4.0-Light", True)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--data", "none.jsonl", "--yes"], "none.jsonl"),
        (["--yes"], "There is no data"),
        ([], "no terminal"),
        (["there.yaml", "--data", "x", "--yes"], "there already"),
        (["no/such/mine.yaml", "--data", "x", "--yes"], "no folder"),
        (["--data", "rows.jsonl", "--task", "rlhf", "--yes"], "no recipe of task rlhf"),
        (["--data", "rows.jsonl", "--gpu", "RTX 9999", "--yes"], "no known card"),
        (["--data", "empty.jsonl", "--yes"], "No row of empty.jsonl"),
        (["--data", "rows.jsonl", "--task", "dpo", "--yes"], "no row for dpo"),
        (["--data", "rows.jsonl", "--model", "none", "--yes"], "no model none"),
        (["/proc/mine.yaml", "--data", "rows.jsonl", "--yes"], "/proc/mine.yaml cannot be written"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, words: list[str], found: str) -> None:
    write_rows(tmp_path / "rows.jsonl", 4)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "there.yaml").write_text("kept")
    done = axtune_in_process("init", "--model", "tiny-ax-4.0", *words)
    assert done.status == 1
    assert found in done.err
    assert not (tmp_path / "recipe.yaml").exists()
    assert (tmp_path / "there.yaml").read_text() == "kept"


def answered(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Somebody at a terminal, who presses Ctrl-C after the answers; what was asked is filled."""
    given, asked = iter(answers), []

    def prompt(question: str, **_: object) -> str:
        asked.append(question)
        if (answer := next(given, None)) is None:
            raise typer.Abort
        return answer

    monkeypatch.setattr("typer.prompt", prompt)
    monkeypatch.setattr("axtune.cli.new_recipe._is_asked", lambda: True)
    return asked


@pytest.mark.parametrize("given", range(4))
def test_ctrl_c_at_a_question_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    write_rows(tmp_path / "rows.jsonl", 8)
    asked = answered(monkeypatch, *["rows.jsonl", "tiny-ax-4.0", "sft"][:given])
    done = axtune_in_process("init")
    assert (done.status, len(asked)) == (130, given + 1)
    assert done.err.endswith("axtune: stopped by Ctrl-C.\n")
    assert not (tmp_path / "recipe.yaml").exists()


def test_an_answer_that_cannot_be_used_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "rows.jsonl", 8)
    asked = answered(
        monkeypatch, "none.jsonl", "rows.jsonl ", "none", "tiny-ax-4.0", "dpo", "sft", "RTX 9999",
        "None",
    )  # fmt: skip
    done = axtune_in_process("init")
    assert done.status == 0, done.err
    assert len(asked) == 8
    for found in ("none.jsonl is no file", "no model none", "no row for dpo", "no known card"):
        assert found in done.out
    assert load("recipe.yaml").data.sources[0].path == "rows.jsonl"


def test_it_asks_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "rows.jsonl", 8)
    asked = answered(monkeypatch, "rows.jsonl", "tiny-ax-4.0", "sft", "none")
    done = axtune_in_process("init")
    assert done.status == 0, done.err
    assert [question.split()[0] for question in asked] == ["data", "model", "task", "card"]
    assert load("recipe.yaml").data.sources[0].path == "rows.jsonl"
