"""What an answer is about is shown before it, or the row is refused."""

from __future__ import annotations

from typing import Any

import pytest
from support.rows import chat, check_rows, codes

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.conversation import Conversation
from axtune.data.parse import PreferenceRow, read_row

ABOUT = "점심은 닭곰탕이다."


def asked(row: Any) -> str:
    """The question of a row that nothing is wrong with."""
    read, problems = read_row(row)
    assert problems == []
    assert isinstance(read, (Conversation, PreferenceRow))
    first = read if isinstance(read, Conversation) else read.learned
    said: str = first.messages[0]["content"]
    return said


@pytest.mark.parametrize(
    "key",
    [
        "context", "contexts", "Passages", "background", "retrievedDocuments", "knowledge",
        "article", "evidence", "inputs", "Input", "입력", "지문", "배경 지식",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [ABOUT, [ABOUT], f'["{ABOUT}"]'], ids=["text", "list", "table"])
def test_a_passage_stands_below_the_question(key: str, value: Any) -> None:
    for row in (
        {"instruction": "점심은?", "output": "닭곰탕"},
        {"question": "점심은?", "answer": "닭곰탕"},
        {"prompt": "점심은?", "chosen": "닭곰탕", "rejected": "모름"},
        {"prompt": "점심은?", "completion": "닭곰탕", "label": True},
    ):
        assert asked(row | {key: value}) == f"점심은?\n{ABOUT}"


def test_texts_of_a_list_stand_apart() -> None:
    row = {"question": "점심은?", "answer": "a", "contexts": ["첫째 글", "둘째 글"]}
    assert asked(row) == "점심은?\n첫째 글\n\n둘째 글"


def test_an_input_beside_a_prompt_and_a_question_beside_an_instruction_are_shown() -> None:
    assert asked({"prompt": "고쳐라", "completion": "a", "input": "글"}) == "고쳐라\n글"
    assert asked({"instruction": "답하라", "answer": "a", "question": "몇 시?"}) == "답하라\n몇 시?"


def test_a_passage_that_the_question_holds_is_shown_once() -> None:
    question = f"{ABOUT} 점심은?"
    assert asked({"question": question, "answer": "닭곰탕", "context": ABOUT}) == question
    assert read_row(chat(question, "닭곰탕", context=ABOUT))[1] == []


@pytest.mark.parametrize(
    "beside",
    [
        {"passage": "첫째", "background": "둘째"},
        {"input": "첫째", "context": "둘째"},
        {"documents": [{"title": "제목", "text": ABOUT}]},
        {"documents": '[{"text": "글"}]'},
        {"table": {"header": ["a"]}},
        {"schema": "CREATE TABLE t (a int)"},
        {"persona": "S2"},
        {"reference": ABOUT},
        {"previous_response_id": "resp_01"},
    ],
    ids=str,
)
def test_what_is_not_clear_refuses_the_row(tiny: AxTokenizer, beside: dict[str, Any]) -> None:
    (checked,) = check_rows(tiny, [{"instruction": "점심은?", "output": "닭곰탕"} | beside])
    assert codes(checked) == ["unread-context"]


@pytest.mark.parametrize("key", ["context", "documents", "retrieved", "persona", "지문"])
def test_a_conversation_does_not_say_where_a_passage_belongs(tiny: AxTokenizer, key: str) -> None:
    (checked,) = check_rows(tiny, [chat("점심은?", "닭곰탕", **{key: ABOUT})])
    assert codes(checked) == ["unread-context"]
    assert checked.faults[0].message.startswith(key)


@pytest.mark.parametrize("value", ["https://a.example/b", "notes/menu.md", "doc_0012", "17", 3])
def test_where_a_text_is_from_is_named_only(value: Any) -> None:
    row = {"question": "점심은?", "answer": "닭곰탕", "document": value}
    read, (problem,) = read_row(row)
    assert (problem.code, problem.severity) == ("unread-key", "warning")
    assert isinstance(read, Conversation)
    assert read.messages[0]["content"] == "점심은?"
