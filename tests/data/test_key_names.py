"""One name for all ways of writing a key."""

from __future__ import annotations

from typing import Any

import pytest

from axtune.data.key_names import described, is_name, named_keys, plain, words


@pytest.mark.parametrize("key", ["loss_mask", "loss-mask", "lossMask", "LossMask", " Loss Mask"])
def test_a_key_is_the_same_however_it_is_written(key: str) -> None:
    assert plain(key) == "lossmask"
    assert words(key) == {"loss", "mask"}


def test_a_key_without_letters_of_two_cases_is_one_word() -> None:
    assert words("손실_제외") == {"손실", "제외"}
    assert words("LLMLoss2") == {"llm", "loss", "2"}
    assert plain("손실 제외") == "손실제외"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"role": 1}, "an object with the key role"),
        ({}, "an empty object"),
        ([1], "a list"),
        ([], "an empty list"),
        ("글", "a text"),
        ("", "an empty text"),
        (True, "true or false"),
        (0, "a number"),
        (None, "nothing"),
    ],
)
def test_a_value_is_described_without_what_it_says(value: Any, said: str) -> None:
    assert described(value) == said


def test_keys_are_named_where_they_are_names() -> None:
    assert named_keys({"a": 1, "b c": 2}) == "the keys a, b c"
    assert named_keys({"질문": 1}) == "the key 질문"
    assert named_keys({"홍길동": 1, "a": 2}) == "the keys a, 1 more"
    assert not is_name("x" * 41)
    assert not is_name("a@b.example")
