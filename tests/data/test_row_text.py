from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import calls, chat, tool

from axtune.data.parse import read_row
from axtune.data.row_text import RowText, Said, as_json, letters, row_text, values

KOREAN = st.text(st.sampled_from("가나다라Ab１2。, ·\n힣é"), max_size=30)


def text_of(row: dict[str, Any]) -> RowText:
    read, problems = read_row(row)
    assert read is not None
    assert not problems
    return row_text(read)


@given(st.text(max_size=60))
def test_letters_are_letters_and_digits_alone(text: str) -> None:
    said = letters(text)
    assert all(one.isalnum() for one in said)
    assert not any(one.isspace() for one in said)


@given(KOREAN)
def test_letters_say_the_same_of_a_text_in_other_clothes(text: str) -> None:
    said = letters(text)
    assert letters(said) == said
    assert letters(unicodedata.normalize("NFD", text)) == said
    assert letters(" ".join(text)) == said
    assert letters(text.upper()) == said


def test_letters_of_half_a_surrogate_pair_and_of_emoji_are_none() -> None:
    assert letters("\ud83d 😀 !?") == ""


def test_a_row_says_what_its_turns_say() -> None:
    call = calls(("find", {"도시": "서울", "며칠": 3}))
    row = {
        "messages": [
            {"role": "system", "content": "친절하게"},
            {"role": "user", "content": "날씨?"},
            call,
            {"role": "tool", "content": json.dumps({"기온": 21, "하늘": ["맑음"]})},
            {"role": "assistant", "content": "맑아요", "reasoning_content": "생각"},
        ],
        "tools": [tool("find")],
    }
    text = text_of(row)
    assert text.said == [
        Said("context", "친절하게"),
        Said("question", "날씨?"),
        Said("answer", "서울 3"),
        Said("result", "21 맑음"),
        Said("answer", "생각"),
        Said("answer", "맑아요"),
    ]
    assert text.tools == {"find"}
    assert text.joined("question", "result") == "날씨?\n21 맑음"


def test_a_turn_that_is_not_learned_is_part_of_the_question() -> None:
    row = chat("하나", "둘", "셋", "넷")
    row["messages"][1]["weight"] = 0
    assert [part for part, _ in text_of(row).said] == ["question", "question", "question", "answer"]


@pytest.mark.parametrize("label", [True, False])
def test_a_preference_says_its_prompt_once_and_each_answer(label: bool) -> None:
    pair = {"prompt": "묻기", "chosen": "좋음", "rejected": "나쁨"}
    said = [Said("question", "묻기"), Said("answer", "좋음"), Said("rejected", "나쁨")]
    assert text_of(pair).said == said
    one = {"prompt": "묻기", "completion": "답", "label": label}
    assert text_of(one).said[1] == Said("answer" if label else "rejected", "답")


def test_values_are_found_inside_of_json_texts() -> None:
    assert list(values({"a": '{"b": ["c", 1, null]}', "d": "[열림"})) == ["c", "1", "[열림"]
    assert as_json("{" * 5000) is None
    assert as_json('"글"') is None
