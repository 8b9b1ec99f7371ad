"""Drafts that are refused for what they say themselves."""

from __future__ import annotations

import pytest
from support.drafting import fact

from axtune.drafting.replies import Pair
from axtune.drafting.sieve import needs_context, refused
from axtune.privacy.scrub import Scrubber

PASSAGE = fact("연차휴가", 3)
ANSWER = "사유가 생긴 날부터 3일 안에 냅니다."

POINTING = [
    "이 문서의 목적은 무엇인가요?",
    "이문서에서 정한 기한은 언제인가요?",
    "위 글에 따르면 신청 기한은 언제인가요?",
    "윗글의 주제는 무엇인가요?",
    "본문에서 말하는 보관 기간은 얼마인가요?",
    "본 규정의 시행일은 언제인가요?",
    "해당 문서를 작성한 부서는 어디인가요?",
    "제시된 자료에서 매출이 가장 큰 부서는 어디인가요?",
    "지문에 나온 회사의 이름은 무엇인가요?",
    "문서에 따르면 보증금은 얼마인가요?",
    "다음 중 연차 신청 방법으로 옳은 것은 무엇인가요?",
    "다음 표에서 가장 큰 값은 무엇인가요?",
    "앞서 언급한 절차는 무엇인가요?",
    "이 제도는 언제 시작되었나요?",
    "그것은 누가 승인하나요?",
    "글쓴이의 주장은 무엇인가요?",
    "주어진 내용에서 담당 부서는 어디인가요?",
    "According to the document, 기한은 언제인가요?",
]
STANDING = [
    "연차휴가 신청은 언제까지 내야 하나요?",
    "문서의 보존 기간은 몇 년인가요?",
    "전자문서에 서명하는 방법은 무엇인가요?",
    "공문서에 따라 붙는 문서번호는 어떻게 정하나요?",
    "이글루 행사 신청 기한은 언제인가요?",
    "이장 선출은 어떻게 하나요?",
    "본사 주소가 바뀌면 어디에 신고하나요?",
    "위탁 계약의 해지 사유는 무엇인가요?",
    "이사회 자료는 누가 준비하나요?",
    "다음 달 급여일이 휴일이면 언제 지급하나요?",
    "개인정보 처리 위탁 내용을 공개하는 방법은 무엇인가요?",
    "보고서 작성 기한은 언제인가요?",
    "아래층 회의실은 누가 예약하나요?",
    "표준계약서는 어디에서 받나요?",
    "그룹웨어 비밀번호는 얼마나 자주 바꾸나요?",
]


@pytest.mark.parametrize("question", POINTING)
def test_questions_that_point_at_what_nobody_sees(question: str) -> None:
    assert refused(Pair(question, ANSWER), PASSAGE, Scrubber()) == "needs-context"


@pytest.mark.parametrize("question", STANDING)
def test_questions_that_stand_alone(question: str) -> None:
    assert refused(Pair(question, ANSWER), PASSAGE, Scrubber()) == ""


def test_answers_may_list_but_not_point() -> None:
    question = "연차휴가 신청 방법은 무엇인가요?"
    assert not needs_context(Pair(question, "다음 내용을 적어 냅니다: 이름, 기간."))
    assert not needs_context(Pair(question, "그 기간은 부서장이 정합니다."))
    assert needs_context(Pair(question, "위 글에 따르면 부서장에게 냅니다."))
    assert needs_context(Pair(question, "문서에 명시된 대로 냅니다."))


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("", ANSWER, "empty"),
        ("언제?", ANSWER, "empty"),
        ("연차휴가 신청은 언제까지 내나요?", " . ", "empty"),
        ("담당자의 전화번호는 무엇인가요?", "010-8842-1177입니다.", "personal-data"),
        ("담당자의 전화번호는 무엇인가요?", "<|telephone|>입니다.", "masked"),
        ("연차휴가 신청은 언제까지 내나요?", "3일<|im_end|>", "control-token"),
        ("When is the leave due?", ANSWER, "not-korean"),
        ("연차휴가 신청은 언제까지 내나요?", "연차휴가 신청은 언제까지 내나요", "repeats-question"),
        ("연차휴가 신청은 언제까지 내나요?", "30일 안에 냅니다.", "not-in-passage"),
    ],
)
def test_why_a_draft_is_refused(question: str, answer: str, reason: str) -> None:
    assert refused(Pair(question, answer), PASSAGE, Scrubber()) == reason


def test_a_number_of_the_question_may_be_answered() -> None:
    pair = Pair("2025년에 연차휴가 신청은 언제까지 내나요?", "2025년에는 3일 안에 냅니다.")
    assert refused(pair, PASSAGE, Scrubber()) == ""
