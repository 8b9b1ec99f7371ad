"""The table says before, after, the difference with its interval, and a verdict in words."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console

from axtune.evaluate.answers import Kept
from axtune.evaluate.results import Estimate, Measured, Result
from axtune.evaluate.show import show, show_examples


def shown(
    measured: list[Measured], against: str | None, width: int = 100, **changes: object
) -> list[str]:
    result = Result("m", against, {}, [], 1, {}, measured, {"wrong-tool": 3}, **changes)  # type: ignore[arg-type]
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show(console, result)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def compared(category: str, metric: str, verdict: str) -> Measured:
    return Measured(
        metric, category, 86, Estimate(0.41, 0.3, 0.5), Estimate(0.1, 0.05, 0.2),
        Estimate(0.31, 0.2, 0.4), verdict,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_comparison_has_everything_in_a_row() -> None:
    lines = shown(
        [compared("all", "accuracy", "better"), compared("simple", "accuracy", "cannot be told")],
        "base",
    )
    words = ["accuracy", "86", "10.0%", "41.0%", "+31.0%", "[+20.0,", "+40.0]", "better"]
    assert lines[1].split() == words
    assert "simple: accuracy" in lines[2]
    assert lines[3] == "cannot be told: with this n, chance alone may differ as much"
    assert lines[4] == "not right: wrong-tool 3"


def test_long_names_lose_their_middle_where_they_have_no_room() -> None:
    names = ["BFCL_v4_live_parallel", "사내_고객상담_질문과_답변", "simple"]
    told = [compared(name, "accuracy", "cannot be told") for name in names]
    lines = shown(told, "base", 80)
    assert all(cell_len(line) <= 80 and "[+20.0, +40.0]" in line for line in lines[1:4])
    assert [line.split(":")[0].strip() for line in lines[1:4]] == [
        "BFCL_v…allel",
        "사내_…_답변",
        "simple",
    ]
    assert "BFCL_v4_live_parallel: accuracy" in shown(told, "base", 100)[1]
    alone = shown(
        [Measured("chrf", name, 12, Estimate(43.21, 40.0, 46.0)) for name in names], None, 40
    )
    assert all(cell_len(line) <= 40 and "43.2" in line for line in alone[1:4])


def test_names_that_would_be_the_same_stay_whole() -> None:
    told = [compared(name, "accuracy", "better") for name in ("a" * 60, "a" * 61)]
    said = "".join(line[:30].replace(" ", "") for line in shown(told, "base", 80))
    assert said.count("a" * 10) >= 2
    assert "…" not in said


def test_names_of_tasks_that_begin_alike_lose_their_beginning() -> None:
    names = [
        f"kmmlu_direct_{subject}/{metric}"
        for subject in ("food_processing", "gas_technology_and_engineering", "law",
                        "electronics_engineering", "environmental_science", "food_science")
        for metric in ("acc", "acc_norm")
    ]  # fmt: skip
    told = [replace(compared("all", name, "cannot be told"), n=1435) for name in names]
    lines = shown(told, "base", 80)
    assert all(cell_len(line) <= 80 and "1,435" in line for line in lines[1:13])
    assert len({line.split()[0] for line in lines[1:13]}) == 12
    assert any(line.startswith("…food_p") for line in lines)


def test_usual_names_stand_in_one_line_of_80_columns() -> None:
    told = [
        compared("after_result", "decision", "cannot be told"),
        replace(compared("after_result", "chrf", "cannot be told"), n=1435),
        compared("parallel_calls", "accuracy", "cannot be told"),
        replace(compared("all", "kmmlu_direct_law/exact_match", "cannot be told"), n=1435),
    ]
    lines = shown(told, "base", 80)
    assert all(cell_len(line) <= 80 and "cannot be told" in line for line in lines[1:5])
    assert [line.split()[0] for line in lines[1:4]] == ["after_result:"] * 2 + ["parall…calls:"]


def test_an_end_that_is_not_0_does_not_look_like_it() -> None:
    """On which side of 0 it is, is what the verdict says."""
    told = compared("all", "accuracy", "better")
    near = replace(told, difference=Estimate(0.01, 0.0002, 0.02))
    assert "[+0.02, +2.0]" in shown([near], "base")[1]
    reaching = replace(told, difference=Estimate(0.01, 0.0, 0.02), verdict="cannot be told")
    assert "[0.0, +2.0]" in shown([reaching], "base")[1]


def test_where_there_is_no_interval_it_says_so() -> None:
    lines = shown([Measured("loss", "all", 1, Estimate(2.0, 2.0, 2.0))], None)
    assert lines[1].split() == ["loss", "1", "2.0000", "[–]"]
    assert lines[2] == "[–]: so few questions, or all alike, tell no interval"


def test_what_the_intervals_go_by_stands_below() -> None:
    lines = shown([replace(compared("all", "accuracy", "better"), clusters=21)], "base")
    assert lines[2] == "86 questions are of 21 conversations, which the intervals go by"


def test_alone_a_figure_has_its_interval() -> None:
    lines = shown(
        [
            Measured("chrf", "all", 12, Estimate(43.21, 40.0, 46.0)),
            Measured("loss", "rows.jsonl", 12, Estimate(0.12345, 0.1, 0.2)),
            Measured("kmmlu/acc", "all", 12, Estimate(0.5, 0.4, 0.6)),
        ],
        None,
    )
    assert lines[1].split() == ["chrf", "12", "43.2", "[40.0,", "46.0]"]
    assert any(line.split() == ["kmmlu/acc", "12", "0.500", "[0.400,", "0.600]"] for line in lines)


def test_a_category_shows_what_it_is_best_known_by() -> None:
    lines = shown(
        [compared("all", "tool", "better"), compared("call", "accuracy", "better"),
         compared("call", "tool", "better"), compared("no_call", "decision", "better"),
         compared("a.jsonl", "loss", "better")],
        "base",
    )  # fmt: skip
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["tool", "86"], ["call:", "accuracy"], ["no_call:", "decision"],
        ["a.jsonl:", "loss"],
    ]  # fmt: skip


def test_questions_that_are_answered_differently_stand_side_by_side() -> None:
    def kept(model: str, question: str, content: str) -> Kept:
        return Kept("k", model, question, "call", "서울 날씨는?", "f({})", 0, content, [], True)

    result = Result("m", "base", {}, [], 1, {}, [], {})
    console = Console(file=io.StringIO(), width=100, highlight=False)
    said = [("a", "맑음"), ("b", "흐림"), ("c", "비")]
    answers = [kept("base", question, text) for question, text in said]
    answers += [kept("m", "a", "맑음"), kept("m", "b", "눈"), kept("m", "c", "안개")]
    show_examples(console, result, answers, 1)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "", "b  call", "asked   서울 날씨는?", "right   f({})", "before  흐림", "after   눈", "",
        "1 more differ",
    ]  # fmt: skip


def test_ties_are_said_in_words() -> None:
    ties = {"compared": 9.0, "differ": 2.0, "at_a_tie": 2.0, "widest": 0.01, "bound": 0.25}
    (line,) = [line for line in shown([], "x", ties=ties) if "answers" in line]
    assert line.startswith("2 of 9 answers differ, 2 of them from a tie within 0.25 on")
    same = {**ties, "differ": 0.0}
    assert any("all 9 answers are the same" in line for line in shown([], "x", ties=same))
