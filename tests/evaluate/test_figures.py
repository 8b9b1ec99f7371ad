"""Figures count what they say they count: hand-made answers, hand-counted shares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from axtune.data.native_calls import Answer
from axtune.evaluate.figures import Scored, figures, reasons, scored
from axtune.evaluate.questions import Question
from axtune.evaluate.results import Measured
from axtune.evaluate.score import Rules, wanted_of

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def call(arguments: str = '{"city": "서울"}', name: str = "get_weather") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function}


def question(
    category: str, *, calls: list[dict[str, Any]] | None = None, text: str = "", tools: bool = True
) -> Question:
    message = {"content": text, "tool_calls": calls or []}
    return Question(
        id=category, category=category, messages=[], tools=[TOOL] if tools else [],
        wanted=wanted_of(message), rules=Rules(), reference=text,
    )  # fmt: skip


CALL = question("call", calls=[call()])
NO_CALL = question("no_call", text="어느 도시인가요?")
TEXT = question("text", text='{"답": 1}', tools=False)

RIGHT = Answer("", [call()])
WRONG_CITY = Answer("", [call('{"city": "부산"}')])
NO_TOOL = Answer("", [call(name="get_time")])


def by_name(measured: list[Measured]) -> dict[tuple[str, str], Measured]:
    return {(one.category, one.metric): one for one in measured}


def values(scores: list[Scored]) -> dict[tuple[str, str], float]:
    return {name: one.value.value for name, one in by_name(figures(scores)).items()}


def test_turns_of_a_conversation_are_counted_together() -> None:
    turns = [
        scored(replace(one, cluster=f"rows.jsonl:{row}"), [RIGHT if row % 3 else WRONG_CITY])
        for row in range(20)
        for one in (CALL, CALL, NO_CALL)
    ]
    found = by_name(figures(turns, turns))
    assert (found["all", "accuracy"].n, found["all", "accuracy"].clusters) == (40, 20)
    assert (found["all", "decision"].n, found["all", "decision"].clusters) == (60, 20)
    assert (found["no_call", "chrf"].n, found["no_call", "chrf"].clusters) == (20, None)
    alone = by_name(figures([scored(CALL, one.answers) for one in turns]))["call", "accuracy"]
    assert alone.clusters is None
    assert found["all", "accuracy"].value.low < alone.value.low


def test_what_a_benchmarks_program_counts_stands_beside() -> None:
    lenient = replace(CALL, published=lambda answer: bool(answer.tool_calls))
    found = values([scored(lenient, [RIGHT]), scored(lenient, [WRONG_CITY])])
    assert found["call", "accuracy"] == 0.5
    assert found["call", "published"] == 1
    assert ("call", "published") not in values([scored(CALL, [RIGHT])])


def test_calls_are_counted_by_what_is_right_about_them() -> None:
    found = values([
        scored(CALL, [RIGHT]), scored(CALL, [WRONG_CITY]), scored(CALL, [NO_TOOL]),
        scored(CALL, [Answer("서울은 맑음", [])]),
    ])  # fmt: skip
    assert found == {
        ("call", "accuracy"): 0.25,
        ("call", "decision"): 0.75,
        ("call", "tool"): 0.5,
        ("call", "arguments"): 0.25,
        ("call", "valid_json"): 0.75,
        ("call", "schema_valid"): 0.5,
    }


def test_a_text_is_never_counted_as_a_right_call() -> None:
    found = values([scored(NO_CALL, [Answer("어느 도시인가요?", [])]), scored(NO_CALL, [RIGHT])])
    assert ("no_call", "accuracy") not in found
    assert ("no_call", "valid_json") not in found  # who never calls breaks no schema
    assert found["no_call", "decision"] == 0.5
    assert found["no_call", "exact"] == 0.5


def test_all_is_of_every_category_and_missing_where_there_is_one() -> None:
    scores = [scored(CALL, [RIGHT]), scored(NO_CALL, [RIGHT]), scored(TEXT, [Answer("{}", [])])]
    found = values(scores)
    assert found["all", "decision"] == 0.5  # of the two questions with tools
    assert found["all", "accuracy"] == 1.0
    assert found["text", "json"] == 1.0
    assert found["text", "exact"] == 0.0
    assert ("text", "decision") not in found
    assert not [name for name in values(scores[:1]) if name[0] == "all"]


def test_samples_of_a_question_are_averaged() -> None:
    found = values([scored(CALL, [RIGHT, WRONG_CITY]), scored(CALL, [RIGHT, RIGHT])])
    assert found["call", "accuracy"] == pytest.approx(0.75)


def test_before_and_after_are_of_the_same_questions() -> None:
    asked = [CALL] * 12
    after, before = ([scored(one, [answer]) for one in asked] for answer in (RIGHT, WRONG_CITY))
    measured = by_name(figures(after, before))["call", "accuracy"]
    assert measured.n == 12
    assert (measured.before.value, measured.value.value) == (0.0, 1.0)  # type: ignore[union-attr]
    assert measured.verdict == "better"
    assert by_name(figures(before, after))["call", "accuracy"].verdict == "worse"
    assert by_name(figures(after, after))["call", "accuracy"].verdict == "cannot be told"


def test_reasons_are_counted_and_texts_give_none() -> None:
    scores = [
        scored(CALL, [WRONG_CITY]), scored(CALL, [WRONG_CITY]), scored(CALL, [NO_TOOL]),
        scored(NO_CALL, [Answer("다른 말", [])]),
    ]  # fmt: skip
    assert reasons(scores) == {"wrong-value": 2, "wrong-tool": 1}


def test_a_call_in_place_of_a_text_is_no_text_whatever_stands_beside() -> None:
    """Also in a row without tools, of whose answers nothing else would tell."""
    said = Answer('{"답": 1}', [call()])
    found = values([scored(TEXT, [said])])
    assert (found["text", "exact"], found["text", "chrf"], found["text", "json"]) == (0, 0, 0)
    assert set(values([scored(TEXT, [Answer('{"답": 1}', [])])]).values()) == {1.0, 100.0}
    assert reasons([scored(TEXT, [said]), scored(TEXT, [Answer("", [])])]) == {
        "unwanted-call": 1, "no-text": 1
    }  # fmt: skip
