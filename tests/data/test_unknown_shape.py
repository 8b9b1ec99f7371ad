"""A row that is not read says what it has, and what it is nearest to."""

from __future__ import annotations

from typing import Any

import pytest
from support.rows import chat

from axtune.data.parse import read_row
from axtune.data.unknown_shape import turns_key

ROW = chat("q", "a")
ANSWER = ROW["messages"][1]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"질문": "q", "답변": "a"},
            "rename 질문 to prompt, 답변 to completion; found the keys 질문",
        ),
        ({"document": "D", "summary": "S"}, "rename document to prompt, summary to completion"),
        ({"sql_prompt": "q", "sql": "a", "domain": "x"}, "found the keys sql_prompt, sql, domain"),
        ({"user": "q", "reply": "a"}, "rename user to prompt, reply to completion"),
        ({"question": "q", "choices": ["a", "b"]}, "question may be the prompt; no key is an ans"),
        ({"summary": "S", "year": 3}, "summary may be the completion; no key is a prompt"),
        (
            {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 1},
            "nearest is a pair: write the better one of response_0 and response_1 as chosen",
        ),
        ({"history": "q", "human_ref_A": "a", "human_ref_B": "b"}, "human_ref_A and human_ref_B"),
        ({"mesages": ROW["messages"]}, "did you mean messages?; found the key mesages"),
        ({"custom_id": "1", "body": ROW}, "the row stands within body; write what is in it (jq"),
        ({"inputs": {"question": "q"}, "outputs": {"answer": "a"}}, "the question stands within i"),
        ({"request": ROW, "response": {"choices": []}}, "the question stands within request"),
        ({"prompt": "q", "answers": [{"answer": "a", "rank": 1}]}, "completion: rename answers to"),
        (
            {"instruction": "q", "completions": [{"response": "a", "overall_score": 8.5}]},
            "completions holds several answers with what each is worth",
        ),
        ({"title": "t", "mapping": {}}, "expected the keys messages, conversations"),
        ({"prompt": "q", "id": 1}, "no answer (completion) behind it; found the keys prompt, id"),
        (
            {"prompt": "q", "chosen": "a"},
            "has no key rejected; rename the key that means it. Found",
        ),
        ({}, "the row says nothing"),
    ],
    ids=str,
)
def test_what_is_said_of_a_row_that_is_not_read(row: dict[str, Any], said: str) -> None:
    read, (problem,) = read_row(row)
    assert read is None
    assert problem.code == "unknown-shape"
    assert said in problem.message
    assert problem.message.endswith(".")


def test_keys_that_may_be_what_a_row_says_are_counted_only() -> None:
    _, (problem,) = read_row({"홍길동 010-1234-5678": "x", "이름": "y", "body text": "z"})
    assert "found the keys body text, 2 more;" in problem.message
    _, (problem,) = read_row({"홍길동": "x"})
    assert "found the key (1, no name);" in problem.message
    _, (problem,) = read_row({f"column_{n}": n for n in range(30)})
    assert "column_11, 18 more;" in problem.message


def test_what_stands_in_the_place_of_turns_is_said() -> None:
    for turns, said in (
        ([["human", "q"]], "messages[0]: expected an object with role and content, found a list."),
        (
            {"messages": []},
            "messages: expected a list with at least one turn, found an object with",
        ),
        (3, "messages: expected a list with at least one turn, found a number."),
        ([], "messages: expected a list with at least one turn, found an empty list."),
        ([{"author": {}, "content": "q"}], "messages[0]: unknown role; expected one of system"),
        ([{"role": "user", "said": "q"}], "Found the keys role, said."),
    ):
        problems = read_row({"messages": turns, "id": 1})[1]
        assert any(said in problem.message for problem in problems), problems


def test_a_conversation_under_another_name() -> None:
    assert turns_key({"dialog": [{"role": "user"}, ANSWER]}) == "dialog"
    assert turns_key({"dialog": "User: q", "data": [1, 2]}) is None
