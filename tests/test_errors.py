"""A fault is one line that a user can follow to its place."""

from __future__ import annotations

import pytest

from axtune.errors import AxtuneError, DataError, Fault


def test_fault_is_file_line_code_message() -> None:
    assert str(Fault("a.jsonl", 3, "bad-role", "무엇이 틀렸는지.")) == (
        "a.jsonl:3: bad-role: 무엇이 틀렸는지."
    )
    assert str(Fault("a.jsonl", 0, "nfd", "x.", "warning")) == "a.jsonl: warning: nfd: x."


def test_every_fault_stands_in_the_message() -> None:
    faults = [Fault("a.jsonl", n, "not-json", "broken.") for n in (2, 9)]
    with pytest.raises(AxtuneError) as caught:
        raise DataError("2 of 9 rows cannot be trained on.", faults, "Mend them.")
    assert str(caught.value).splitlines() == [
        "2 of 9 rows cannot be trained on.",
        "a.jsonl:2: not-json: broken.",
        "a.jsonl:9: not-json: broken.",
        "Mend them.",
    ]
    assert caught.value.remedy == "Mend them."
