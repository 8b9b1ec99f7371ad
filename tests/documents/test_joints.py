from __future__ import annotations

import itertools

import pytest
from support.documents import text_lines, wrapped

from axtune.documents.joints import Breaks, room_of

TEXT = (
    "공장과 물류센터처럼 유선 회선을 놓기 어려운 곳에서 주 회선 또는 예비 회선으로 쓸 수 있다. "
    "설치하기 전에 신호를 확인하고, 금속 구조물에서 떨어진 곳을 고른다. "
    "포장을 풀면 본체와 안테나가 들어 있어야 한다. "
)


def joined(text: str, anywhere: bool) -> str:
    lines = text_lines(wrapped(text, 22, anywhere))
    right = 50 + 220.0
    breaks = Breaks.of([(lines, right)])
    assert breaks.anywhere is anywhere
    whole = lines[0].text
    for above, line in itertools.pairwise(lines):
        whole += breaks.between(above, line, right) + line.text
    return whole


def test_lines_that_break_between_words_are_joined_by_spaces() -> None:
    assert joined(TEXT * 3, anywhere=False) == (TEXT * 3).strip()


def test_lines_that_break_anywhere_are_joined_by_what_the_words_say() -> None:
    text = TEXT * 4
    got, meant = joined(text, anywhere=True).split(), text.split()
    assert "".join(got) == "".join(meant)
    lost = len(meant) - sum(min(got.count(w), meant.count(w)) for w in set(meant))
    assert lost <= 0.05 * len(meant)


@pytest.mark.parametrize(
    ("above", "below", "between"),
    [
        ("우리는 infor-", "mation을", "-"),
        ("모두 확인하고,", "다음을", " "),
        ("모두 24", "개월이며", ""),
        ("카테고리 6", "이상을", " "),
        ("이 회사", "에서", ""),
        ("회사가 빠진", "것이", " "),
        ("다음(", "아래)", ""),
        ("합계", "(세금 포함)", ""),
        ("사용량은 1,2", "34원", ""),
        ("무선", "LTE를", " "),
    ],
)
def test_what_stands_at_a_break_of_a_document_that_breaks_anywhere(
    above: str, below: str, between: str
) -> None:
    filler = text_lines(wrapped(TEXT * 4, 22, anywhere=True))
    breaks = Breaks.of([(filler, 270.0)])
    first, second = text_lines([above, below])
    assert breaks.between(first, second, first.x1) == between


def test_spaces_that_were_stretched_are_room() -> None:
    (line,) = text_lines(["가나 다라"])
    assert room_of(line, line.x1, space=0.3) == pytest.approx(2.0)  # it is of half a height
    assert room_of(line, line.x1 + 5, space=0.5) == pytest.approx(5.0)
