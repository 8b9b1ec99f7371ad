"""Every shape of a row becomes the same messages."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.judged import (
    ASKED,
    BAD,
    FROM,
    GOOD,
    SYSTEM,
    TEXT,
    as_turns,
    good,
    said,
    whole,
)
from support.strategies import wild_preferences, wild_rows

from axtune.config.recipe import RowFormat
from axtune.data.conversation import Conversation
from axtune.data.formats import open_row
from axtune.data.parse import PreferenceRow, read_row
from axtune.errors import Problem


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [SYSTEM, ASKED], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [SYSTEM, ASKED], "chosen": GOOD, "rejected": BAD},
        {"prompt": [SYSTEM, ASKED], **TEXT},
        {"system": SYSTEM["content"], "prompt": ASKED["content"], **TEXT},
        {"system": SYSTEM["content"], "question": ASKED["content"], **TEXT},
        {"system": SYSTEM["content"], "prompt": ASKED["content"], "chosen": GOOD, "rejected": BAD},
        {"messages": [SYSTEM, ASKED], "chosen": GOOD, "rejected": BAD},
        whole([SYSTEM, ASKED]),
        whole([SYSTEM, ASKED]) | {"prompt": ASKED["content"], "messages": [SYSTEM, ASKED, GOOD]},
        whole([SYSTEM, ASKED]) | {"prompt": [SYSTEM, ASKED]},
        {"system": SYSTEM["content"], "instruction": ASKED["content"], "input": "", **TEXT},
        {
            "system": SYSTEM["content"],
            "conversations": [{"from": "human", "value": ASKED["content"]}],
            **FROM,
        },
        {
            "conversations": [
                {"from": "system", "value": SYSTEM["content"]},
                {"from": "human", "value": ASKED["content"]},
            ],
            **{key: [turn] for key, turn in FROM.items()},
        },
        {
            "input": {"messages": [SYSTEM, ASKED], "parallel_tool_calls": True},
            "preferred_output": [GOOD],
            "non_preferred_output": [BAD],
        },
        {key: json.dumps(value) for key, value in whole([SYSTEM, ASKED]).items()},
        {key: str(value) for key, value in whole([SYSTEM, ASKED]).items()},
        {"prompt": str([SYSTEM, ASKED]), "chosen": str([GOOD]), "rejected": json.dumps([BAD])},
    ],
    ids=lambda row: "+".join(row),
)
def test_every_shape_of_a_pair_is_the_same_pair(row: Any) -> None:
    preference = good(row)
    assert preference.prompt == 2
    assert said(preference.chosen) == as_turns(SYSTEM, ASKED, GOOD)
    assert said(preference.rejected) == as_turns(SYSTEM, ASKED, BAD)
    for name, conversation in preference.answers:
        assert conversation.learn == [2]
        key = name if name in row else {"chosen": "preferred_output"}.get(name, "non_preferred")
        assert conversation.places[2].startswith(key)
    if row.get("prompt") is None or "messages" not in row:
        assert good(row, row_format="preference").prompt == 2


@pytest.mark.parametrize("label", [True, False])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [SYSTEM, ASKED], "completion": [GOOD], "label": bool},
        {"prompt": [SYSTEM, ASKED], "completion": GOOD["content"], "label": str},
        {
            "system": SYSTEM["content"],
            "prompt": ASKED["content"],
            "completion": GOOD["content"],
            "label": bool,
        },
        {"prompt": [SYSTEM, ASKED], "completion": [SYSTEM, ASKED, GOOD], "kto_tag": bool},
        {"messages": [SYSTEM, ASKED, GOOD], "kto_tag": bool},
        {
            "system": SYSTEM["content"],
            "conversations": [
                {"from": "human", "value": ASKED["content"]},
                {"from": "gpt", "value": GOOD["content"]},
            ],
            "kto_tag": bool,
        },
        {
            "system": SYSTEM["content"],
            "instruction": ASKED["content"],
            "output": GOOD["content"],
            "kto_tag": str,
        },
    ],
    ids=lambda row: "+".join(row) if isinstance(row, dict) else None,
)
def test_every_shape_of_a_labelled_answer_is_the_same(row: Any, label: bool) -> None:
    made = {k: v(label) if isinstance(v, type) else v for k, v in row.items()}
    for preference in (good(made), good(made, row_format="unpaired_preference")):
        ((name, conversation),) = preference.answers
        assert name == ("chosen" if label else "rejected")
        assert preference.prompt == 2
        assert said(conversation) == as_turns(SYSTEM, ASKED, GOOD)
        assert conversation.learn == [2]


def test_a_label_beside_messages_counts_only_when_the_format_says_so() -> None:
    row = {"messages": [ASKED, GOOD], "label": True}
    assert isinstance(read_row(row)[0], Conversation)
    assert good(row, row_format="unpaired_preference").chosen is not None
    assert isinstance(read_row({"prompt": "q", "completion": "a", "label": None})[0], Conversation)
    judged = whole([ASKED]) | {"messages": [ASKED, GOOD]}
    assert isinstance(read_row(judged)[0], PreferenceRow)
    assert isinstance(read_row(judged, row_format="chat")[0], Conversation)


@pytest.mark.parametrize(
    ("row_format", "row", "lacking"),
    [
        ("preference", {"prompt": "q", "chosen": "a"}, "rejected"),
        ("preference", {"input": {}, "preferred_output": []}, "non_preferred_output"),
        ("preference", {"messages": []}, "chosen"),
        ("unpaired_preference", {"prompt": "q", "completion": "a"}, "label"),
        ("unpaired_preference", {"prompt": "q", "label": True}, "completion"),
    ],
)
def test_a_key_that_the_named_format_lacks(row_format: str, row: Any, lacking: str) -> None:
    _, (problem,) = read_row(row, row_format=row_format)
    assert problem.code == "unknown-shape"
    expected = f"data.format is {row_format}, and the row has no key {lacking}."
    assert problem.message.startswith(expected)


def test_a_label_that_is_none_says_how_to_read_the_row_without_it() -> None:
    row = {"prompt": "q", "completion": "a", "label": "billing"}
    _, (problem,) = read_row(row)
    assert "data.format: prompt_completion" in problem.message
    assert isinstance(read_row(row, row_format="prompt_completion")[0], Conversation)


_texts = st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), min_size=1)
_exchanges = st.lists(st.tuples(_texts, _texts), min_size=1, max_size=4)


@given(system=st.none() | _texts, exchanges=_exchanges)
def test_every_shape_of_a_conversation_is_the_same(
    system: str | None, exchanges: list[tuple[str, str]]
) -> None:
    beside = {} if system is None else {"system": system}
    first = [] if system is None else [{"role": "system", "content": system}]
    messages = [
        {"role": role, "content": text}
        for exchange in exchanges
        for role, text in zip(("user", "assistant"), exchange, strict=True)
    ]
    *history, (question, answer) = exchanges
    names = {"user": "human", "assistant": "gpt"}
    turns = [{"from": names[turn["role"]], "value": turn["content"]} for turn in messages]
    rows: list[dict[str, Any]] = [
        {"messages": first + messages},
        {"messages": json.dumps(first + messages)},
        {"conversations": turns, **beside},
        {"instruction": question, "output": answer, "history": [list(h) for h in history]} | beside,
        {"prompt": first + messages[:-1], "completion": messages[-1:]},
        {"prompt": first + messages[:-1], "completion": answer},
    ]
    for row in rows:
        conversation, problems = read_row(row)
        assert problems == []
        assert isinstance(conversation, Conversation)
        assert said(conversation) == [(turn["role"], turn["content"]) for turn in first + messages]


@given(wild_rows | wild_preferences, st.sampled_from(["auto", *get_args(RowFormat)]))
def test_whatever_a_row_is_it_opens_or_has_problems(row: Any, row_format: str) -> None:
    problems: list[Problem] = []
    assert open_row(row, row_format, problems) is not None or problems


def test_an_input_stands_below_its_instruction() -> None:
    raw = open_row({"instruction": "번역해", "input": "hello", "output": "안녕"}, "auto", [])
    assert isinstance(raw, tuple)
    assert [turn["content"] for _, turn in raw[0]] == ["번역해\nhello", "안녕"]


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"instruction": "a", "output": "b", "history": [["a", "b"], ["c"]]}, "history[1]"),
        ({"instruction": 3, "output": "b"}, "instruction"),
        ({"messages": "no list"}, "messages"),
        ({"prompt": [], "completion": "b"}, "prompt"),
    ],
    ids=str,
)
def test_a_problem_says_its_place(row: Any, place: str) -> None:
    problems: list[Problem] = []
    open_row(row, "auto", problems)
    assert [problem.message.partition(":")[0] for problem in problems] == [place]
