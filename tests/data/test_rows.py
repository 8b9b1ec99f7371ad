"""A line that is not UTF-8 is named by what it seems to be."""

from __future__ import annotations

import pytest

from axtune.data.rows import not_utf8, too_large


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("안녕".encode("cp949"), "cp949"),
        ("안녕".encode("cp949")[:-1], "cp949"),  # cut in the middle of a character
        ("\ud83d".encode("utf-8", "surrogatepass"), "lone-surrogate"),
        (b"\xff\xfe\xff", "not-utf8"),
    ],
)
def test_a_line_of_another_encoding_is_named(data: bytes, code: str) -> None:
    assert not_utf8(data)[0] == code


def test_a_row_too_large_names_the_key_to_raise() -> None:
    fault = too_large("a.jsonl", 3, 1_500_000)
    assert (fault.file, fault.line, fault.code) == ("a.jsonl", 3, "line-too-large")
    assert "longer than 1.5 MB; raise data.max_line_mb" in fault.message
