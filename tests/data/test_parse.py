"""Judged rows of every shape become one preference, or problems that say where."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.judged import (
    ASKED,
    BAD,
    GOOD,
    MENU,
    SYSTEM,
    as_turns,
    bad,
    good,
    said,
    whole,
)
from support.rows import calls, check_rows, codes, tool

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.parse import PreferenceRow, read_row
from axtune.data.pipeline import check


def test_pairs_that_a_table_holds(tiny: AxTokenizer, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, ["prompt", "chosen", "rejected", "tools"])
        table.writeheader()
        table.writerow({"prompt": "q", "chosen": "a", "rejected": "b"})
        called = json.dumps([calls(("menu", {"site": "창원"}))], ensure_ascii=False)
        listed = json.dumps([ASKED], ensure_ascii=False)
        table.writerow(
            {"prompt": listed, "chosen": called, "rejected": "b", "tools": json.dumps([MENU])}
        )
    account, faults = check(str(file), tiny)
    assert faults == []
    assert account.answers["chosen"]["answers"] == 2


def test_tools_are_the_rows_or_those_written_in_the_system_turn() -> None:
    written = {"role": "system", "content": f"<tools>[{json.dumps(MENU)}]</tools>"}
    call = calls(("menu", {"site": "창원"}))
    text = '<tool_call>{"name": "menu", "arguments": {"site": "창원"}}</tool_call>'
    rows = [
        {"prompt": [ASKED], "chosen": [call], "rejected": [BAD], "tools": [MENU]},
        {"prompt": [written, ASKED], "chosen": text, "rejected": [BAD]},
        whole([written, ASKED], call),
        {
            "input": {"messages": [ASKED], "tools": [MENU]},
            "preferred_output": [call],
            "non_preferred_output": [BAD],
        },
    ]
    for row in rows:
        preference = good(row)
        assert preference.chosen is not None
        assert preference.rejected is not None
        assert preference.prompt == 1
        assert preference.chosen.tools == preference.rejected.tools == [MENU]
        (made,) = preference.chosen.messages[1]["tool_calls"]
        assert made["function"] == {"name": "menu", "arguments": {"site": "창원"}}
    assert bad({"chosen": [written, ASKED, GOOD], "rejected": [ASKED, BAD]}) == ["prompt-differs"]
    other = {"role": "system", "content": '<tools>[{"name": "f"}]</tools>'}
    assert bad({"chosen": [written, ASKED, GOOD], "rejected": [other, ASKED, BAD]}) == [
        "prompt-differs"
    ]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, ["same-answers"]),
        (whole([ASKED], GOOD, GOOD), ["same-answers"]),
        (
            {
                "prompt": "q",
                "chosen": [calls(("f", {"a": 1}))],
                "rejected": [
                    {
                        **calls(("f", '{"a":1}')),
                        "tool_calls": [
                            {"id": "other", "function": {"name": "f", "arguments": '{"a":1}'}}
                        ],
                    }
                ],
            },
            ["same-answers"],
        ),
        (
            {
                "prompt": "q",
                "chosen": [calls(("f", {"a": 1}))],
                "rejected": [calls(("f", {"a": True}))],
            },
            [],
        ),
        ({"prompt": "q", "chosen": "", "rejected": "b"}, ["empty-answer"]),
        ({"prompt": "q", "chosen": "a", "rejected": " \n"}, ["empty-answer"]),
        ({"prompt": "q", "chosen": None, "rejected": "b"}, ["empty-answer"]),
        ({"prompt": "q", "chosen": [], "rejected": ""}, ["empty-answer", "empty-answer"]),
        ({"prompt": "q", "chosen": [{"role": "assistant"}], "rejected": "b"}, ["empty-answer"]),
        ({"prompt": "q", "completion": "", "label": True}, ["empty-answer"]),
        ({"chosen": [ASKED], "rejected": [ASKED, BAD]}, ["empty-answer"]),
        ({"chosen": [ASKED, GOOD], "rejected": []}, ["empty-answer"]),
        ({"prompt": [ASKED], "chosen": [ASKED], "rejected": [BAD]}, ["answer-role"]),
        ({"prompt": "q", "chosen": [SYSTEM, GOOD], "rejected": [BAD]}, ["answer-role"]),
        ({"messages": [ASKED, GOOD, ASKED], "kto_tag": True}, ["prompt-role", "answer-role"]),
        ({"prompt": [ASKED, GOOD], "chosen": [GOOD], "rejected": [BAD]}, ["prompt-role"]),
        ({"chosen": [GOOD], "rejected": [BAD]}, ["empty-prompt"]),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, ["empty-prompt"]),
        ({"prompt": None, "completion": "a", "label": True}, ["empty-prompt"]),
        ({"chosen": [ASKED, GOOD], "rejected": [SYSTEM, ASKED, BAD]}, ["prompt-differs"]),
        (
            {"chosen": [ASKED, GOOD, ASKED, GOOD], "rejected": [ASKED, GOOD, SYSTEM, BAD]},
            ["prompt-differs"],
        ),
        ({"chosen": [ASKED, GOOD], "rejected": [ASKED, GOOD, ASKED, BAD]}, ["prompt-differs"]),
        (whole([ASKED]) | {"prompt": "다른 질문"}, ["prompt-differs"]),
        (
            whole([SYSTEM, ASKED]) | {"system": "다른 지시", "prompt": ASKED["content"]},
            ["two-systems", "two-systems"],
        ),
        ({"chosen": "a", "rejected": "b"}, ["empty-prompt"]),
        ({"prompt": "q", "chosen": 3, "rejected": "b"}, ["bad-content"]),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, ["bad-content"]),
        ({"prompt": "q", "chosen": ["a", "c"], "rejected": "b"}, ["bad-content"]),
        (
            {"prompt": "q", "chosen": {"role": "robot"}, "rejected": {"from": "gpt"}},
            ["bad-messages", "bad-role"],
        ),
        ({"prompt": "q", "completion": "a", "label": 2}, ["bad-label"]),
        ({"prompt": "q", "completion": "a", "label": "billing"}, ["bad-label"]),
        ({"messages": [ASKED, GOOD], "kto_tag": "yes"}, ["bad-label"]),
        ({"prompt": "q", "chosen": "a"}, ["unknown-shape"]),
        ({"prompt": "q", "chosen": None, "rejected": None}, ["empty-answer", "empty-answer"]),
        ({"completion": "a", "label": True}, ["empty-prompt"]),
    ],
)
def test_faults_of_a_preference(row: Any, wanted: list[str]) -> None:
    assert sorted(bad(row)) == sorted(wanted)


def test_nfc_makes_one_prompt_of_two_spellings() -> None:
    decomposed = {"role": "user", "content": unicodedata.normalize("NFD", "창원 점심은요?")}
    row = {"chosen": [ASKED, GOOD], "rejected": [decomposed, BAD]}
    assert bad(row) == ["prompt-differs"]
    assert said(good(row, nfc=True).rejected) == as_turns(ASKED, BAD)
    same = {"prompt": "q", "chosen": "각", "rejected": unicodedata.normalize("NFD", "각")}
    assert bad(same) == []
    assert bad(same, nfc=True) == ["same-answers"]


def test_ids_of_calls_and_reasoning_do_not_make_prompts_differ() -> None:
    one, two = calls(("f", {"a": 1})), calls(("f", '{"a": 1}'))
    two["tool_calls"][0]["id"] = "call_other"
    two["reasoning_content"] = "왜"
    result = {"role": "tool", "content": "{}"}
    row = {"chosen": [ASKED, one, result, GOOD], "rejected": [ASKED, two, result, BAD]}
    preference = good(row | {"tools": [tool("f")]})
    assert preference.prompt == 3
    assert preference.rejected is not None
    assert preference.rejected.places == ["chosen[0]", "chosen[1]", "chosen[2]", "rejected[3]"]


def test_answers_of_several_turns() -> None:
    prompt = [SYSTEM, ASKED]
    chosen = [calls(("menu", {"site": "창원"})), {"role": "tool", "content": "닭곰탕"}, GOOD]
    row = {"prompt": prompt, "chosen": chosen, "rejected": [BAD], "tools": [MENU]}
    for made in (row, whole_of(row), row | whole_of(row)):
        preference = good(made)
        assert preference.prompt == 2
        assert preference.chosen is not None
        assert preference.chosen.learn == [2, 4]
    context = [{**chosen[0], "weight": 0}, *chosen[1:]]
    preference = good(row | {"chosen": context})
    assert preference.chosen is not None
    assert preference.chosen.learn == [4]


def whole_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row's answers as whole conversations, without its prompt."""
    rest = {key: value for key, value in row.items() if key != "prompt"}
    return rest | {key: [*row["prompt"], *row[key]] for key in ("chosen", "rejected")}


_messages = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["user", "assistant", "assistant", "tool"]),
        st.sampled_from(["가", "나"]),
    ),
    max_size=5,
)


@given(shared=_messages, one=_messages, two=_messages)
def test_the_common_prompt_is_all_that_is_shared(shared: Any, one: Any, two: Any) -> None:
    """Against the definition, searched for by trying every length."""
    one, two = [*shared, *one], [*shared, *two]
    ends = [
        n
        for n in range(min(len(one), len(two)))
        if one[:n] == two[:n]
        and one[n] != two[n]
        and one[n]["role"] == two[n]["role"] == "assistant"
    ]
    preference, problems = read_row({"chosen": one, "rejected": two})
    if any(turn["role"] == "assistant" for turn in one) and any(
        turn["role"] == "assistant" for turn in two
    ):
        differ = [p.code for p in problems if p.code in ("prompt-differs", "same-answers")]
        assert bool(ends) == (not differ)
    else:
        assert "empty-answer" in [problem.code for problem in problems]
    if ends and not problems:
        assert isinstance(preference, PreferenceRow)
        assert preference.prompt == ends[0]
        assert said(preference.chosen) == as_turns(*one)
        assert said(preference.rejected) == as_turns(*two)


# Without "Cf": an answer of soft hyphens shows nothing, and is refused.
_said = st.text(st.characters(exclude_characters="<", exclude_categories=["Cs", "Cf"]), max_size=8)
_answers = st.lists(_said.filter(str.strip), min_size=2, max_size=2, unique=True)


@given(system=_said.filter(str.strip), question=_said.filter(str.strip), answers=_answers)
def test_shapes_make_the_same_ids(
    tiny: AxTokenizer, system: str, question: str, answers: list[str]
) -> None:
    prompt = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    chosen, rejected = ({"role": "assistant", "content": text} for text in answers)
    rows = [
        {"prompt": prompt, "chosen": [chosen], "rejected": [rejected]},
        whole(prompt, chosen, rejected),
        {"system": system, "question": question, "chosen": answers[0], "rejected": answers[1]},
        {"instruction": question, "system": system, "chosen": chosen, "rejected": rejected},
    ]
    made = [check_rows(tiny, [row])[0] for row in rows]
    assert all(codes(checked) == [] for checked in made)
    assert all(checked.samples == made[0].samples for checked in made)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"o": {"a": 1, "a": 2}}'])
def test_a_key_that_stands_twice_in_arguments_is_named(text: str) -> None:
    for call in (
        {"type": "function", "function": {"name": "f", "arguments": text}},
        {"name": "f", "args": text},
    ):
        row = {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "tool_calls": [call]},
            ]
        }
        _, (problem,) = read_row(row)
        assert (problem.code, problem.severity) == ("duplicate-key", "warning")
    said = f'<tool_call>{{"name": "f", "arguments": {text}}}</tool_call>'
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": said}]}
    assert [problem.code for problem in read_row(row)[1]] == ["duplicate-key"]


def test_a_key_that_stands_twice_and_says_the_same_is_fine() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1, "a": 1}'}}
    row = {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [call]}]
    }
    assert read_row(row)[1] == []


@pytest.mark.parametrize(("one", "two"), [("a", " a"), ("a\n", "a"), ("a", "\ta ")])
def test_answers_that_differ_in_outer_spaces_alone_are_the_same(one: str, two: str) -> None:
    for row in (
        {"prompt": "q", "chosen": one, "rejected": two},
        {
            side: [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]
            for side, text in (("chosen", one), ("rejected", two))
        },
    ):
        _, problems = read_row(row)
        assert [problem.code for problem in problems] == ["same-answers"]
