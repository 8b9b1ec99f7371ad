"""Documents cut to a length: the pieces join to the text, and none is longer than it may be."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.data.cutting import cut

TOKENIZER = load_tokenizer("tiny-ax-4.0")
# What texts consist of where cutting is difficult: ends of every kind, characters of several
# tokens, control tokens and masks, which are one.
PARTS = (
    *(
        "가",
        "한국어 ",
        "문장입니다. ",
        "\n",
        "\n\n",
        "\r\n",
        " \n \n",
        "   ",
        "\t",
        "😀",
        "각",
        "뷁",
    ),
    *("<|im_end|>", "<|telephone|>", "12345", "!?", '."', "def f(x):\n    return x", "\u200b"),
)
TEXTS = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), max_size=60).map("".join)


def is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@settings(deadline=None, max_examples=300)
@given(text=TEXTS.filter(is_utf8), limit=st.integers(4, 40))
@example(text="", limit=15)
@example(text="\n\n\n", limit=4)
def test_pieces_join_to_the_text_and_are_encoded_alone(text: str, limit: int) -> None:
    pieces = cut(TOKENIZER, text, limit)
    assert "".join(piece.text for piece in pieces) == text
    for piece in pieces:
        assert 0 < len(piece.ids) <= limit
        assert piece.ids == TOKENIZER.encode(piece.text)


@settings(deadline=None, max_examples=100)
@given(words=st.lists(st.integers(1, 30), min_size=1, max_size=40), limit=st.integers(64, 128))
def test_paragraphs_that_fit_are_never_cut(words: list[int], limit: int) -> None:
    paragraphs = [f"{'한빛정공 ' * count}\n\n" for count in words]
    if any(len(TOKENIZER.encode(paragraph)) > limit // 2 for paragraph in paragraphs):
        return
    pieces = cut(TOKENIZER, "".join(paragraphs), limit)
    assert all(piece.text.endswith("\n\n") for piece in pieces)
    joined = [a.text + b.text.split("\n\n")[0] for a, b in pairwise(pieces)]
    # And each takes as many of them as it has room for.
    assert all(len(TOKENIZER.encode(text)) > limit - 4 for text in joined)


def test_a_text_that_fits_is_one_piece(either_tiny: AxTokenizer) -> None:
    text = "제1조 목적\n\n제2조 범위\n"
    ids = either_tiny.encode(text)
    assert cut(either_tiny, text, len(ids)) == [(text, ids)]
    assert len(cut(either_tiny, text, len(ids) - 1)) == 2


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("가나다라. 마바사아. 자차카타.\n" * 3 + "\n짧은 문단\n\n끝", ("\n", "\n\n", "")),
        ("첫 문장이 여기에서 끝난다. 둘째 문장도 여기에서 끝난다! " * 4, (".", "!", " ")),
        ("첫 문장。" * 20, ("。",)),
        ("끊을곳이없는긴글" * 20, ("",)),
    ],
    ids=["lines", "sentences", "full-width", "tokens"],
)
def test_a_long_paragraph_is_cut_at_the_best_place_within(text: str, ends: tuple[str, ...]) -> None:
    pieces = cut(TOKENIZER, text, 24)
    assert len(pieces) > 2
    assert all(piece.text.endswith(ends) for piece in pieces)


def test_a_sentence_begins_with_its_space_as_in_the_whole_text() -> None:
    text = "첫 문장이 여기에서 끝난다. " * 8
    pieces = cut(TOKENIZER, text, 24)
    assert [id for piece in pieces for id in piece.ids] == TOKENIZER.encode(text)


def test_a_long_text_is_cut_like_a_short_one() -> None:
    """A text of many windows; one whose window holds fewer tokens than a piece may have."""
    text = "".join(f"{n}번 문단입니다. 내용은 이렇습니다.\n\n" for n in range(12_000))
    pieces = cut(TOKENIZER, text, 255)
    assert "".join(piece.text for piece in pieces) == text
    assert all(piece.text.endswith("\n\n") for piece in pieces)
    assert min(len(piece.ids) for piece in pieces[:-1]) > 200
    spaces = " " * 400_000
    assert "".join(piece.text for piece in cut(TOKENIZER, spaces, 4095)) == spaces


@pytest.mark.parametrize("text", [" ", "\n", "가", "a.", "\n ", "\n\n \t", '."'])
def test_hostile_texts_take_no_time(text: str) -> None:
    began = time.process_time()
    cut(TOKENIZER, text * (200_000 // len(text)), 255)
    assert time.process_time() - began < 10
