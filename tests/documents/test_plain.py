from __future__ import annotations

import codecs
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.documents.document import Refused
from axtune.documents.plain import decoded, read_plain

TEXT = "통신 설비 입찰 공고\r\n뷁쀍똠방각하 ABC 123\r\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        TEXT.encode("cp949"),
    ],
)
def test_each_encoding_that_companies_have(data: bytes) -> None:
    assert read_plain(data).lines == ["통신 설비 입찰 공고", "뷁쀍똠방각하 ABC 123"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(encoding: str) -> None:
    assert decoded(TEXT.encode(encoding)) == TEXT


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "unknown-format"),
        (TEXT.encode("cp949")[:-2] + b"\xff\xff", "broken"),
        (codecs.BOM_UTF8 + b"\xff", "broken"),
    ],
)
def test_what_is_certain_in_no_encoding_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        read_plain(data)
    assert refused.value.code == code


@given(st.binary(max_size=200))
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    with suppress(Refused):
        decoded(data)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_utf_8_is_read_as_it_was_written(text: str) -> None:
    assert decoded(text.encode()) == text.removeprefix("\ufeff")
