"""A question is learned with its choices, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from support.rows import chat, check_rows, codes

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.conversation import Conversation
from axtune.data.parse import PreferenceRow, read_row

ABCD = {"A": "서울", "B": "부산", "C": "대구", "D": "창원"}
LISTED = list(ABCD.values())
SHOWN = "어디?\nA. 서울\nB. 부산\nC. 대구\nD. 창원"


def turns(row: Any) -> list[str]:
    """What is said in a row that nothing is wrong with."""
    read, problems = read_row(row)
    assert problems == []
    assert isinstance(read, Conversation)
    return [message["content"] for message in read.messages]


@pytest.mark.parametrize(
    "columns",
    [
        ABCD,
        {f"option_{letter.lower()}": text for letter, text in ABCD.items()},
        {f"op{letter.lower()}": text for letter, text in ABCD.items()},
        {"choices": LISTED},
        {"options": str(LISTED)},
        {"options": ABCD},
        {"choices": {"label": list(ABCD), "text": LISTED}},
        {"options": [{"key": letter, "value": text} for letter, text in ABCD.items()]},
        {"보기": LISTED},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B.", "B"),
        ("부산", "부산"),
        ("정답은 B입니다.", "정답은 B입니다."),
        ("부산이 맞습니다.", "부산이 맞습니다."),
    ],
)
def test_choices_stand_below_the_question(columns: Any, answer: Any, said: str) -> None:
    assert turns({"question": "어디?", "answer": answer} | columns) == [SHOWN, said]
    row = {"instruction": "고르세요.", "input": "어디?", "output": answer} | columns
    assert turns(row) == [f"고르세요.\n{SHOWN}", said]


@pytest.mark.parametrize(("answer", "said"), [(1, "A"), (4, "D"), ("2", "B"), (3.0, None)])
def test_answers_of_kmmlu_count_from_one(answer: Any, said: str | None) -> None:
    row = {"question": "어디?", "answer": answer, **ABCD, "Category": "지리"}
    if said:
        assert turns(row) == [SHOWN, said]
    else:
        assert [problem.code for problem in read_row(row)[1]] == ["bad-choices"]


@pytest.mark.parametrize("key", ["answerKey", "correct_option", "정답", "label"])
def test_the_answer_may_stand_under_a_name_of_such_rows(key: str) -> None:
    assert turns({"question": "어디?", "choices": LISTED, key: "C"}) == [SHOWN, "C"]


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "answer": 0, **ABCD},
        {"question": "q", "answer": 5, **ABCD},
        {"question": "q", "answer": 1, "choices": LISTED},
        {"question": "q", "answer": "2", "choices": LISTED},
        {"question": "q", "cop": 2, "opa": "가", "opb": "나"},
        {"question": "q", "answer": "제주", "choices": LISTED},
        {"question": "q", "answer": "E", "choices": LISTED},
        {"question": "q", "answer": "3", "A": "2", "B": "3", "C": "4"},
        {"question": "q", "answer": "B", "choices": ["A", "B", "B"]},
        {"question": "q", "answer": "A", "choices": [["a"], ["b"]]},
        {"question": "q", "answer": "A", "choices": {"a": None}},
        {"question": "q", "answer": "A", "choices": ["하나"]},
        chat("q", "a", choices=LISTED),
        chat("q", "a", **ABCD),
        {"prompt": [{"role": "user", "content": "q"}], "completion": "A", "options": LISTED},
    ],
    ids=str,
)
def test_an_answer_or_choices_that_are_not_clear_refuse_the_row(
    tiny: AxTokenizer, row: dict[str, Any]
) -> None:
    (checked,) = check_rows(tiny, [row])
    assert set(codes(checked)) == {"bad-choices"}


def test_choices_that_the_question_holds_are_shown_once() -> None:
    row = {"question": SHOWN, "answer": "A", "choices": LISTED}
    assert turns(row) == [SHOWN, "A"]
    assert turns(chat(SHOWN, "A", **ABCD)) == [SHOWN, "A"]


def test_a_pair_is_behind_the_choices_too() -> None:
    read, problems = read_row(
        {"question": "어디?", "options": LISTED, "chosen": "A", "rejected": "B"}
    )
    assert problems == []
    assert isinstance(read, PreferenceRow)
    assert read.learned.messages[0]["content"] == SHOWN


@pytest.mark.parametrize("beside", [{"A": "가"}, {"B": "가", "C": "나"}, {"a": "가", "c": "나"}])
def test_columns_that_are_no_row_of_letters_are_no_choices(beside: dict[str, str]) -> None:
    assert turns({"question": "q", "answer": "네"} | beside) == ["q", "네"]
