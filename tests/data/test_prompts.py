"""What stands before an answer, under every name that tools give it."""

from __future__ import annotations

from typing import Any

import pytest
from support.judged import ASKED, GOOD, SYSTEM

from axtune.data.cells import says
from axtune.data.conversation import Conversation
from axtune.data.parse import PreferenceRow, read_row
from axtune.data.prompts import (
    behind_transcript,
    repeats_prompt,
    take_answer,
    take_conversation,
    take_prompt,
    take_system,
    with_system,
)
from axtune.errors import Problem


def said(turns: Any) -> list[tuple[str, Any]]:
    return [(turn["role"], turn["content"]) for _, turn in turns]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "q"},
        {"query": "q"},
        {"question": "q"},
        {"input": "q"},
        {"prompt": "", "input": "q"},
        {"instruction": "q"},
        {"instruction": "q", "input": ""},
        {"instruction": "q", "input": "<noinput>"},
        {"instruction": "", "input": "q"},
        {"prompt": [{"role": "user", "content": "q"}]},
        {"prompt": {"role": "user", "content": "q"}},
        {"input": {"messages": [{"role": "user", "content": "q"}]}},
        {"messages": [{"role": "user", "content": "q"}]},
        {"conversation": [{"role": "user", "content": "q"}]},
    ],
    ids=str,
)
def test_every_name_of_a_question(fields: dict[str, Any]) -> None:
    problems: list[Problem] = []
    assert said(take_prompt(fields, problems)) == [("user", "q")]
    assert problems == []
    assert not any(map(says, fields.values()))  # all that says something is taken
    assert take_prompt({}, problems) is None


@pytest.mark.parametrize(
    "history",
    [
        [["안녕", "네"]],
        '[["안녕", "네"]]',
        "[['안녕', '네']]",
        [{"user": "안녕", "assistant": "네"}],
        [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"}],
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["instruction", "query", "prompt"])
def test_a_history_stands_before_the_question(key: str, history: Any) -> None:
    problems: list[Problem] = []
    turns = take_prompt({key: "q", "history": history}, problems)
    assert said(turns) == [("user", "안녕"), ("assistant", "네"), ("user", "q")]
    assert problems == []


def test_exchanges_are_two_turns_each() -> None:
    items = [{"human": "a", "assistant": "b"}, {"input": "c", "output": "d"}, GOOD]
    turns = take_conversation({"conversation": items}, "conversation", [])
    wanted = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    assert said(turns) == [*wanted, ("assistant", GOOD["content"])]
    assert [place for place, _ in turns[:2]] == [
        "conversation[0].human",
        "conversation[0].assistant",
    ]


def test_the_answers_inside_a_prompt_are_context() -> None:
    turns = take_prompt({"prompt": [ASKED, GOOD, ASKED]}, []) or []
    assert [turn.get("weight") for _, turn in turns] == [0, 0, 0]
    learned = {**GOOD, "weight": 1}
    assert take_prompt({"prompt": [learned]}, []) == [("prompt[0]", learned)]


def test_a_system_prompt_stands_first_and_once() -> None:
    for fields in ({"system": "존댓말로."}, {"system_prompt": "존댓말로."}):
        problems: list[Problem] = []
        system = take_system(fields, problems)
        assert fields == {}
        assert said(with_system(system, [("messages[0]", ASKED)], problems))[0] == (
            "system",
            "존댓말로.",
        )
        turns = [("messages[0]", SYSTEM), ("messages[1]", ASKED)]
        assert with_system(system, turns, problems) == turns
        assert problems == []
        with_system(system, [("messages[0]", {"role": "system", "content": "반말로."})], problems)
        assert [problem.code for problem in problems] == ["two-systems"]
    problems = []
    assert take_system({"system": 3}, problems) is None
    assert [problem.code for problem in problems] == ["bad-content"]
    assert take_system({"system": ""}, []) is None


@pytest.mark.parametrize(
    "value",
    ["a", ["a"], {"role": "assistant", "content": "a"}, [{"role": "assistant", "content": "a"}]],
    ids=str,
)
def test_every_form_of_an_answer(value: Any) -> None:
    problems: list[Problem] = []
    assert said(take_answer({"chosen": value}, "chosen", problems)) == [("assistant", "a")]
    assert problems == []


def test_an_answer_in_parts_is_one_turn() -> None:
    parts = [{"type": "text", "text": "a"}]
    assert said(take_answer({"output": parts}, "output", [])) == [("assistant", parts)]


@pytest.mark.parametrize("key", ["prompt", "output"])
def test_a_number_is_neither(key: str) -> None:
    problems: list[Problem] = []
    take = take_prompt if key == "prompt" else lambda f, p: take_answer(f, key, p)
    assert take({key: 2}, problems) == []
    assert [problem.code for problem in problems] == ["bad-content"]


EXCHANGE = {"system": "조수", "input": "q", "output": "a", "output_with_loss": False}


def test_an_exchange_of_xtuner_has_a_system_prompt_and_a_flag() -> None:
    problems: list[Problem] = []
    turns = take_conversation({"conversation": [EXCHANGE]}, "conversation", problems)
    assert said(turns) == [("system", "조수"), ("user", "q"), ("assistant", "a")]
    assert [place for place, _ in turns] == [
        "conversation[0].system",
        "conversation[0].input",
        "conversation[0].output",
    ]
    assert turns[2][1]["output_with_loss"] is False
    assert problems == []
    row = {"conversation": [EXCHANGE, {"input": "q", "output": "b"}]}
    conversation, problems = read_row(row)
    assert isinstance(conversation, Conversation)
    assert (conversation.learn, problems) == ([4], [])


@pytest.mark.parametrize(
    "item",
    [
        {"tool": "f", "input": "q", "output": "a"},  # a step of an agent
        {"instruction": "q", "input": "q", "output": "a"},
        {"type": "x", "input": "q", "output": "a"},
        {"input": "q"},
    ],
)
def test_what_may_be_something_else_is_no_exchange(item: dict[str, Any]) -> None:
    (turn,) = take_conversation({"conversation": [item]}, "conversation", [])
    assert turn == ("conversation[0]", item)


def test_what_an_exchange_has_besides_is_not_lost() -> None:
    item = {"human": "q", "assistant": "a", "action": "x"}
    _, (problem,) = read_row({"conversation": [item]})
    assert problem.code == "unread-key"


def test_plain_texts_are_the_users_and_the_assistants_in_turn() -> None:
    fields: dict[str, Any] = {"conversations": ["q", "a", "r", "b"]}
    turns = take_conversation(fields, "conversations", [])
    assert said(turns) == [("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")]
    _, problems = read_row({"messages": ["q", "a"]})  # of these nothing says who speaks
    assert {problem.code for problem in problems} == {"bad-messages"}


QUESTION = "택배는 몇 시까지 오나요?"


@pytest.mark.parametrize("between", ["\n", " ", "", "\n\nAssistant: "])
@pytest.mark.parametrize(
    "keys",
    [
        ("prompt", "chosen", "rejected"),
        ("query", "chosen_response", "rejected_response"),
        ("prompt", "completion"),
        ("instruction", "output"),
        ("input", "response"),
    ],
)
def test_an_answer_that_repeats_the_whole_prompt_is_said(
    keys: tuple[str, ...], between: str
) -> None:
    question, *answers = keys
    row = {question: QUESTION}
    row |= {key: f"{QUESTION}{between}{key} 시" for key in answers}
    _, (problem,) = read_row(row)
    assert (problem.code, problem.severity) == ("repeats-prompt", "warning")
    assert "택배" not in problem.message
    if len(answers) == 2:  # one that does is an answer of its own
        assert read_row(row | {answers[0]: "여섯 시"})[1] == []
    _, (problem,) = read_row({"prompt": QUESTION, "completion": f"{QUESTION}\n여섯", "label": True})
    assert problem.code == "repeats-prompt"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("안녕", "안녕하세요"),
        ("안녕", "안녕 친구"),
        (QUESTION, QUESTION),
        (QUESTION, f"{QUESTION} "),
        (QUESTION, "여섯 시"),
        (QUESTION, f"말씀하신 {QUESTION} 여섯 시"),
    ],
)
def test_an_answer_may_begin_as_the_prompt_does(question: str, answer: str) -> None:
    assert read_row({"prompt": question, "completion": answer})[1] == []
    turns = [("prompt", {"role": "user", "content": question})]
    assert repeats_prompt(turns, {"completion": []}) is None
    assert repeats_prompt([], {"completion": turns}) is None


def test_turns_say_themselves_who_repeats() -> None:
    answer = {"role": "assistant", "content": f"{QUESTION}\n여섯 시"}
    row = {"messages": [{"role": "user", "content": QUESTION}, answer]}
    assert read_row(row)[1] == []


@pytest.mark.parametrize("keys", [("chosen", "rejected"), ("completion",), ("response",)])
def test_an_answer_behind_a_transcript_has_no_space_of_its_own(keys: tuple[str, ...]) -> None:
    answers = {key: f" {key} " for key in keys}
    row = {"prompt": "\n\nHuman: q\n\nAssistant:", **answers}
    read, problems = read_row(row)
    assert problems == []
    assert isinstance(read, (Conversation, PreferenceRow))
    read = read if isinstance(read, Conversation) else read.learned
    assert [message["content"] for message in read.messages] == ["q", keys[0]]
    (turn,) = behind_transcript({"prompt": "q"}, [("a", {"role": "assistant", "content": " a"})])
    assert turn[1]["content"] == " a"
