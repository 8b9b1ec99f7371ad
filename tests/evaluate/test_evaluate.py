"""An evaluation asks everything once, goes on where it stopped, and says what it found."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.rows import write_jsonl
from support.tiny import LIBRARY_WARNINGS

from axtune.errors import AxtuneError
from axtune.evaluate.answers import ANSWERS, Answers, Kept, differing, read_answers
from axtune.evaluate.evaluate import AT_MOST, Settings, below, bounds, evaluate
from axtune.evaluate.generate import Sampling
from axtune.evaluate.models import LocalModel
from axtune.evaluate.results import RESULT, Result, read_result
from axtune.evaluate.task_answers import TASK_ANSWERS
from axtune.signals import Terminated
from axtune.training.progress import Report

pytestmark = LIBRARY_WARNINGS

TOOL = {
    "type": "function",
    "function": {"name": "날씨", "parameters": {"type": "object", "properties": {}}},
}
SILENT = Report(enabled=False)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    call = {"type": "function", "function": {"name": "날씨", "arguments": "{}"}}
    asked = [
        {"role": "user", "content": f"{city} 날씨"} for city in ("서울", "부산", "제주", "대전")
    ]
    answers: list[dict[str, Any]] = [
        {"role": "assistant", "tool_calls": [{"id": "a", **call}]},
        {"role": "assistant", "content": "어느 날인가요?"},
    ]
    messages = [[user, answers[number % 2]] for number, user in enumerate(asked)]
    return write_jsonl(
        tmp_path / "rows.jsonl", [{"messages": each, "tools": [TOOL]} for each in messages]
    )


def settings(rows: Path, out: Path, **changes: Any) -> Settings:
    values = {"data": [str(rows)], "out": out, "sampling": Sampling(0.0, 6, 2)}
    return Settings(**{**values, **changes})


def without_times(result: Result) -> dict[str, Any]:
    values = {name: getattr(result, name) for name in Result.__slots__}
    del values["created"], values["seconds"]
    return values


def test_figures_of_a_model_and_of_what_it_is_held_against(rows: Path, tmp_path: Path) -> None:
    asked = settings(rows, tmp_path / "out", against="tiny-ax-3.1")
    result, folder = evaluate("tiny-ax-4.0", asked, SILENT)
    assert folder == tmp_path / "out"
    assert read_result(folder) == result
    assert (result.questions, result.data) == (4, [{"file": "rows.jsonl", "questions": 4}])
    found = {(one.category, one.metric): one for one in result.measured}
    assert found["call", "accuracy"].n == found["no_call", "exact"].n == 2
    assert found["all", "decision"].verdict == "cannot be told"
    assert found["rows.jsonl", "loss"].before is not None
    assert len((folder / ANSWERS).read_text().splitlines()) == 8
    assert result.ties is None
    assert result.cut == {"tiny-ax-4.0": 4, "tiny-ax-3.1": 4}


def test_turns_of_a_conversation_count_together(rows: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
    twice = [{**row, "messages": row["messages"] * 2} for row in lines]
    file = write_jsonl(tmp_path / "turns.jsonl", [*twice, lines[0]])
    result, _ = evaluate("tiny-ax-4.0", settings(file, tmp_path / "out"), SILENT)
    found = {(one.category, one.metric): (one.n, one.clusters) for one in result.measured}
    assert found["all", "decision"] == (9, 5)
    assert found["turns.jsonl", "loss"] == (5, None)


def test_a_second_look_costs_nothing(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(rows, tmp_path / "out")
    first, folder = evaluate("tiny-ax-4.0", asked, SILENT)
    kept = (folder / ANSWERS).read_bytes()

    def load(*_: object) -> None:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr("axtune.evaluate.models.load_trained", load)
    second, _ = evaluate("tiny-ax-4.0", asked, SILENT)
    assert without_times(second) == without_times(first)
    assert (folder / ANSWERS).read_bytes() == kept


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_an_evaluation_that_was_stopped_gives_the_same_figures(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    asked = settings(rows, tmp_path / "whole", sampling=Sampling(temperature, 6, 2), samples=3)
    whole, _ = evaluate("tiny-ax-4.0", asked, SILENT)
    real = LocalModel.answers

    def stopped(self: LocalModel, *given: Any) -> Iterator[Any]:
        for number, batch in enumerate(real(self, *given)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch

    asked = settings(rows, tmp_path / "cut", sampling=Sampling(temperature, 6, 2), samples=3)
    monkeypatch.setattr(LocalModel, "answers", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate("tiny-ax-4.0", asked, SILENT)
    monkeypatch.setattr(LocalModel, "answers", real)
    assert len((tmp_path / "cut" / ANSWERS).read_text().splitlines()) == 4
    assert not (tmp_path / "cut" / RESULT).exists()
    again, _ = evaluate("tiny-ax-4.0", asked, SILENT)
    assert without_times(again) == without_times(whole)
    lines = [
        sorted(
            (one["question"], one["sample"], tuple(one["ids"]))
            for one in map(json.loads, (tmp_path / name / ANSWERS).read_text().splitlines())
        )
        for name in ("whole", "cut")
    ]
    assert lines[0] == lines[1]


def test_a_stop_says_what_is_kept_and_that_it_goes_on(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answer by answer, though all are of one batch."""
    asked = settings(rows, tmp_path / "out", sampling=Sampling(0.0, 6))
    real = Answers.add

    def stopped(self: Answers, new: Iterable[Kept]) -> None:
        for each in new:
            if len(self) == 3:
                raise Terminated
            real(self, [each])

    monkeypatch.setattr(Answers, "add", stopped)
    with pytest.raises(Terminated):
        evaluate("tiny-ax-4.0", asked, Report())
    said = capsys.readouterr().out
    assert f"Stopped with 3 answers in {tmp_path / 'out'}: the same command goes on" in said
    monkeypatch.setattr(Answers, "add", real)
    evaluate("tiny-ax-4.0", asked, Report())
    assert "tiny-ax-4.0: 3 answers kept from before" in capsys.readouterr().out


def test_draws_differ_and_are_drawn_again_alike(rows: Path, tmp_path: Path) -> None:
    asked = settings(rows, tmp_path / "a", sampling=Sampling(1.5, 6, 2), samples=2)
    _, folder = evaluate("tiny-ax-4.0", asked, SILENT)
    said = [json.loads(line) for line in (folder / ANSWERS).read_text().splitlines()]
    by_question: dict[str, set[tuple[int, ...]]] = {}
    for one in said:
        by_question.setdefault(one["question"], set()).add(tuple(one["ids"]))
    assert [len(ids) for ids in by_question.values()] == [2, 2, 2, 2]


def test_examples_are_of_the_answers_that_a_result_counts(rows: Path, tmp_path: Path) -> None:
    """Whatever else was asked into the same folder, before or behind it."""

    def shown(**changes: Any) -> list[tuple[Kept, Kept]]:
        asked = settings(rows, tmp_path / "out", against="tiny-ax-3.1", **changes)
        result, folder = evaluate("tiny-ax-4.0", asked, SILENT)
        return differing(read_answers(folder), "tiny-ax-3.1", "tiny-ax-4.0", result.keys)

    hot = Sampling(1.5, 6, 2)
    greedy, drawn = shown(), shown(sampling=hot)
    assert shown() == greedy != drawn
    look = shown(sampling=hot, limit=1)
    assert len(look) <= 1 < len(drawn)
    assert all(pair in drawn for pair in look)


def test_the_same_weights_twice_have_no_ties_and_are_said_to_be_the_same(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = settings(rows, tmp_path / "out", against="tiny-ax-4.0")
    result, _ = evaluate("tiny-ax-4.0", asked, Report())
    assert "tiny-ax-4.0 is tiny-ax-4.0 itself" in capsys.readouterr().out
    assert result.ties is not None
    assert (result.ties["compared"], result.ties["differ"]) == (4, 0)


def test_a_checkpoint_has_no_rows_and_no_base(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(AxtuneError, match="no rows of its own"):
        evaluate("tiny-ax-4.0", Settings(out=tmp_path), SILENT)
    with pytest.raises(AxtuneError, match="nothing says what its base is"):
        evaluate("tiny-ax-4.0", settings(rows, tmp_path, against="base"), SILENT)


def test_a_damaged_line_is_named(rows: Path, tmp_path: Path) -> None:
    asked = settings(rows, tmp_path / "out")
    _, folder = evaluate("tiny-ax-4.0", asked, SILENT)
    text = (folder / ANSWERS).read_text()
    (folder / ANSWERS).write_text(text.replace('"sample": 0', '"sample": 1', 1))
    with pytest.raises(AxtuneError, match=r"answers\.jsonl:1 is damaged"):
        evaluate("tiny-ax-4.0", asked, SILENT)


def test_bounds_are_metrics_with_numbers(rows: Path, tmp_path: Path) -> None:
    assert bounds(["accuracy=0.8", "chrf=30"]) == {"accuracy": 0.8, "chrf": 30.0}
    assert bounds(["kmmlu/acc=0.4"]) == {"kmmlu/acc": 0.4}
    with pytest.raises(AxtuneError, match="can never be reached"):
        bounds(["accuracy=80"])
    for word in ("accuracy", "accuracy=x", "speed=1", "accuracy=nan"):
        with pytest.raises(AxtuneError, match="is no figure"):
            bounds([word])
    result, _ = evaluate("tiny-ax-4.0", settings(rows, tmp_path / "out"), SILENT)
    assert below(result, {"decision": 0.0}) == []
    assert below(result, {"accuracy": 1.0, "json": 0.5}) == [
        "accuracy is 0, and was to be at least 1.",
        "json is of no question, and was to be at least 0.5.",
    ]
    loss = next(one.value.value for one in result.measured if one.metric == "loss")
    assert below(result, {}, {"loss": loss, "perplexity": 1e9}) == []
    assert below(result, {"accuracy": 1.0}, {"loss": 0.5}) == [
        "accuracy is 0, and was to be at least 1.",
        f"loss is {loss:.4g}, and was to be at most 0.5.",
    ]
    (unknown,) = below(result, {"kmmlu/acc": 0.5})
    assert unknown.startswith("kmmlu/acc is of no question, and was to be at least 0.5. There are ")
    assert "decision, " in unknown
    assert below(replace(result, measured=[]), {}, {"loss": 0.5}) == [
        "loss was not measured, and was to be at most 0.5."
    ]


def test_what_is_better_when_lower_is_bounded_from_above() -> None:
    assert bounds(["loss=1.2", "perplexity=3", "a/ppl=9"], AT_MOST) == {
        "loss": 1.2, "perplexity": 3.0, "a/ppl": 9.0
    }  # fmt: skip
    with pytest.raises(AxtuneError, match=r"better when it is lower\.\nGive --at-most loss=1\.2\."):
        bounds(["loss=1.2"])
    with pytest.raises(AxtuneError, match=r"when it is higher\.\nGive --at-least chrf=30\."):
        bounds(["chrf=30"], AT_MOST)
    for word in ("loss", "loss=x", "speed=1", "loss=nan"):
        with pytest.raises(AxtuneError, match=r"--at-most .* is no figure"):
            bounds([word], AT_MOST)


def test_tasks_stand_beside_the_rows_and_are_asked_once(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    (tmp_path / "tasks").mkdir()
    write_jsonl(
        tmp_path / "tasks" / "수도.jsonl",
        [
            {"q": f"{n}번 나라의 수도는?", "choices": ["서울", "부산"], "label": n % 2}
            for n in range(6)
        ],
    )
    (tmp_path / "tasks" / "capital.yaml").write_text(
        "task: capital\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/tasks/수도.jsonl}}}}\n"
        "output_type: multiple_choice\ntest_split: test\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: "{{label}}"\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n",
        encoding="utf-8",
    )
    asked_of = settings(
        rows, tmp_path / "out", data=(), tasks=["capital"], task_folders=[tmp_path / "tasks"],
        against="tiny-ax-3.1",
    )  # fmt: skip
    result, _ = evaluate("tiny-ax-4.0", asked_of, SILENT)
    assert [(one.metric, one.n) for one in result.measured] == [("capital/acc", 6)]
    assert result.measured[0].verdict == "cannot be told"
    assert result.questions == 0
    kept = (tmp_path / "out" / TASK_ANSWERS).read_bytes()
    assert kept.count(b"\n") == 2 * 6 * 2  # of two models, each of two choices

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("a question was asked again")

    monkeypatch.setattr("lm_eval.models.huggingface.HFLM._loglikelihood_tokens", asked)
    again, _ = evaluate("tiny-ax-4.0", asked_of, SILENT)
    assert again.measured == result.measured
    assert (tmp_path / "out" / TASK_ANSWERS).read_bytes() == kept

    def loaded(*_: object) -> None:
        raise AxtuneError("The model is loaded.", "")

    monkeypatch.setattr("axtune.evaluate.models.load_trained", loaded)
    (tmp_path / "out" / TASK_ANSWERS).write_bytes(kept.replace(b'"answer": [', b'"answer": [1', 1))
    told = io.StringIO()
    with pytest.raises(AxtuneError, match="is loaded"):
        evaluate("tiny-ax-4.0", asked_of, Report(Console(file=told, width=400)))
    assert f"{TASK_ANSWERS}:1 is damaged and not used" in told.getvalue()
