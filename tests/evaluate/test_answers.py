"""Answers survive a kill, and damage to them has a place."""

from __future__ import annotations

import random
import stat
from pathlib import Path

import pytest

from axtune.errors import AxtuneError
from axtune.evaluate.answers import (
    ANSWERS,
    Kept,
    differing,
    key_of,
    open_answers,
    read_answers,
    short,
)


def kept(number: int, **changes: object) -> Kept:
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    values = {
        "key": key_of(prompt=[number]), "model": "m", "question": f"rows.jsonl:{number}",
        "category": "call", "asked": "서울 날씨는?", "right": "f({})",
        "sample": 0, "content": "서울은 맑음", "tool_calls": calls,
        "ended": True, "ids": [1, 2], "margins": [0.25, 1.5],
    }  # fmt: skip
    return Kept(**{**values, **changes})  # type: ignore[arg-type]


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    with open_answers(tmp_path) as answers:
        answers.add([kept(1), kept(2)])
        answers.add([kept(2, content="another"), kept(3)])  # the first answer to a key stays
    with open_answers(tmp_path) as answers:
        assert [answers[key] for key in answers] == [kept(1), kept(2), kept(3)]
    assert read_answers(tmp_path) == [kept(1), kept(2), kept(3)]
    assert stat.S_IMODE((tmp_path / ANSWERS).stat().st_mode) == 0o600


def test_a_line_cut_short_at_any_byte_is_asked_again(tmp_path: Path) -> None:
    with open_answers(tmp_path) as answers:
        answers.add([kept(1), kept(2)])
    file = tmp_path / ANSWERS
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        file.write_bytes(whole[:cut])
        with open_answers(tmp_path) as answers:
            assert list(answers.values()) == [kept(1)]
            answers.add([kept(2)])
        assert file.read_bytes() == whole


def test_a_flipped_bit_is_named_with_its_line(tmp_path: Path) -> None:
    with open_answers(tmp_path) as answers:
        answers.add([kept(1), kept(2), kept(3)])
    file = tmp_path / ANSWERS
    whole = file.read_bytes()
    begin, end = (
        place + 1 for place in (whole.index(b"\n"), whole.index(b"\n", whole.index(b"\n") + 1))
    )
    draw = random.Random(0)
    for _ in range(200):
        place, bit = draw.randrange(begin, end), 1 << draw.randrange(8)
        changed = bytearray(whole)
        changed[place] ^= bit
        if changed[place] in b"\n\r":
            continue  # a line more, both of them damaged
        file.write_bytes(changed)
        with (
            pytest.raises(AxtuneError, match=r"answers\.jsonl:2 is damaged"),
            open_answers(tmp_path),
        ):
            pass


def test_damaged_lines_are_named_together(tmp_path: Path) -> None:
    with open_answers(tmp_path) as answers:
        answers.add(kept(number) for number in range(5))
    file = tmp_path / ANSWERS
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], b"[]\n", lines[2], lines[3][:30] + b"\n", b"\0\n"]))
    with pytest.raises(AxtuneError) as caught:
        read_answers(tmp_path)
    assert f"{file}:2 is damaged, and 2 more lines: 4, 5." in str(caught.value)
    assert f"(sed -i '2d;4d;5d' {file})" in str(caught.value)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        open_answers(tmp_path),
        pytest.raises(AxtuneError, match="Another process evaluates into"),
        open_answers(tmp_path),
    ):
        pass


def test_a_folder_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(AxtuneError, match="cannot be written"), open_answers(tmp_path / "file"):
        pass
    with pytest.raises(AxtuneError, match="cannot be read"):
        read_answers(tmp_path / "nowhere")


def test_a_key_is_of_everything_that_decides() -> None:
    assert key_of(prompt=[1], model="a") == key_of(model="a", prompt=[1])
    assert key_of(prompt=[1], model="a") != key_of(prompt=[1], model="b")


def test_differing_answers_are_in_the_order_of_the_questions_whatever_that_of_the_file() -> None:
    both = [
        kept(number, model=model, content=model)
        for number in (10, 2, 9, 3)
        for model in ("ab", "cd")
    ]
    random.Random(0).shuffle(both)
    found = differing(both, "ab", "cd")
    numbers = [before.question.split(":")[1] for before, _ in found]
    assert numbers == ["2", "3", "9", "10"]
    assert {(before.model, after.model) for before, after in found} == {("ab", "cd")}
    same = [kept(1, model="ab"), kept(1, model="cd"), kept(2, model="ab")]
    assert differing(same, "ab", "cd") == []
    later = [kept(3, model="cd", content="of another command", key="k")]
    of_result = {short(one.key) for one in both}
    assert differing([*both, *later], "ab", "cd", of_result) == found
