"""Texts that are not what was written are told by their form; sound ones never are."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import TEMPLATES, chat, check_rows, codes, read_jsonl

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.garbled import is_escaped, is_mojibake, media_placeholder

SAID = "안녕하세요. 오늘 점심은 닭곰탕입니다."


@pytest.mark.parametrize(
    ("written", "read"),
    [("utf-8", "latin-1"), ("utf-8", "cp1252"), ("utf-8", "cp949"), ("cp949", "latin-1")],
)
def test_bytes_that_were_decoded_as_another_encoding(
    tiny: AxTokenizer, written: str, read: str
) -> None:
    garbled = SAID.encode(written).decode(read, "ignore")
    assert is_mojibake(garbled)
    for row in (chat(garbled, "a"), chat("q", garbled), {"text": garbled}):
        (checked,) = check_rows(tiny, [row])
        assert codes(checked, "warning") == ["mojibake"]
        assert garbled not in checked.faults[0].message


def test_utf_16_that_was_decoded_as_another_encoding() -> None:
    assert is_mojibake("order 7".encode("utf-16-le").decode("latin-1"))


@pytest.mark.parametrize(
    "text",
    [
        SAID,
        "Größe, café, Ñandú ±0.5° §12 «déjà vu»",
        "뷁! 쀍이라니 처음 듣는 말이네요.",
        "漢字かな",
        "x",
        "",
    ],
)
def test_sound_texts(text: str) -> None:
    assert not is_mojibake(text)
    assert not is_escaped(text)
    assert media_placeholder(text) is None


def test_syllables_that_no_word_has_are_not_garbled_by_themselves() -> None:
    draw = random.Random(0)
    for _ in range(200):
        assert not is_mojibake("".join(chr(draw.randint(0xAC00, 0xD7A3)) for _ in range(40)))


def test_no_row_of_the_templates_is_garbled() -> None:
    for file in TEMPLATES.glob("*.jsonl"):
        for row in read_jsonl(file):
            assert not is_mojibake(str(row)), file


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=2))
def test_utf8_as_latin_is_always_found(text: str) -> None:
    assert is_mojibake(text.encode().decode("latin-1"))


@pytest.mark.parametrize("text", ["가\\n나\\n다", "\\uc548\\ub155", "a\\nb\\n"])
def test_what_was_escaped_twice(tiny: AxTokenizer, text: str) -> None:
    (checked,) = check_rows(tiny, [chat("q", text)])
    assert codes(checked, "warning") == ["escaped-text"]


@pytest.mark.parametrize(
    "text",
    ["C:\\new", "가\\n나", "가\n\\n\\n", '`print("a\\n")` 또는 \\n', "가\\uc548\\ub155", "\\alpha"],
)
def test_what_is_written_so_on_purpose(text: str) -> None:
    assert not is_escaped(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<image>\n무엇?", True),
        ("무엇? <IMAGE>", True),
        ("첫 줄\n<video>\n무엇?", True),
        ("<img>a.jpg</img> 무엇?", True),
        ("<image_1>과 <image_2>", True),
        ("이 <|image_pad|> 은?", True),
        ("![](data:image/png;base64,AA)", True),
        ("이 <image> 는 무엇?", False),
        ("`<video>` 태그는?", None),
        ("<img src='a.jpg'>를 고쳐라", None),
        ("<video controls><source src=x></video>", None),
        ("[이미지] 표", None),
    ],
)
def test_the_place_of_an_image(tiny: AxTokenizer, text: str, found: bool | None) -> None:
    assert media_placeholder(text) is found
    (checked,) = check_rows(tiny, [chat(text, "a")], control_tokens="keep")
    assert codes(checked) == (["missing-media"] if found else [])
    assert codes(checked, "warning") == (["missing-media"] if found is False else [])
    assert codes(check_rows(tiny, [chat("q", text)], control_tokens="keep")[0]) == []


@pytest.mark.parametrize("word", ["nan", "None", "null", "<NA>"])
def test_a_value_that_is_not_there_as_a_word(tiny: AxTokenizer, word: str) -> None:
    rows = [chat("q", word), {"instruction": "q", "input": word, "output": "a"}]
    for checked in check_rows(tiny, rows):
        assert codes(checked, "warning") == ["no-value"]
    for row in (chat(f"{word}은?", f"결과:\n{word}"), chat("q", f"{word}입니다.")):
        assert codes(check_rows(tiny, [row])[0], "warning") == []
