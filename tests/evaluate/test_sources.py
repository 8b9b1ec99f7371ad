"""What is asked: the rows that a run held out, the rows of files, the questions of benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState
from support.rows import write_jsonl
from support.tiny import checkpoint, recipe

from axtune.checkpoint.run_dir import Run
from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.config.recipe import Recipe
from axtune.data.dataset import prepare
from axtune.errors import AxtuneError, DataError
from axtune.evaluate.in_training import TrainingQuestions
from axtune.evaluate.sources import select, trained_on
from axtune.training import summary
from axtune.training.summary import accounts


@pytest.fixture(scope="module")
def tokenizer() -> AxTokenizer:
    return load_tokenizer("tiny-ax-4.0")


def rows(count: int, end: str = "") -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"질문 {n}{end}"},
                      {"role": "assistant", "content": f"답 {n}"}]}
        for n in range(count)
    ]  # fmt: skip


def test_a_fraction_that_was_held_out_is_asked(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [*rows(40), *rows(10)])  # ten of them twice
    job = recipe(tmp_path, data={"train": str(file), "eval": 0.2})
    selected = select(tokenizer, job, (), room=8)
    data = prepare(job, tokenizer, tmp_path, lambda _: None)
    assert data.eval is not None
    held_out = sorted(line for _, line in data.eval["place"])
    assert sorted(question.line for question, _ in selected.questions) == held_out
    assert [list(sample.input_ids) for _, sample in selected.samples] == data.eval["input_ids"]


def test_files_that_were_held_out_are_asked(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    train, held_out = (write_jsonl(tmp_path / f"{n}.jsonl", rows(n, str(n))) for n in (6, 3))
    job = recipe(tmp_path, data={"train": str(train), "eval": str(held_out)})
    selected = select(tokenizer, job, (), room=8)
    assert selected.files == [{"file": "3.jsonl", "questions": 3}]


def test_a_run_without_held_out_rows_says_so(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    job = recipe(tmp_path, data={"train": str(write_jsonl(tmp_path / "rows.jsonl", rows(4)))})
    with pytest.raises(AxtuneError, match="held out no rows"):
        select(tokenizer, job, (), room=8)


def test_benchmarks_stand_beside_rows(tokenizer: AxTokenizer, shared: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", rows(2))
    dialog = shared / "functionchat" / "FunctionChat-Dialog.jsonl"
    selected = select(tokenizer, None, [str(file), str(dialog)], room=8)
    assert [one["file"] for one in selected.files] == ["rows.jsonl", dialog.name]
    assert {source for source, _ in selected.samples} == {"rows.jsonl"}


def test_categories_that_are_not_scored_are_counted(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    asked = {"id": "memory_0", "question": [[]]}
    write_jsonl(tmp_path / "BFCL_v4_memory.json", [asked, asked])
    with pytest.raises(AxtuneError, match=r"nothing to ask.*memory 2\."):
        select(tokenizer, None, [str(tmp_path)], room=8)
    write_jsonl(tmp_path / "rows.jsonl", rows(3))
    selected = select(tokenizer, None, [str(tmp_path)], room=8, limit=2)
    assert selected.left_out == {"not-scored": 2, "limit": 1}
    assert selected.unscored == {"memory": 2}


def test_files_that_are_not_scored_are_named_all_at_once(
    tokenizer: AxTokenizer, tmp_path: Path
) -> None:
    asked = {"id": "memory_0", "question": [[]]}
    names = [f"BFCL_v4_{category}.json" for category in ("memory", "web_search")]
    files = [str(write_jsonl(tmp_path / name, [asked])) for name in names]
    with pytest.raises(DataError) as refused:
        select(
            tokenizer, None, [*files, str(write_jsonl(tmp_path / "rows.jsonl", rows(3)))], room=8
        )
    assert [fault.file for fault in refused.value.faults] == files


def test_what_leaves_no_room_is_counted(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(checkpoint(tmp_path / "model"))  # a context of 512
    file = write_jsonl(tmp_path / "rows.jsonl", [*rows(2), *rows(1, " 가나다" * 200)])
    selected = select(tokenizer, None, [str(file)], room=100)
    assert (len(selected.questions), dict(selected.left_out)) == (2, {"too-long": 1})
    assert selected.but() == "; not asked: too-long 1"
    with pytest.raises(AxtuneError, match="None of 3 questions can be asked: too-long 3"):
        select(tokenizer, None, [str(file)], room=512)


def test_a_limit_draws_by_its_seed(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", rows(30))

    def lines(seed: int) -> list[int]:
        selected = select(tokenizer, None, [str(file)], room=8, limit=5, seed=seed)
        assert len(selected.samples) == 5
        return [question.line for question, _ in selected.questions]

    assert lines(0) == lines(0) != lines(1)


def test_a_broken_row_is_named(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [*rows(1), {"messages": []}])
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        select(tokenizer, None, [str(file)], room=8)


def trained(job: Recipe, tokenizer: AxTokenizer, tmp_path: Path) -> Run:
    data = prepare(job, tokenizer, tmp_path, lambda _: None)
    return Run(tmp_path / "run", tmp_path, job, {"data": accounts(data)})


@pytest.mark.parametrize("as_files", [False, True])
def test_rows_that_have_changed_are_not_called_held_out(
    tokenizer: AxTokenizer, tmp_path: Path, as_files: bool
) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", rows(20))
    other = write_jsonl(tmp_path / "other.jsonl", rows(5, "!"))
    job = recipe(tmp_path, data={"train": str(file), "eval": str(other) if as_files else 0.2})
    run = trained(job, tokenizer, tmp_path)
    assert list(trained_on([run], ())) == []
    changed = other if as_files else file
    write_jsonl(changed, rows(19, "?"))
    with pytest.raises(AxtuneError, match=rf"{changed.name}\) have changed since it was trained"):
        list(trained_on([run], ()))
    changed.unlink()
    with pytest.raises(AxtuneError, match="held out cannot be found"):
        list(trained_on([run], ()))


def test_files_that_a_run_was_trained_on_are_named(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", rows(20))
    new = write_jsonl(tmp_path / "new.jsonl", rows(5, "!"))
    run = trained(recipe(tmp_path, data={"train": str(file)}), tokenizer, tmp_path)
    assert list(trained_on([run, None], [str(new)])) == []
    (line,) = trained_on([None, run], [str(new), str(file)])
    assert line.startswith(f"rows.jsonl is a file that {tmp_path / 'run'} was trained on")


def test_documents_ask_nothing_and_their_loss_is_taken(
    tokenizer: AxTokenizer, tmp_path: Path
) -> None:
    texts = [{"text": f"{n}번 규정\n\n" * 30} for n in range(10)]
    file = write_jsonl(tmp_path / "corpus.jsonl", [*texts, *rows(10)])
    job = recipe(tmp_path, task="cpt", data={"train": str(file), "eval": 0.5, "max_length": 64})
    selected = select(tokenizer, job, (), room=8)
    data = prepare(job, tokenizer, tmp_path, lambda _: None)
    assert data.eval is not None
    taken = [sample.input_ids for _, sample in selected.samples]
    assert sorted(taken) == sorted(data.eval["input_ids"])
    held_out = {line for _, line in data.eval["place"]}
    assert selected.documents == {"corpus.jsonl": sum(line <= 10 for line in held_out)}
    assert len(selected.questions) == sum(line > 10 for line in held_out)

    folder = tmp_path / "규정집"
    folder.mkdir()
    for name in ("a.txt", "b.md"):
        (folder / name).write_text("제1조 목적\n\n" * 30, encoding="utf-8")
    selected = select(tokenizer, job, [str(folder)], room=8)  # by source: the folder
    assert selected.files == [{"file": "규정집", "questions": 0, "documents": 2}]
    assert {source for source, _ in selected.samples} == {"규정집"}
    assert max(sample.length for _, sample in selected.samples) <= 64


def test_what_is_asked_goes_through_the_privacy_gate(
    tokenizer: AxTokenizer, tmp_path: Path
) -> None:
    number = "010-2345-6789"
    held = [
        *rows(2, f": {number}"),
        {"messages": [{"role": "user", "content": "번호는?"},
                      {"role": "assistant", "content": f"전화 {number}"}]},
    ]  # fmt: skip
    train = str(write_jsonl(tmp_path / "train.jsonl", rows(6)))
    asked = str(write_jsonl(tmp_path / "asked.jsonl", held))
    (tmp_path / "규정.md").write_text(f"# 연락처\n\n담당자 전화 {number}\n", encoding="utf-8")
    document = str(tmp_path / "규정.md")
    for privacy in ("mask", "off"):
        data = {"train": train, "eval": asked, "privacy": privacy}
        job = recipe(tmp_path, task="cpt", data=data)
        for files, found in (((), 3), ((asked, document), 4)):
            selected = select(tokenizer, job, files, room=8)
            said = repr([question for question, _ in selected.questions]) + repr(
                [tokenizer.decode(sample.input_ids) for _, sample in selected.samples]
            )
            assert (number in said) == (privacy == "off")
            assert selected.personal_data == ({"telephone": found} if privacy == "mask" else {})
    refusing = recipe(tmp_path, data={"train": train, "eval": 0.2, "privacy": "refuse"})
    with pytest.raises(DataError) as refused:
        select(tokenizer, refusing, (asked,), room=8)
    assert number not in str(refused.value)


def test_a_run_says_what_is_masked_of_its_questions(tokenizer: AxTokenizer, tmp_path: Path) -> None:
    train, asked = (
        str(write_jsonl(tmp_path / f"{name}.jsonl", rows(4, end)))
        for name, end in (("train", ""), ("asked", ": 010-2345-6789"))
    )
    data = {"train": train, "privacy": "mask"}
    job = recipe(tmp_path, data=data, evaluate={"data": [asked]})
    questions = TrainingQuestions(job, tokenizer)
    line = summary.asked(questions, None, PartialState())
    assert line == "4 of 1 file (masked: telephone 4)"
    assert "010-2345-6789" not in repr(questions._asked)
