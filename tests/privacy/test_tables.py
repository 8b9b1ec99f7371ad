"""Tables: which header stands over a place of a text."""

from __future__ import annotations

import pytest

from axtune.privacy.tables import Tables


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("이름,계좌\n김,X", "계좌"),
        ("이름\t계좌\n김\tX", "계좌"),
        ("| 이름 | 계좌 |\n|---|---|\n| 김 | X |", "계좌"),
        ("이름 | 계좌\n김 | X", "계좌"),
        ('이름,계좌\n"김, 이",X', "계좌"),
        ("이름,계좌\n김,1\n김, 이,1\n박,X", "계좌"),
        ("이름,계좌\n\n박,X", None),
        ("계좌 X", None),
        ("이름,X", None),
    ],
)
def test_headers(text: str, header: str | None) -> None:
    found = Tables(text).header(text.index("X"))
    assert (found and found[1]) == header


def test_places_of_a_column_share_a_header() -> None:
    text = "a,b\n1,X\n2,Y\nZ,3"
    tables = Tables(text)
    x, y, z = (tables.header(text.index(letter)) for letter in "XYZ")
    assert x == y != z
