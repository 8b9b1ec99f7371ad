from __future__ import annotations

import sys

import pytest

from axtune.data.near_duplicates import NearDuplicates, Twin
from axtune.data.row_text import RowText, Said
from axtune.errors import MissingPackageError

QUESTION = "요금제를 바꾸고 싶은데 어디에서 어떻게 하면 되는지 자세히 알려 주세요"
ANSWER = (
    "고객님의 요금제를 변경하려면 홈페이지에 로그인한 다음 나의 서비스 메뉴에서 요금제 변경을 "
    "누르고 원하는 요금제를 고르시면 됩니다"
)


def said(question: str, *answers: str, tools: tuple[str, ...] = (), system: str = "") -> RowText:
    parts = [Said("context", system), Said("question", question)]
    parts += [Said(p, text) for p, text in zip(("answer", "rejected"), answers, strict=False)]
    return RowText(parts, frozenset(tools))


def twins(*rows: RowText) -> list[int | None]:
    return [twin and twin.row for twin in NearDuplicates().find(rows)]


def test_an_edited_row_names_the_first() -> None:
    edited = said(QUESTION.replace("자세히", "친절하게"), ANSWER.replace("원하는", "바라는"))
    finder = NearDuplicates()
    first, second = finder.find([said(QUESTION, ANSWER), edited])
    assert first is None
    assert second is not None
    assert second.row == 0
    assert 0.7 <= second.similarity < 1
    assert finder.find([edited]) == [second]  # in a later batch as well
    assert finder.find([said(QUESTION.replace(" ", "\n"), ANSWER + "!")]) == [Twin(0, 1.0)]


def test_other_answers_and_other_tools_make_other_rows() -> None:
    passage = f"{ANSWER} {QUESTION} " * 3
    assert twins(said(passage, "1998년"), said(passage, "서울특별시")) == [None, None]
    assert twins(said(passage, "네", "아니요"), said(passage, "아니요", "네")) == [None, None]
    assert twins(said(passage, ANSWER, tools=("a",)), said(passage, ANSWER)) == [None, None]
    two = said(passage, ANSWER, tools=("b", "a"))
    assert twins(said(passage, ANSWER, tools=("a", "b")), two) == [None, 0]


def test_a_system_prompt_makes_rows_neither_alike_nor_different() -> None:
    shared = f"{ANSWER} " * 5
    one, two = said(QUESTION, ANSWER, system=shared), said("환불은 언제", "내일", system=shared)
    assert twins(one, two) == [None, None]
    assert twins(one, said(QUESTION, ANSWER)) == [None, 0]


def test_short_rows_are_compared_as_they_are_written() -> None:
    rows = (said("1+1?", "2"), said("11?", "2"), said("1+1?", "2"), said("1+1?", "2", system="a"))
    assert twins(*rows, said("１+1?", "2")) == [None, None, 0, None, 0]
    assert twins(said("😀", "🙂"), said("😀", "🙃"), said("😀", "🙂")) == [None, None, 0]
    assert twins(RowText([]), RowText([])) == [None, 0]


def test_what_a_crowd_hides_is_found_when_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axtune.data.near_duplicates._CROWD", 0)
    rows = [said(f"{QUESTION} {n:04}" * 2, f"{ANSWER} {n}") for n in range(3)]
    assert twins(*rows, rows[2])[3] is not None


def test_many_rows_keep_their_numbers() -> None:
    rows = [said(f"{n * 7919} " * 12, f"{n * 104729} " * 12) for n in range(1500)]
    finder = NearDuplicates()
    kept = [n for n, twin in enumerate(finder.find(rows)) if twin is None]
    assert len(kept) > 1100
    again = finder.find([rows[n] for n in kept])
    assert [twin and twin.row for twin in again] == list(range(len(kept)))


def test_without_rensa_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(MissingPackageError, match=r"axtune\[duplicates\]"):
        NearDuplicates()
