from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.data.held_out_items import Item
from axtune.data.leakage import LeakIndex, _longest_run, _windows
from axtune.data.row_text import RowText, Said

QUESTION = "요금제를 바꾸고 싶은데 어디에서 어떻게 하면 되는지 자세히 알려 주세요"  # 30 letters
ANSWER = (
    "고객님의 요금제를 변경하려면 홈페이지에 로그인한 다음 나의 서비스 메뉴에서 요금제 변경을 "
    "누르고 원하는 요금제를 고르시면 됩니다"
)
TEXTS = st.text(st.sampled_from("가나"), max_size=40)


def items(*texts: str, part: str = "question") -> LeakIndex:
    return LeakIndex(Item("b", n, [Said(part, text)]) for n, text in enumerate(texts, 1))  # type: ignore[arg-type]


def row(question: str, answer: str = "네", system: str = "") -> RowText:
    said = [Said("context", system), Said("question", question), Said("answer", answer)]
    return RowText(said)


@given(TEXTS, TEXTS)
def test_the_longest_run_is_the_longest(one: str, two: str) -> None:
    runs = (
        one[a:b]
        for a in range(len(one))
        for b in range(a + 1, len(one) + 1)
        if one[a:b] in two
    )  # fmt: skip
    assert _longest_run(one, two, 0) == max(map(len, runs), default=0)


@given(st.text(max_size=60), st.integers(1, 33))
def test_windows_are_hashed_as_their_text(text: str, size: int) -> None:
    text = text.encode("utf-8", "ignore").decode()
    windows = [text[n : n + size] for n in range(len(text) - size + 1)]
    hashes = _windows(text, size).tolist()
    assert len(hashes) == len(windows)
    assert len(set(hashes)) == len(set(windows))


def test_a_copy_is_found_wherever_it_stands() -> None:
    index = items("다른 문항입니다 이것은 아무와도 겹치지 않습니다", QUESTION)
    for text in (
        row(QUESTION),
        row("이것을 풀어 줘", f"답: {QUESTION}!"),
        row("", system=QUESTION),
    ):
        leak = index.find(text)
        assert leak is not None
        assert (leak.file, leak.line, leak.run, leak.size, leak.covered) == ("b", 2, 30, 30, 1.0)
    assert index.find(row("요금제를 바꾸고 싶은데 위약금이 있나요")) is None
    assert LeakIndex([]).find(row(QUESTION)) is None


def test_an_edited_copy_is_found_with_its_longest_run() -> None:
    leak = items(QUESTION).find(row(QUESTION.replace("자세히", "친절하게")))
    assert leak is not None
    assert leak.run == 22
    assert leak.covered == pytest.approx(22 / 30)


def test_the_row_names_the_item_that_it_repeats_most_of() -> None:
    longer = f"{QUESTION} 그리고 언제부터 적용되는지도 알려 주세요"
    leak = items(QUESTION, longer, QUESTION.upper()).find(row(longer))
    assert leak is not None
    assert (leak.line, leak.others) == (2, 1)


def test_short_questions_count_whole() -> None:
    index = items("서울 날씨 어때", "오늘 서울 날씨는 어떤가요", "네 맞아요")
    assert index.find(row("서울 날씨 어때?")) is None  # seven letters may be anyone's
    assert index.find(row("오늘 서울 날씨는 어떤가요?")) is not None
    assert index.find(row("내일 말고 오늘 서울 날씨는 어떤가요? 알려 줘")) is None  # eleven, inside
    assert items("오늘은 서울 날씨가 어떤가요").find(row("김 대리, 오늘은 서울 날씨가 어떤가요?"))
    assert (
        items("오늘 서울 날씨는 어떤가요", part="answer").find(row("오늘 서울 날씨는 어떤가요"))
        is None
    )


def test_a_closing_formula_leaks_no_answer() -> None:
    closing = "더 궁금하신 점이 있으시면 언제든지 편하게 다시 말씀해 주시기 바랍니다"
    index = items(f"{ANSWER}. {closing}", part="answer")
    assert index.find(row("환불되나요?", f"네, 환불됩니다. {closing}")) is None
    assert index.find(row("환불되나요?", ANSWER)) is not None
    assert items(closing, part="answer").find(row("환불되나요?", closing)) is None


def test_latin_script_takes_twice_the_letters() -> None:
    index = items("Could you show me a list of all the servers that are registered here?")
    assert index.find(row("Could you show me a list of all the files?")) is None
    assert index.find(row("Show me a list of all the servers that are registered here!"))


def test_what_many_items_share_is_their_form() -> None:
    form = "{}에 계신 고객님께서 문의하신 요금 청구 내역을 확인하여 다시 안내해 드릴까요"
    places = ["서울", "부산", "대구", "대전", "광주"]
    index = items(*map(form.format, places))
    assert index.find(row(form.format("인천"))) is None
    leak = index.find(row(form.format("대구")))
    assert leak is not None
    assert leak.line == 3
    assert leak.run == leak.size


def test_other_numbers_are_the_same_form() -> None:
    form = "접수번호 {}로 신청하신 결합할인과 부가서비스의 처리 상태를 {}일까지 알려 주세요"
    leak = items(form.format(48_213, 14)).find(row(form.format(90_755, 25)))
    assert leak is not None
    assert leak.same_form
    leak = items(form.format(48_213, 14)).find(row(form.format(48_213, 14) + " 꼭이요"))
    assert leak is not None
    assert not leak.same_form


def test_a_day_that_is_the_same_makes_no_other_receipt_a_copy() -> None:
    form = "고객이 {}월 {}일에 제주 지점에서 접수한 견적서 건 {}의 처리 상태를 알려 주세요"
    leak = items(form.format(11, 18, 49_395_854)).find(row(form.format(11, 18, 19_954_732)))
    assert leak is not None
    assert leak.same_form
    leak = items(form.format(11, 18, 49_395_854)).find(row(form.format(12, 20, 49_395_854)))
    assert leak is not None
    assert not leak.same_form


def test_texts_of_one_letter_and_long_ones_are_found() -> None:
    assert items("가" * 50).find(row("가" * 400))
    draw = random.Random(0)
    long = "".join(chr(draw.randrange(0xAC00, 0xD7A4)) for _ in range(20_000))
    leak = items(long).find(row(long[2000:18_000]))
    assert leak is not None
    assert leak.run == 16_000
