"""Near duplicates and leaked items, measured: recall, precision, seconds and memory.

    python scripts/bench_near_duplicates.py
    python scripts/bench_near_duplicates.py --rows 5000 --seed 3

Rows are invented Korean conversations of a service desk. A quarter of them are copies of others in
which 0, 5 or 10% of the words have been edited (replaced, left out or put in); a tenth are
form letters, which share a form and differ in names, numbers and dates; the rest are others, put
together from the same words. Precision counts copies and others; form letters are said apart.

Leakage is sought for 600 questions of 40 letters and more among other rows, in copies with the same
edits and in rows of the same form with other facts. Seconds are of the processor, memory is what
the process takes more at its peak; both are of the search alone.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from axtune.data.held_out_items import Item
from axtune.data.leakage import LeakIndex
from axtune.data.near_duplicates import NearDuplicates
from axtune.data.row_text import RowText, Said, letters

EDITS = (0.0, 0.05, 0.10)
ITEMS = 600
BATCH = 256  # as rows are checked


def listed(text: str) -> tuple[str, ...]:
    """A table of words."""
    return tuple(text.split())


NOUNS = listed(
    "요금제 결합할인 로밍 데이터 유심 단말기 청구서 미납금 약정 위약금 해지 명의변경 "
    "번호이동 멤버십 쿠폰 배송 환불 교환 반품 영수증 세금계산서 인증서 비밀번호 "
    "본인확인 대리점 상담원 기지국 통화품질 와이파이 공유기 셋톱박스 리모컨 설치기사 "
    "방문일정 이전설치 수리비 보증기간 부가서비스 소액결제 자동이체 카드납부 가상계좌 "
    "납부기한 연체료 감면 복지할인 가족관계증명서 신분증 위임장 접수번호 처리상태 지점 "
    "창구 예약 대기시간 운영시간 휴무일 주차장 셔틀버스 연차 휴가 출장비 법인카드 "
    "결재선 품의서 근태 급여명세서 퇴직금 연말정산 건강검진 사내대출 회의실 노트북 "
    "모니터 보안프로그램 원격접속 계정 권한 공용폴더 백업 서버 방화벽 인증기 장애 점검 "
    "로그 배포 일정표 보고서 견적서 계약서 발주서 입찰 검수 납품 재고 창고 운송장 "
    "통관 관세"
)
PARTICLES = listed("은 는 이 가 을 를 에 에서 으로 로 와 과 도 만 부터 까지 보다 처럼 에게 의")
VERBS = listed(
    "바꾸려면 신청하려면 확인하려면 취소하려면 등록하려면 조회하려면 변경하고 접수하고 "
    "제출하고 내려받고 설치하고 연결하고 초기화하고 갱신하고 연장하고 승인받고 반려되고 "
    "누락되고 처리되면 완료되면 실패하면 늦어지면 필요하면 불가능하면 가능하므로 다르므로 "
    "제한되므로 보내주시면 알려주시면 눌러주시면 입력하시면 선택하시면 기다리시면 "
    "방문하시면 전화하시면 문의하시면"
)
ENDINGS = listed(
    "됩니다 합니다 있습니다 없습니다 드립니다 바랍니다 좋습니다 어렵습니다 빠릅니다 "
    "안전합니다 궁금합니다 알려주세요 도와주세요 확인해주세요 처리해주세요 가능할까요 "
    "괜찮을까요 언제인가요"
)
OTHERS = listed(
    "먼저 다음으로 그런데 혹시 반드시 가급적 바로 다시 직접 함께 별도로 자동으로 매월 "
    "오늘 내일 어제 지난주 다음주 오전 오후 저녁 주말 평일 본사 지사 화면 메뉴 "
    "오른쪽 아래쪽 첫번째 두번째 빨간 파란 새로운 기존 전체 일부 추가 최종 임시 긴급 "
    "일반 개인 법인 국내 해외 온라인 오프라인"
)
FORM = (
    "{name} 고객님의 {thing} 신청이 {month}월 {day}일에 접수되었습니다. 접수번호는 {number}이며 "
    "처리에는 영업일 기준 {days}일이 걸립니다. 담당자는 {place} 지점의 {staff}이고 문의는 "
    "{phone}으로 해 주십시오."
)
QUESTION_FORM = (
    "{name} 고객이 {month}월 {day}일에 {place} 지점에서 접수한 {thing} 건 {number}의 처리 상태를 "
    "알려 주세요."
)
FAMILY = listed("김 이 박 최 정 강 조 윤 장 임 한 오 서 신 권 황 안 송 류 홍")
GIVEN = listed(
    "민준 서연 도윤 지우 하준 서현 예준 지유 시우 하은 지호 수아 준서 다은 현우 채원 건우 유진"
)
PLACES = listed(
    "강남 종로 분당 수원 해운대 동성로 둔산 상무 전주 청주 춘천 제주 울산 창원 포항 여수 목포 천안"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    show_near_duplicates(draw, options.rows)
    show_leakage(draw, options.rows)


def show_near_duplicates(draw: random.Random, count: int) -> None:
    """Seek copies among others, and print what was found of them."""
    rows, copy_of = near_rows(draw, count)
    found: list[tuple[int, int]] = []

    def seek() -> None:
        finder, kept = NearDuplicates(), []
        for begin in range(0, len(rows), BATCH):
            batch = [text for _, text in rows[begin : begin + BATCH]]
            for row, twin in enumerate(finder.find(batch), begin):
                if twin is None:
                    kept.append(row)
                else:
                    found.append((row, kept[twin.row]))

    seconds, megabytes = measured(seek)
    pairs = dict(found)
    table = Table("rows", "", "found", "share", title=f"near duplicates in {len(rows):,} rows")
    for kind in (
        *(f"copies, {edit:.0%} of words edited" for edit in EDITS),
        "form letters",
        "others",
    ):
        of_kind = [row for row, (name, _) in enumerate(rows) if name == kind]
        right = [
            row for row in of_kind if row in pairs and copy_of.get(row, pairs[row]) == pairs[row]
        ]
        table.add_row(
            kind, f"{len(of_kind):,}", f"{len(right):,}", f"{len(right) / len(of_kind):.3f}"
        )
    judged = [row for row in pairs if rows[row][0] != "form letters"]
    wrong = [row for row in judged if copy_of.get(row) != pairs[row]]
    precision = 1 - len(wrong) / max(len(judged), 1)
    table.caption = f"precision {precision:.4f} · {seconds:.1f} s · {megabytes:.0f} MB"
    Console().print(table)


def near_rows(draw: random.Random, count: int) -> tuple[list[tuple[str, RowText]], dict[int, int]]:
    """Rows with what they are, copies behind their originals; and which row each is a copy of."""
    copies, forms = count // 4, count // 10
    rows: list[tuple[str, RowText]] = [
        ("others", row_of(conversation(draw))) for _ in range(count - copies - forms)
    ]
    rows += [("form letters", form_letter(draw)) for _ in range(forms)]
    draw.shuffle(rows)
    others = [place for place, (kind, _) in enumerate(rows) if kind == "others"]
    copy_of = {}
    for number, place in enumerate(draw.sample(others, copies)):
        edit = EDITS[number % len(EDITS)]
        said = tuple(edited(draw, said.text, edit) for said in rows[place][1].said)
        copy_of[len(rows)] = place
        rows.append((f"copies, {edit:.0%} of words edited", row_of(said)))
    return rows, copy_of


def show_leakage(draw: random.Random, count: int) -> None:
    """Seek items among other rows, their copies, and rows of the same form."""
    asked = [long_question(draw) for _ in range(ITEMS)]
    asked += [fill(draw, QUESTION_FORM) for _ in range(ITEMS // 10)]
    items = [Item("items", n, [Said("question", text)]) for n, text in enumerate(asked, 1)]
    rows: list[tuple[str, int, RowText]] = []
    for edit in EDITS:
        for number, text in enumerate(asked[:ITEMS], 1):
            said = (edited(draw, text, edit), sentence(draw))
            rows.append((f"copies, {edit:.0%} of words edited", number, row_of(said)))
    forms = [(fill(draw, QUESTION_FORM), sentence(draw)) for _ in range(ITEMS)]
    rows += [("same form, other facts", 0, row_of(said)) for said in forms]
    rows += [("others", 0, row_of(conversation(draw))) for _ in range(count)]
    tally: Counter[tuple[str, str]] = Counter()

    def seek() -> None:
        index = LeakIndex(items)
        for kind, number, row in rows:
            leak = index.find(row)
            if leak is None:
                continue
            right = leak.line == number or not number
            tally[kind, "same form" if leak.same_form else "leaked" if right else "wrong"] += 1

    seconds, megabytes = measured(seek)
    table = Table(
        "rows", "", "leaked", "share", "same form", title=f"{len(items):,} held-out items"
    )
    for kind, total in Counter(kind for kind, *_ in rows).items():
        found = tally[kind, "leaked"]
        share = f"{found / total:.3f}"
        table.add_row(kind, f"{total:,}", f"{found:,}", share, f"{tally[kind, 'same form']:,}")
    table.caption = f"{seconds:.1f} s · {megabytes:.0f} MB"
    Console().print(table)


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the processor, and megabytes that the peak of memory rose by."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begin = resident("VmRSS"), time.process_time()
    work()
    return time.process_time() - begin, resident("VmHWM") - before


def resident(which: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))


def row_of(said: tuple[str, ...]) -> RowText:
    return RowText([Said(p, text) for p, text in zip(("question", "answer"), said, strict=True)])


def conversation(draw: random.Random) -> tuple[str, str]:
    """A question of one or two sentences, and an answer of two to six."""
    return (
        " ".join(sentence(draw) for _ in range(draw.randint(1, 2))),
        " ".join(sentence(draw) for _ in range(draw.randint(2, 6))),
    )


def sentence(draw: random.Random) -> str:
    """Five to twelve words of a service desk."""
    words = []
    for _ in range(draw.randint(2, 5)):
        words.append(draw.choice(NOUNS) + draw.choice(PARTICLES))
        if draw.random() < 0.5:
            words.append(draw.choice(OTHERS))
        if draw.random() < 0.5:
            words.append(draw.choice(VERBS))
    return " ".join([draw.choice(OTHERS), *words, draw.choice(ENDINGS)]) + draw.choice(".?")


def long_question(draw: random.Random) -> str:
    """A question of 40 letters or more."""
    text = sentence(draw)
    while len(letters(text)) < 40:
        text = f"{text} {sentence(draw)}"
    return text


def edited(draw: random.Random, text: str, share: float) -> str:
    """A text with a share of its words replaced, left out, put in, or exchanged with the next.

    An exchange moves two words and counts as one edit, so it is the hardest of the four.
    """
    words = text.split()
    for place in draw.sample(range(len(words)), round(share * len(words))):
        match draw.randrange(4):
            case 0:
                words[place] = draw.choice(NOUNS) + draw.choice(PARTICLES)
            case 1:
                words[place] = ""
            case 2:
                other = min(place + 1, len(words) - 1)
                words[place], words[other] = words[other], words[place]
            case _:
                words[place] += f" {draw.choice(OTHERS)}"
    return " ".join(filter(None, words))


def form_letter(draw: random.Random) -> RowText:
    return row_of((fill(draw, QUESTION_FORM), fill(draw, FORM)))


def fill(draw: random.Random, form: str) -> str:
    name, staff = (draw.choice(FAMILY) + draw.choice(GIVEN) for _ in range(2))
    return form.format(
        name=name,
        staff=staff,
        thing=draw.choice(NOUNS),
        place=draw.choice(PLACES),
        month=draw.randint(1, 12),
        day=draw.randint(1, 28),
        days=draw.randint(1, 9),
        number=draw.randint(10_000_000, 99_999_999),
        phone=f"02-{draw.randint(200, 999)}-{draw.randint(1000, 9999)}",
    )


if __name__ == "__main__":
    main()
