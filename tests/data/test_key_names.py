"""One name for all ways of writing a key."""

from __future__ import annotations

import pytest

from axtune.data.key_names import plain, words


@pytest.mark.parametrize("key", ["loss_mask", "loss-mask", "lossMask", "LossMask", " Loss Mask"])
def test_a_key_is_the_same_however_it_is_written(key: str) -> None:
    assert plain(key) == "lossmask"
    assert words(key) == {"loss", "mask"}


def test_a_key_without_letters_of_two_cases_is_one_word() -> None:
    assert words("손실_제외") == {"손실", "제외"}
    assert words("LLMLoss2") == {"llm", "loss", "2"}
    assert plain("손실 제외") == "손실제외"
