"""Every shape of a row becomes the same messages."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.judged import (
    ASKED,
    BAD,
    FROM,
    GOOD,
    MENU,
    SYSTEM,
    TEXT,
    as_turns,
    good,
    said,
    whole,
)
from support.rows import chat, check_rows, codes
from support.strategies import wild_documents, wild_preferences, wild_rows, with_columns

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.recipe import RowFormat
from axtune.data.conversation import Conversation
from axtune.data.formats import open_row
from axtune.data.parse import PreferenceRow, read_row
from axtune.data.unread_columns import KNOWN
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


def test_a_label_beside_messages_judges_the_answer_when_it_is_one() -> None:
    row = {"messages": [ASKED, GOOD], "label": False}
    assert good(row).rejected is not None
    assert good(row, row_format="unpaired_preference").rejected is not None
    read, problems = read_row(row, row_format="chat")
    assert isinstance(read, Conversation)
    assert [problem.code for problem in problems] == ["unread-key"]
    read, problems = read_row({"messages": [ASKED, GOOD], "label": "billing", "system_prompt": "s"})
    assert isinstance(read, Conversation)
    assert [problem.code for problem in problems] == ["unread-key"]
    assert "answers are learned whatever that says (task: sft)" in problems[0].message
    assert "billing" not in problems[0].message
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


_texts = st.text(
    st.characters(exclude_characters="<[{", exclude_categories=["Cs"]), min_size=1
).filter(lambda text: not text.isspace())
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
    pairs = [{"human": asked, "assistant": answered} for asked, answered in exchanges]
    rows: list[dict[str, Any]] = [
        {"messages": first + messages},
        {"messages": messages, **beside},
        {"messages": str(first + messages), "instruction": None, "output": None},
        {"messages": [json.dumps(turn) for turn in first + messages]},
        {"conversation": pairs, **beside},
        {"conversations": str(turns), **beside, "chosen": None, "label": None},
        {"query": question, "response": answer, "history": [list(h) for h in history]} | beside,
        {"prompt": messages[:-1], "completion": [messages[-1]], **beside},
        {"prompt": json.dumps(messages[:-1]), "completion": str(messages[-1:]), **beside},
        {"prompt": messages[:-1], "completion": messages, **beside},
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


@given(
    wild_rows | wild_preferences | wild_documents | with_columns(wild_rows),
    st.sampled_from(["auto", *get_args(RowFormat)]),
)
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


def opened(row: Any, row_format: str = "auto") -> tuple[Any, list[Problem]]:
    problems: list[Problem] = []
    return open_row(row, row_format, problems), problems


TURNS = [ASKED, GOOD]
READ_ROWS: list[dict[str, Any]] = [
    {"messages": TURNS},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    {"conversation": [{"human": "q", "assistant": "a"}]},
    {"instruction": "q", "output": "a"},
    {"instruction": "q", "input": "i", "output": "a", "history": [["b", "c"]]},
    {"prompt": "q", "completion": "a"},
    {"prompt": [ASKED], "completion": [GOOD]},
    {"query": "q", "response": "a"},
    {"prompt": "q", "completion": "a", "label": 1},
    {"messages": TURNS, "kto_tag": False},
    {"prompt": "q", "chosen": "a", "rejected": "b"},
    {"instruction": "q", "chosen": "a", "rejected": "b"},
    {"messages": TURNS, "rejected_response": "b"},
    whole([ASKED]),
    {"input": {"messages": [ASKED]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
]
FORMS = (
    lambda text: text,
    lambda text: [text],
    lambda text: {"role": "user", "content": text},
    lambda text: [{"role": "user", "content": text}],
    lambda text: [{"from": "human", "value": text}, {"from": "gpt", "value": "b"}],
)


@given(
    row=st.sampled_from(READ_ROWS),
    beside=st.dictionaries(
        st.sampled_from(sorted(KNOWN)), st.sampled_from(FORMS), min_size=1, max_size=4
    ),
)
def test_no_key_that_a_tool_reads_vanishes_in_silence(row: Any, beside: Any) -> None:
    added = {key: form(f"다른 데 없는 {key}") for key, form in beside.items() if key not in row}
    read, problems = opened(added | row)
    if any(problem.severity == "error" for problem in read_row(added | row)[1]):
        return
    assert read is not None
    named = [re.split("[:;,] ?", problem.message) for problem in problems]
    turns, tools = read if isinstance(read, tuple) else (str(read), read.tools)
    seen = f"{turns}{tools}"
    lost = [key for key in added if f"다른 데 없는 {key}" not in seen]
    assert [key for key in lost if all(key not in words for words in named)] == []


@given(
    row=st.sampled_from(READ_ROWS),
    nulls=st.dictionaries(
        st.sampled_from(sorted(KNOWN)), st.sampled_from([None, "", [], float("nan")])
    ),
)
def test_a_key_that_is_null_or_empty_says_nothing(row: Any, nulls: Any) -> None:
    (one, problems), (two, none) = opened(nulls | row), opened(row)
    assert (one, problems) == (two, none)


@pytest.mark.parametrize("row", READ_ROWS, ids="+".join)
def test_keys_that_no_tool_reads_are_free(row: Any) -> None:
    free = {"id": 1, "source": "x", "metadata": {"a": 1}, "category": "qa", "prompt_id": "p"}
    assert opened(row | free) == opened(row)
    assert opened(row)[1] == []


@pytest.mark.parametrize(
    ("row", "keys"),
    [
        ({"messages": TURNS, "instruction": "q", "output": "a"}, "instruction, output"),
        ({"messages": TURNS, "conversations": [{"from": "human", "value": "q"}]}, "conversations"),
        ({"messages": TURNS, "prompt": "다른 질문"}, "prompt"),
        ({"messages": TURNS, "weight": 0.5}, "weight"),
        ({"messages": TURNS, "chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        ({"prompt": [ASKED], "completion": "a", "history": [["b", "c"]]}, "history"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1.5}, "margin"),
        (
            {**whole([ASKED]), "score_chosen": 8, "score_rejected": 2},
            "score_chosen, score_rejected",
        ),
        ({"messages": TURNS, "system": "a", "system_prompt": "b"}, "system_prompt"),
        ({"messages": TURNS, "tools": [MENU], "functions": [{"name": "f"}]}, "functions"),
        ({"messages": TURNS, "label": 3}, "label"),
        ({"messages": TURNS, "System": "s"}, "System"),
        ({"messages": TURNS, "systemInstruction": "s"}, "systemInstruction"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_keys_that_are_not_read_are_named(row: Any, keys: str) -> None:
    _, (problem,) = opened(row)
    assert problem.code == "unread-key"
    assert problem.severity == "warning"
    assert problem.message.startswith(f"not read: {keys};")


@pytest.mark.parametrize(
    "beside",
    [
        {"prompt": ASKED["content"]},
        {"prompt": ASKED["content"], "response": f"{GOOD['content']}\n"},
        {"question": [ASKED]},
        {"context": "점심"},
        {"problem": "x", "solution": GOOD["content"]},
        {"conversations": str([{"from": "human", "value": ASKED["content"]}])},
    ],
    ids="+".join,
)
def test_a_key_that_says_again_what_is_read_is_silent(beside: Any) -> None:
    assert opened({"messages": TURNS} | beside)[1] == []


@pytest.mark.parametrize("key", ["images", "image", "videos", "audios"])
def test_what_a_model_of_text_does_not_see_refuses_the_row(key: str) -> None:
    _, (problem,) = opened({"messages": TURNS, key: ["a.png"]})
    assert (problem.code, problem.severity) == ("bad-content", "error")
    assert problem.message.startswith(key)
    assert opened({"messages": TURNS, key: []})[1] == []


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"Text": "문서"}, "case or spaces"),
        ({"text": "문서", "turns": ["가", "나"]}, "name it conversations"),
        ({"input_ids": [1, 2], "labels": [1, 2]}, "tokenised"),
        ({"segments": [{"label": True, "text": "a"}]}, "without roles"),
        ({"prompt": "q"}, "no answer"),
        ({"prompt": "q", "completions": ["a", "b"], "labels": [True, False]}, "steps"),
        ({"title": "a"}, "expected the keys"),
        ({"Instruction": "q", " Output": "a"}, "case or spaces"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_a_row_of_no_shape_says_why(row: Any, why: str) -> None:
    read, (problem,) = opened(row)
    assert read is None
    assert problem.code == "unknown-shape"
    assert why in problem.message


@pytest.mark.parametrize(
    ("row", "codes"),
    [
        ({"instruction": "", "input": "", "output": "a"}, ["empty-prompt"]),
        ({"instruction": None, "input": None, "output": "a"}, ["empty-prompt"]),
        ({"instruction": " ", "output": "a", "system": "s"}, ["empty-prompt"]),
        ({"instruction": "", "input": "<noinput>", "output": "a"}, ["empty-prompt"]),
        ({"prompt": "", "completion": "a"}, ["empty-prompt"]),
        ({"query": None, "response": "a"}, ["empty-prompt"]),
        ({"instruction": "q", "output": ["a", "b"]}, ["bad-content"]),
        ({"instruction": "q", "output": ["a"]}, []),
        ({"instruction": "q", "output": ""}, []),  # the check of turns says so
        ({"instruction": "", "input": "q", "output": "a"}, []),
    ],
    ids=str,
)
def test_alpaca_rows_with_nothing_to_answer(row: Any, codes: list[str]) -> None:
    assert [problem.code for problem in opened(row)[1]] == codes


GLAIVE = {
    "system": 'SYSTEM: Use them if required -\n{"name": "f", "parameters": {}}',
    "chat": "USER: q\n\n\nASSISTANT: a <|endoftext|>",
}


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        ({"query": "q", "answers": "[]", "tools": "[]"}, []),
        ({"query": "q", "answers": '[{"name": "f", "arguments": {}}]', "system": "s"}, []),
        (GLAIVE, []),
        ({"input": [{"type": "message", **ASKED}], "output": [{"type": "message", **GOOD}]}, []),
        ({"contents": [{"role": "user", "parts": [{"text": "q"}]}], "messages": None}, []),
        ({"query": "q", "answers": "[]", "system_prompt": "s"}, ["unread-key"]),
        ({"input": "q", "output": [{"type": "message", **GOOD}], "system": "s"}, ["unread-key"]),
        (GLAIVE | {"weight": 2}, ["unread-key"]),
    ],
    ids=str,
)
def test_beside_a_trace_nothing_is_silent_either(row: Any, unread: list[str]) -> None:
    read, problems = opened(row)
    assert isinstance(read, tuple)
    assert [problem.code for problem in problems] == unread


@pytest.mark.parametrize(
    "key",
    ["Complex_CoT", "text", "reward", "kto_label", "rejected_answer", "image_path",
     "available_tools", "tool_calls", "train_mask", "preamble", "response_format"],
)  # fmt: skip
def test_what_columns_of_other_names_say_is_named(tiny: AxTokenizer, key: str) -> None:
    row = {"prompt": "질문?", "completion": "대답.", key: "무엇인가"}
    (checked,) = check_rows(tiny, [row])
    assert codes(checked, "warning") == ["unread-key"]
    assert key in checked.faults[0].message


@pytest.mark.parametrize("key", ["systemPrompt", "system_message", "systemMessage"])
def test_a_system_prompt_by_another_name_is_one(tiny: AxTokenizer, key: str) -> None:
    row = {"messages": chat("질문?", "대답.")["messages"], key: "짧게 답하세요."}
    (checked,) = check_rows(tiny, [row])
    (sample,) = checked.samples
    assert "<|system|>짧게 답하세요." in tiny.decode(sample.input_ids)


CONTENTS = [
    {"role": "user", "parts": [{"text": "q"}]},
    {"role": "model", "parts": [{"text": "a"}]},
]
XLAM = {"query": "q", "answers": [{"name": "f", "arguments": {}}], "tools": [{"name": "f"}]}


@pytest.mark.parametrize("key", ["label", "kto_tag"])
@pytest.mark.parametrize("row", [{"contents": CONTENTS}, XLAM], ids=["gemini", "xlam"])
def test_a_judged_trace_is_not_learned_as_an_answer(row: dict[str, Any], key: str) -> None:
    for label, name in ((False, "rejected"), ("0", "rejected"), (True, "chosen"), (1, "chosen")):
        read, problems = read_row(row | {key: label})
        assert problems == []
        assert isinstance(read, PreferenceRow)
        ((found, conversation),) = read.answers
        assert (found, read.prompt, len(conversation.messages)) == (name, 1, 2)
    read, (problem,) = read_row(row | {key: "billing"})
    assert problem.code == ("bad-label" if key == "kto_tag" else "unread-key")
    assert not read_row(row | {key: None})[1]


@pytest.mark.parametrize("key", ["data", "dialog", "turns", "chat_messages"])
def test_a_conversation_under_another_name_is_told_its_name(key: str) -> None:
    for turns in (["q", "a"], [{"role": "user"}, {"role": "assistant"}], [{"sender": "a"}] * 2):
        _, (problem,) = read_row({key: turns})
        assert f"the key {key} seems to hold a conversation; name it" in problem.message
    _, (problem,) = read_row({key: [1, 2]})
    assert "seems" not in problem.message
