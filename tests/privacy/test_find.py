"""What is found: the labels decide, look-alikes stay, and no text takes long."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.personal import Case, cases
from support.rows import ROOT

from axtune.privacy.find import find

SAMPLE = ROOT.parent / "shared" / "domain" / "pii_sample.jsonl"


def found(text: str) -> list[tuple[str, str]]:
    return [(text[one.begin : one.end], one.kind) for one in find(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("계좌 110-123-456789", [("110-123-456789", "bank_account")]),
        ("신한 김예시 110-123-456789", [("110-123-456789", "bank_account")]),
        ("110-123-456789 (신한)", [("110-123-456789", "bank_account")]),
        ("관리번호 110-123-456789", []),
        ("110-123-456789", []),
        ("주문번호 010-1234-5678", []),
        ("주문 문의 010-1234-5678", [("010-1234-5678", "telephone")]),
        ("법인등록번호 110111-0765435", []),
        ("면허세 납세번호 11-24-123456-78", []),
        ("국번 없이 1588-1588", [("1588-1588", "telephone")]),
        ("a.kr/?tel=%2B82-10%2D1234%2D5678", [("%2B82-10%2D1234%2D5678", "telephone")]),
        ("여권 M12345678, 품목 M87654321", [("M12345678", "passport")]),
        ("면허 11-24-123456-78", [("11-24-123456-78", "driver_license")]),
        ("자재코드 11-24-123456-78", []),
        ("운전면허 대구 04-123456-12", [("대구 04-123456-12", "driver_license")]),
        ('{"homeTel": "0212345678"}', [("0212345678", "telephone")]),
        ('{"hotel": "0212345678"}', []),
        ("010-****-4321", []),
        ("010-1234-\n5678", [("010-1234-\n5678", "telephone")]),
        ("이름,비고,연락처\n김,02,1012345678", [("1012345678", "telephone")]),
        ("주문번호,이름\n4111-1111-1111-1111,김", []),
        ("공일공 일칠육일 칠사공구", [("공일공 일칠육일 칠사공구", "telephone")]),
        ("+1-650-253-0000", [("+1-650-253-0000", "telephone")]),
        (r"{\"\uc5f0\ub77d\ucc98\": \"0212345678\"}", [("0212345678", "telephone")]),
        ("550e8400-e29b-41d4-a716-446655440000", []),
        ("1392-1910년", []),
    ],
)
def test_the_nearest_label_decides(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


def test_the_turn_before_names_a_number() -> None:
    assert not find("110-123-456789요")
    (one,) = find("110-123-456789요", "계좌번호 알려 주세요")
    assert one == (0, 14, "bank_account")


def score(texts: Iterable[Case]) -> tuple[Counter[str], Counter[str], Counter[str], int]:
    """What is right, missed and found in excess by kind, and how many look-alikes are hit."""
    right: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    excess: Counter[str] = Counter()
    hit = 0
    for case in texts:
        wanted, got = set(case.spans), {tuple(one) for one in find(case.text)}
        right.update(kind for *_, kind in wanted & got)
        missed.update(kind for *_, kind in wanted - got)
        excess.update(kind for *_, kind in got - wanted)
        hit += not wanted and bool(got)
    return right, missed, excess, hit


def check_score(texts: list[Case]) -> None:
    right, missed, excess, hit = score(texts)
    assert right.total() >= 0.99 * (right + missed).total(), missed
    assert all(right[kind] >= 0.95 * (right + missed)[kind] for kind in right + missed), missed
    assert right.total() >= 0.98 * (right + excess).total(), excess
    assert hit <= 0.017 * sum(not case.spans for case in texts)


@pytest.mark.parametrize("half", [0, 1])
def test_invented_sentences(half: int) -> None:
    check_score(list(cases(half, 1500, seed=7)))


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the sample is not beside the project")
def test_the_sample() -> None:
    rows = [json.loads(line) for line in Path(SAMPLE).read_text("utf-8").splitlines()]
    check_score([Case(row["text"], tuple(map(tuple, row["spans"])), row["form"]) for row in rows])


@pytest.mark.parametrize(
    "unit",
    ["1", "1 ", "1-", "010", "(02)", "계좌 110-123-456789 ", "110-123-456789,",
     "a,110-123-456789\n",
     "passport m12345678 ", "M12345678 여권 ", "010%2D", "공일공",
     "\\", "\\n", "\\u0031", "[", '{"a":', '"', "\u200b1", "m123a",
     "주 민 등 록 번 ",
     "계좌은은은은은은은은은은은은은은은은1234567890 ", "+82", "900101-1234567 "],
)  # fmt: skip
def test_no_text_takes_long(unit: str) -> None:
    text = (unit * 200_000)[:200_000]
    begin = time.process_time()
    find(text)
    assert time.process_time() - begin < 3  # a third of it on a machine that does nothing else


@given(st.text(alphabet='0123456789- .()+/계좌여권번호주민은:|,\t\n"{}\\au', max_size=80))
def test_spans_are_in_order_and_apart(text: str) -> None:
    last = 0
    for one in find(text):
        assert last <= one.begin < one.end <= len(text)
        last = one.end
