"""What tables make of lists of messages is a list of messages again, or a problem that says why."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.data.cells import not_null, parse_list, placed, says, table_tools, text_or_turns
from axtune.errors import Problem

TURNS = [
    {"role": "user", "content": "'택배'는 \"언제\"?\n} {"},
    {"role": "assistant", "content": "여섯 시까지입니다."},
]
_texts = st.text(st.characters(exclude_categories=["Cs"]))
_turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant"]), "content": _texts | st.none()}
    ),
    min_size=1,
    max_size=4,
)


def as_numpy(items: list[Any]) -> str:
    """A list as ``to_csv`` writes a column that Parquet has filled."""
    array = np.empty(len(items), object)
    array[:] = items
    return str(array)


@given(turns=_turns, write=st.sampled_from([json.dumps, str, as_numpy]))
def test_a_list_of_turns_that_became_a_text_comes_back(turns: list[Any], write: Any) -> None:
    assert parse_list(write(turns)) == turns
    problems: list[Problem] = []
    assert text_or_turns(write(turns), "prompt", problems) == turns
    assert [turn for _, turn in placed(write(turns), "messages", problems)] == turns
    assert problems == []


@given(_texts)
def test_a_text_stays_a_text_or_was_a_list(text: str) -> None:
    problems: list[Problem] = []
    read = text_or_turns(text, "prompt", problems)
    assert read == text or text.strip()[:1] in ("[", "{") or "Human:" in text


@pytest.mark.parametrize(
    "value",
    [
        json.dumps(TURNS, indent=1),
        [json.dumps(turn) for turn in TURNS],
        [str(turn) for turn in TURNS],
        as_numpy([json.dumps(turn) for turn in TURNS]),
        {key: [turn[key] for turn in TURNS] for key in ("role", "content")},
    ],
    ids=["indented", "json texts", "python texts", "numpy of texts", "columns"],
)
def test_lists_of_other_kinds_of_text(value: Any) -> None:
    problems: list[Problem] = []
    assert [turn for _, turn in placed(value, "messages", problems)] == TURNS
    assert problems == []


@pytest.mark.parametrize(
    "text",
    [
        "[{'role': 'user', 'content': array(['a'], dtype=object)}]",
        "[{'role': 'user', 'content': 'a'} ... {'role': 'assistant', 'content': 'b'}]",
        "[{'role': 'user', 'content': nan}]",
        '[{"role": "user", "content": "a}]',
    ],
)
def test_a_list_that_cannot_be_read_back_is_no_text(text: str) -> None:
    for read in (text_or_turns, placed):
        problems: list[Problem] = []
        assert not read(text, "chosen", problems)
        (problem,) = problems
        assert problem.code == "bad-messages"
        assert problem.message.startswith("chosen: the text is no list of messages")


@pytest.mark.parametrize(
    "text",
    [
        "[참고] 내일입니다.",
        '[{"name": "김", "role": "대표"}]',
        '{"role": "대표", "content": "인사말"}',
        "[1, 2]",
        "[]",
        "Human: 이라는 말",
    ],
)
def test_data_that_an_answer_writes_stays_its_text(text: str) -> None:
    problems: list[Problem] = []
    assert text_or_turns(text, "completion", problems) == text
    assert problems == []


def test_a_transcript_is_its_turns() -> None:
    problems: list[Problem] = []
    text = "\n\nHuman: 택배는?\n\nAssistant: 여섯 시요.\n\nHuman: 주말은?\n\nAssistant:"
    read = text_or_turns(text, "prompt", problems)
    assert [(turn["role"], turn["content"]) for turn in read] == [
        ("user", "택배는?"),
        ("assistant", "여섯 시요."),
        ("user", "주말은?"),
    ]
    assert problems == []
    assert text_or_turns("\n\nHuman: a\n\nHuman: b\n\nAssistant: c", "chosen", problems) is None
    assert [problem.code for problem in problems] == ["bad-messages"]


def test_one_text_in_a_list_is_that_text_and_two_are_a_fault() -> None:
    problems: list[Problem] = []
    assert text_or_turns(["네."], "output", problems) == "네."
    assert problems == []
    assert text_or_turns(["네.", "몰라요."], "output", problems) is None
    assert [problem.code for problem in problems] == ["bad-content"]


SCHEMA = {"type": "object", "properties": {"sku": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "stock", "parameters": SCHEMA}}


@pytest.mark.parametrize(
    "tools",
    [
        json.dumps([TOOL]),
        str([TOOL]),
        as_numpy([TOOL, TOOL]),
        [json.dumps(TOOL)],
        [str(TOOL)],
    ],
    ids=["json", "python", "numpy", "json texts", "python texts"],
)
def test_tools_of_a_table(tools: Any) -> None:
    assert table_tools(tools)[0] == TOOL


def test_tools_that_are_no_list_stay_what_they_are() -> None:
    for other in (None, "", "no list", "[no list", [3], [{"function": 3}], {"a": 1}):
        assert table_tools(other) == other


def test_null_and_nothing_say_nothing() -> None:
    assert not_null({"a": None, "b": float("nan"), "c": "", "d": 0}) == {"c": "", "d": 0}
    assert [says(value) for value in (None, "", [], {}, 0, False, " ")] == [False] * 4 + [True] * 3
