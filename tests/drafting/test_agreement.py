"""Answers that say the same and answers that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.drafting.agreement import differ, numbers_of, overlap

SAME = [
    ("연차는 15일입니다.", "15일"),
    ("서면으로 신청합니다.", "서면 신청을 해야 합니다."),
    ("인사팀에 신청서를 제출해야 합니다.", "신청서를 인사팀에 제출합니다."),
    ("보증금은 계약금액의 10%입니다.", "계약금액의 10퍼센트(10%)"),
    ("2024년 3월 1일부터 시행됩니다.", "시행일은 2024.03.01.입니다."),
    ("할 수 없습니다.", "그렇게 할 수 없습니다."),
    ("1,000,000원을 지급합니다.", "1000000원 지급"),
    ("네, 부서장 승인이 필요합니다.", "부서장의 승인이 필요해요."),
    ("VPN을 켜고 접속합니다.", "vpn을 켠 뒤 접속"),
    ("총무팀", "총무팀입니다."),
]
OTHER = [
    ("연차는 15일입니다.", "25일"),
    ("가능합니다.", "가능하지 않습니다."),
    ("신청할 수 있습니다.", "신청할 수 없습니다."),
    ("인사팀에 제출합니다.", "재무팀에서 심사해요."),
    ("3일 이내에 제출합니다.", "5일 이내에 제출합니다."),
    ("계약금액의 10%입니다.", "매출액의 12%입니다."),
    ("승인이 필요합니다.", "대표이사가 서명합니다."),
    ("총무팀입니다.", "재무팀입니다."),
    ("100만 원 이상입니다.", "100만 원 미만입니다."),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_answers_that_say_the_same(one: str, other: str) -> None:
    assert not differ(one, other)
    assert not differ(other, one)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_answers_that_do_not(one: str, other: str) -> None:
    assert differ(one, other)
    assert differ(other, one)


@given(st.text(), st.text())
def test_overlap_is_a_share(one: str, other: str) -> None:
    assert 0 <= overlap(one, other) <= 1
    assert overlap(one, other) == overlap(other, one)


def test_numbers() -> None:
    assert numbers_of("1. 2024.03.01부터 1,500원, 0.5%\n2) 없음") == {
        "2024", "3", "1", "1500", "0", "5",
    }  # fmt: skip
    assert numbers_of("２０２４년") == {"2024"}
    assert numbers_of("세 명") == set()
