"""Invented numbers of each kind, and the sentences, tables, forms and calls that they stand in.

`cases` makes any number of them, in two halves whose labels and frames differ: rules are made with
one, and judged with the other.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Case(NamedTuple):
    """A text, and what is personal data in it as (begin, end, kind)."""

    text: str
    spans: tuple[tuple[int, int, str], ...]
    form: str


def digits(rng: random.Random, count: int, first: str = "0123456789") -> str:
    return rng.choice(first) + "".join(rng.choices("0123456789", k=count - 1))


def resident(rng: random.Random, *, sexes: str = "1234", new: bool = False) -> str:
    """Thirteen digits: with a checksum, or a birth since October 2020 without one."""
    sex = rng.choice(sexes.translate(str.maketrans("", "", "1256"))) if new else rng.choice(sexes)
    year = rng.randrange(21, 26) if new else rng.randrange(40, 100)
    if sex in "3478" and not new:
        year = rng.randrange(0, 20)
    month, day = rng.randrange(1, 13), rng.randrange(1, 29)
    body = f"{year:02}{month:02}{day:02}{sex}{digits(rng, 5)}"
    return body + checked_resident(body, valid=not new)


def checked_resident(body: str, *, valid: bool) -> str:
    total = sum(int(d) * w for d, w in zip(body, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=True))
    sign = ((13 if body[6] in "5678" else 11) - total % 11) % 10
    return str(sign if valid else (sign + 3) % 10)


def business(rng: random.Random, *, valid: bool = True) -> str:
    body = f"{rng.randrange(101, 899)}{rng.randrange(1, 100):02}{digits(rng, 4)}"
    total = sum(int(d) * w for d, w in zip(body, (1, 3, 7, 1, 3, 7, 1, 3, 5), strict=True))
    sign = (10 - (total + int(body[8]) * 5 // 10) % 10) % 10
    return body + str(sign if valid else (sign + 1) % 10)


def card(rng: random.Random, *, valid: bool = True, amex: bool = False) -> str:
    head = rng.choice(("4", "51", "52", "54", "55", "2221", "2720", "3569", "6250", "6011", "94"))
    head, length = (rng.choice(("34", "37")), 15) if amex else (head, 16)
    body = head + digits(rng, length - 1 - len(head))
    doubled = [int(d) * (2 if n % 2 == 0 else 1) for n, d in enumerate(reversed(body))]
    sign = -sum(d - 9 if d > 9 else d for d in doubled) % 10
    return body + str(sign if valid else (sign + 1) % 10)


def passport(rng: random.Random) -> str:
    kind = rng.randrange(5)
    if kind == 0:
        return f"M{digits(rng, 3)}{rng.choice('ABCDEFGHJKLMNPRSTUVWXYZ')}{digits(rng, 4)}"
    if kind == 1:
        return rng.choice(("PM", "PS", "PR", "PO", "PD")) + digits(rng, 7)
    if kind == 2:
        letter = rng.choice("SROGD")
        return f"{letter}{digits(rng, 3)}{rng.choice('ABCDEFGH')}{digits(rng, 4)}"
    return rng.choice("MMMSRODG") + digits(rng, 8)


_REGIONS = (
    "서울", "부산", "경기", "강원", "충북", "충남", "전북", "전남", "경북", "경남", "제주", "대구",
    "인천", "광주", "대전", "울산", "경기남부",
)  # fmt: skip


def licence(rng: random.Random) -> str:
    rest = f"{rng.randrange(0, 100):02}-{digits(rng, 6)}-{digits(rng, 2)}"
    if rng.random() < 0.3:
        return f"{rng.choice(_REGIONS)}{rng.choice((' ', '-', ' '))}{rest}"
    text = f"{rng.randrange(11, 29)}-{rest}"
    return text.replace("-", rng.choice(("-", "-", "-", " ", "", ".")))


_AREAS = ("02", "031", "032", "033", "041", "042", "043", "044", "051", "052", "053", "054", "055")
_SERVICES = "1544 1566 1577 1588 1599 1600 1644 1661 1666 1670 1688 1800 1811 1833 1855 1877 1899"


def telephone(rng: random.Random) -> str:
    last = digits(rng, 4)
    kind = rng.randrange(16)
    if kind == 0:
        area, sep = rng.choice(_AREAS), rng.choice(("-", " ", ".", "-"))
        return sep.join((area, digits(rng, rng.choice((3, 4)), "23456789"), last))
    if kind == 1:
        text = f"{rng.choice(_AREAS)}){digits(rng, rng.choice((3, 4)), '23456789')}-{last}"
        return "(" + text if rng.random() < 0.5 else text
    if kind == 2:
        return f"{rng.choice(_SERVICES.split())}-{last}"
    if kind == 3:
        return f"{rng.choice(('070', '0507', '0505', '0502'))}-{digits(rng, 4)}-{last}"
    if kind == 4:
        return f"080-{digits(rng, rng.choice((3, 4)))}-{last}"
    if kind == 5:
        return f"+82-10-{digits(rng, 4)}-{last}"
    if kind == 6:
        return f"+82 {rng.choice(('2', '31', '51', '70'))}-{digits(rng, 4, '23456789')}-{last}"
    if kind == 7:
        return rng.choice(("+8210", "+82 10 ", "+82(0)10-")) + digits(rng, 4) + last
    if kind == 8:
        return f"010{digits(rng, 4)}{last}"
    if kind == 9:
        return f"{rng.choice(('011', '016', '017', '019'))}-{digits(rng, 3, '23456789')}-{last}"
    if kind == 10:
        return f"010){digits(rng, 4)}-{last}"
    sep = rng.choice(("-", "-", "-", " ", ".", " - ", "–", "‑", "·", "/"))
    return sep.join(("010", digits(rng, 4), last))


def health(rng: random.Random) -> str:
    return rng.choice("1256789") + rng.choice(("-", "", "")) + digits(rng, 10)


_ACCOUNTS = (
    (("카카오뱅크", "카뱅"), ("3333-D2-D7", "3355-D2-D7", "7979-D2-D7")),
    (("토스뱅크", "토스"), ("1000-D4-D4", "1908-D4-D4")),
    (("케이뱅크",), ("100-D3-D6", "110-D3-D6")),
    (("신한은행", "신한"), ("110-D3-D6", "100-D3-D6", "140-D3-D6", "561-D2-D6")),
    (("국민은행", "KB국민은행", "국민", "KB"), ("D6-D2-D6", "D3-D2-D4-D3", "D4-D2-D6")),
    (("우리은행", "우리"), ("1002-D3-D6", "1005-D3-D6", "D3-D6-D2-D3")),
    (("하나은행", "하나", "KEB하나은행"), ("D3-D6-D5", "620-D6-D3")),
    (("농협", "NH농협은행", "농협은행"), ("302-D4-D4-D2", "351-D4-D4-D2", "D3-D2-D6")),
    (("기업은행", "IBK기업은행", "IBK"), ("D3-D6-D2-D3", "D3-D6-D2-D2")),
    (("우체국",), ("D6-D2-D6",)),
    (("새마을금고", "MG새마을금고"), ("9002-D4-D4-D1", "9003-D4-D4-D1", "D4-D2-D6-D1")),
    (("수협은행", "수협"), ("D3-D2-D6-D1", "1010-D4-D4")),
    (("신협",), ("132-D3-D6", "131-D3-D6")),
    (("SC제일은행", "제일은행"), ("D3-D2-D6",)),
    (("대구은행", "iM뱅크", "DGB대구은행"), ("508-D2-D6-D1", "504-D2-D6-D1")),
    (("부산은행", "BNK부산은행"), ("112-D4-D4-D2", "101-D4-D4-D2")),
    (("광주은행",), ("D3-D3-D6",)),
    (("경남은행",), ("D3-D2-D7", "207-D4-D4-D2")),
    (("전북은행", "제주은행"), ("D3-D2-D7", "D2-D2-D6")),
    (("산업은행", "KDB산업은행"), ("D3-D4-D4-D3",)),
    (("씨티은행", "한국씨티은행"), ("D3-D6-D3-D2",)),
)  # fmt: skip


def account(rng: random.Random) -> tuple[str, str]:
    """A bank's name and an account there."""
    names, forms = rng.choice(_ACCOUNTS)
    parts = []
    for part in rng.choice(forms).split("-"):
        parts.append(digits(rng, int(part[1:]), "123456789") if part[0] == "D" else part)
    return rng.choice(names), rng.choice(("-", "-", "-", "")).join(parts)


# Labels of a kind: Korean words, JSON keys, words of a log. The second half of each list is for
# the second half of the cases, as with all lists of frames below.
_KOREAN = {
    "resident_reg": "주민등록번호 주민번호 주민등록|주민번호 주민등록번호 주민등록증번호",
    "foreigner_reg": (
        "외국인등록번호 외국인번호 외국인등록증번호|외국인등록번호 외국인등록증 거소신고번호"
    ),
    "business_reg": ("사업자등록번호 사업자번호 사업자|사업자등록번호 사업자번호 사업자등록증번호"),
    "credit_card": "카드번호 카드 신용카드 체크카드|카드번호 신용카드번호 법인카드 결제카드",
    "passport": "여권번호 여권 관용여권|여권번호 여권 외교관여권번호",
    "driver_license": "운전면허번호 면허번호 운전면허|운전면허번호 면허증번호 운전면허증",
    "telephone": "연락처 전화번호 휴대폰 핸드폰 전화|휴대전화 연락처 휴대폰번호 대표전화 전화",
    "health_insurance": (
        "건강보험증번호 건강보험번호 보험증번호|건강보험증번호 건보증번호 의료보험증번호"
    ),
    "bank_account": "계좌번호 계좌 입금계좌 환불계좌|계좌번호 통장번호 급여계좌 이체계좌",
}
_KEYS = {
    "resident_reg": (
        "rrn jumin residentNo resident_reg_no|juminNo resident_number rrn_no "
        "residentRegistrationNumber"
    ),
    "foreigner_reg": (
        "alien_no arc_no foreigner_reg_no|alienRegNo arcNumber foreigner_no "
        "alien_registration_number"
    ),
    "business_reg": (
        "biz_no business_no bizRegNo|biz_reg_no businessNumber brn business_registration_number"
    ),
    "credit_card": "card_no cardNumber card|cardNo card_number credit_card pan",
    "passport": "passport passport_no passportNo|passportNumber passport_number passport_id",
    "driver_license": (
        "license_no driverLicense driver_license_no|licenseNumber driver_license dl_no"
    ),
    "telephone": (
        "phone phoneNumber tel mobile hp|mobileNo contact phone_no telNo cellPhone receiver"
    ),
    "health_insurance": (
        "health_insurance_no insurance_card_no nhis_no|insuranceNo health_card_no "
        "healthInsuranceNumber"
    ),
    "bank_account": (
        "account account_no accountNumber|accountNo bank_account acct_no bankAccountNumber"
    ),
}
_SENTENCES = (
    "{L} {N}|{L}: {N}|{L} : {N}|{L}는 {N}입니다.|제 {L}는 {N}이에요.|{L} {N} 확인 "
    "부탁드립니다.|고객님의 {L}({N})가 조회되지 않습니다.|{L}가 {N} 맞나요?|{L} {N}로 등록해 "
    "주세요.|안녕하세요, {L} 바뀌어서 연락드려요. {N}로 변경해 주세요.|{N}이 제 {L}예요.|"
    "상담원: {L} 말씀해 주세요.\n고객: {N}이요.|[{L}] {N}|■ {L} : {N}|- {L}\t{N}|{L}\n{N}|"
    "신청인 김예시({L} {N})는 위와 같이 신청합니다.|{L} → {N}",
    "{L}={N}|{L} {N} 조회|{L}을 {N}로 바꿔 주세요|저의 {L}은 {N} 입니다|{L} '{N}' 입력했는데 "
    "오류나요|{L} \"{N}\" 로 가입되어 있나요?|{L}가 {N}인 고객|예전 {L} 말고 {N}로 해 주세요|"
    "{N} ({L})|○ {L}: {N}|이름 김예시 / {L} {N} / 서울|성명: 김예시\n{L}: {N}\n주소: 서울시|"
    "{L} 불러드릴게요 {N}요|{L}　{N}|첨부와 같이 {L}({N})을 제출합니다.|{L}#{N}|※ {L} {N} "
    "(본인)|네, {L} {N} 확인되었습니다.",
)  # fmt: skip
_BARE = (
    "{N}로 가입 이력이 있나요?|{N}님이 입장하셨습니다.|{N} 맞으세요?|{N}",
    "{N}로 다시 조회해 주세요.|{N}입니다|아 네 {N}요|[{N}] 확인됨",
)  # fmt: skip
_LOGS = (
    "{K}={N} result=OK|2024-07-02 10:11:12 INFO {K}: {N} done|request.{K}={N}|{K}:{N}",
    "user={K}:{N} ok|[DEBUG] {K} = {N}|event=check {K}='{N}' code=200|{K} {N} verified",
)  # fmt: skip
_BARE_KINDS = {
    "resident_reg": "-",
    "credit_card": "-",
    "telephone": "",
    "foreigner_reg": "-",
}


def number(rng: random.Random, kind: str, *, bare: bool = False) -> str:
    """A number of a kind, as somebody may write it."""
    if kind in ("resident_reg", "foreigner_reg"):
        sexes = "1234" if kind == "resident_reg" else "5678"
        raw = resident(rng, sexes=sexes, new=not bare and rng.random() < 0.2)
        sep = "-" if bare else rng.choice(("-", "-", "-", "", " ", " - ", "–"))
        return f"{raw[:6]}{sep}{raw[6:]}"
    if kind == "business_reg":
        raw, sep = business(rng), rng.choice(("-", "-", "-", "", " "))
        return sep.join((raw[:3], raw[3:5], raw[5:]))
    if kind == "credit_card":
        amex = rng.random() < 0.2
        raw = card(rng, amex=amex)
        while bare and raw[0] == "9":
            raw = card(rng, amex=amex)
        sep = "-" if bare else rng.choice(("-", "-", "-", "", " ", "."))
        if amex:
            return sep.join((raw[:4], raw[4:10], raw[10:]))
        return sep.join((raw[:4], raw[4:8], raw[8:12], raw[12:]))
    if kind == "bank_account":
        return account(rng)[1]
    made: dict[str, Callable[[random.Random], str]] = {
        "passport": passport,
        "driver_license": licence,
        "telephone": telephone,
        "health_insurance": health,
    }
    text = made[kind](rng)
    while bare and text.isdigit() and not text.startswith("010"):
        text = made[kind](rng)
    return text


_WIDE = {ord(letter): chr(ord(letter) + 0xFEE0) for letter in "0123456789-"}
KINDS = tuple(_KOREAN)


def _half(lists: str, half: int) -> list[str]:
    return lists.split("|")[half].split()


def _filled(frame: str, form: str, kind: str, said: str, **words: str) -> Case:
    """A frame with its words, and the span of the number in it."""
    for name, word in words.items():
        frame = frame.replace(f"{{{name}}}", word)
    begin = frame.index("{N}")
    return Case(frame.replace("{N}", said), ((begin, begin + len(said), kind),), form)


def _sentence(rng: random.Random, half: int, kind: str) -> Case:
    said = number(rng, kind)
    if rng.random() < 0.1:
        said = said.translate(_WIDE)
    label = rng.choice(_half(_KOREAN[kind], half))
    if kind == "bank_account" and rng.random() < 0.5:
        bank, said = account(rng)
        label = rng.choice((bank, f"{bank} 계좌", f"계좌번호 {bank}", f"{label} {bank}"))
    frame = rng.choice(_SENTENCES[half].split("|"))
    return _filled(frame, "sentence", kind, said, L=label)


def _bare(rng: random.Random, half: int, kind: str) -> Case:
    if kind not in _BARE_KINDS:
        return _sentence(rng, half, kind)
    frame = rng.choice(_BARE[half].split("|"))
    return _filled(frame, "bare", kind, number(rng, kind, bare=True))


def _log(rng: random.Random, half: int, kind: str) -> Case:
    key = rng.choice(_half(_KEYS[kind], half))
    return _filled(rng.choice(_LOGS[half].split("|")), "log", kind, number(rng, kind), K=key)


def _json(rng: random.Random, half: int, kind: str) -> Case:
    words = _half(_KEYS[kind], half) + _half(_KOREAN[kind], half)[:1]
    key, said = rng.choice(words), number(rng, kind)
    fields = {"name": "김예시", key: "{N}", "agree": True}
    shape = rng.randrange(5)
    if shape == 0:
        frame = json.dumps(fields, ensure_ascii=False)
    elif shape == 1:
        frame = json.dumps({"user": {"info": fields}}, ensure_ascii=False, indent=2)
    elif shape == 2:
        call = {"name": "look_up", "arguments": fields}
        frame = f"<tool_call>{json.dumps(call, ensure_ascii=False)}</tool_call>"
    elif shape == 3:
        call = {"name": "look_up", "arguments": json.dumps(fields, ensure_ascii=False)}
        frame = json.dumps(call, ensure_ascii=False)
    else:
        frame = json.dumps({key: "{N}"}, ensure_ascii=False, separators=(",", ":"))
    return _filled(frame, "json", kind, said)


def _table(rng: random.Random, half: int, kind: str) -> Case:
    """A table of several rows whose header is the only label."""
    words = _half(_KOREAN[kind], half)[:1] + _half(_KEYS[kind], half)[:2]
    label = rng.choice(words)
    sep = rng.choice((",", "\t", " | ", "|", ";"))
    columns = ["이름", label, rng.choice(("비고", "지역", "등급", "memo"))]
    order = rng.sample(range(3), 3)
    lines, spans, place = [], [], 0
    mark = sep == " | "
    for row in range(rng.randrange(1, 4) + 1):
        said = number(rng, kind)
        if sep.strip() and sep.strip() in said:
            said = said.replace(sep.strip(), "")
        cells = [columns[n] for n in order] if row == 0 else []
        if row:
            values = ["김예시", said, rng.choice(("-", "서울", "일반", "12"))]
            cells = [values[n] for n in order]
        line = sep.join(cells)
        line = f"| {line} |" if mark else line
        if row:
            before = sep.join(cells[: order.index(1)]) + (sep if order.index(1) else "")
            begin = place + len("| " if mark else "") + len(before)
            spans.append((begin, begin + len(said), kind))
        lines.append(line)
        place += len(line) + 1
        if row == 0 and mark:
            lines.append("|---|---|---|")
            place += len(lines[-1]) + 1
    return Case("\n".join(lines), tuple(spans), "table")


def _mixed(rng: random.Random, half: int, kind: str) -> Case:
    """Several kinds in one text."""
    text, spans = "", []
    others = rng.sample([one for one in KINDS if one != kind], 2)
    for one in (kind, *others):
        case = _filled(
            "{L} {N}", "mix", one, number(rng, one), L=rng.choice(_half(_KOREAN[one], half))
        )
        text += rng.choice((", ", " / ", "\n", " ")) if text else ""
        spans += [(a + len(text), b + len(text), k) for a, b, k in case.spans]
        text += case.text
    return Case(text, tuple(spans), "mix")


_SPOKEN = dict(zip("0123456789", "공일이삼사오육칠팔구", strict=True))


def _spoken(rng: random.Random, half: int, kind: str) -> Case:
    groups = ("010", digits(rng, 4), digits(rng, 4))
    said = rng.choice((" ", "에 ", "-", " 다시 ")).join(
        "".join(_SPOKEN[d] for d in group) for group in groups
    )
    frame = rng.choice(
        ("번호 불러드릴게요 {N}", "{N}입니다", "제 번호는 {N}예요", "{N} 로 전화 주세요")
    )
    return _filled(frame, "spoken", "telephone", said)


_LOOK_ALIKES = (
    "주문번호 {8}-{7} 배송 언제 오나요?|송장번호 {4}-{4}-{4}|운송장 {12} 조회|법인등록번호 "
    "110111-{7}|제품 시리얼 {4}-{4}-{4}-{4}|S/N {4}-{6}-{5}|접수번호 {4}-{4}-{2}|관리번호 "
    "302-{4}-{4}-{2}|자재코드 13-23-{6}-{2}|품목 M{8} 재고|모델 SM-{4}|학번 20{8}|고객번호 "
    "{10}|ISBN 978-89-{4}-{3}-{1}|상품 바코드 880{10}|IMEI 35{13}|서버 10.20.{2}.{2}:8080|"
    "위경도 37.{7}, 127.{7}|버전 {1}.{2}.{4}.{4}|2024-07-{d} 09:30 ~ 18:00|합계 {1},{3},{3}원|"
    "매출 {10}원|1577년부터 1588년까지|특허 제10-{7}호|출원번호 10-2022-{7}|2022도{5} 판결|"
    "commit {h}{h}|{h}-{4}-4{3}-a{3}-{h}{4}|우편번호 {5}|{\"orderId\": \"{13}\", \"qty\": 2}|"
    "{\"invoice_no\": \"{4}-{4}-{4}\"}|{\"trackingNumber\": \"{12}\"}|<tool_call>{\"name\": "
    "\"find\", \"arguments\": {\"serial\": \"{16}\"}}</tool_call>|주민번호 뒷자리는 "
    "*******입니다|연락처는 010-****-{4}입니다|계좌번호를 알려 주세요|카드번호 16자리 입력|"
    "여권번호는 영문 1자와 숫자 8자입니다|국민은행 지점코드 {3}-{4}|신한은행 2분기 순이익 1조 "
    "{1},{3}억|1719{9} ms 걸림|{4}×{4}={8}|로또 {4}회 1, 5, 10|세금계산서 승인번호 "
    "2024{4}-{8}-{8}|주문번호,수량\n{8}-{7},3|송장번호\t비고\n{4}-{4}-{4}\t-|¦ 시리얼 ¦ 수량 ¦"
    "\n¦ {4}-{4}-{4}-{4} ¦ 1 ¦",
    "주문 {8}-{7} 취소해 주세요|invoice no {4}-{4}-{4}|운송장번호: {4}{4}{4}|법인번호 "
    "110111-{7}|시리얼번호 {4}-{4}-{4}-{4}|일련번호 {4}-{6}-{5}|민원번호 {4}-{4}-{2}|장비번호 "
    "352-{4}-{4}-{2}|부품번호 17-05-{6}-{2}|제품번호 M{8} 단종|회원번호 {10}|사번 20{6}|ISBN "
    "979-11-{4}-{3}-{1}|바코드 880{10} 스캔|IMEI: 86{13}|192.168.{2}.{1} 핑 실패|좌표 "
    "35.{6},129.{6}|v{1}.{2}.{3}.{4} 배포|2023.12.{d} 14:00 회의|총 {2},{3},{3}원 결제|예산 "
    "{11}원|(1833-1897) 생몰|특허 10-{7}|출원 10-2021-{7}|2023가합{6}|sha1 {h}{h}{h}|"
    "req_id={h}{8}|(우) {5}|{\"order_no\": \"{6}-{7}\"}|{\"serialNumber\": "
    "\"{4}-{4}-{4}-{4}\"}|{\"receipt_no\": {13}}|{\"name\": \"track\", \"arguments\": "
    "\"{\\\"waybill\\\": \\\"{12}\\\"}\"}|주민번호 {6}-1******|휴대폰 010-{4}-****|통장 사본을 "
    "보내 주세요|카드 한도 {1},{3},{3}원|여권 사진은 3.5x4.5|우리은행 주가 {2},{3}원|하나은행 "
    "{1}분기 {1},{3}억|IBK 코드 003|타임스탬프 1711{9}|{3}.{1}×{4}|제{4}회 추첨 3, 8, 21|"
    "계산서 승인번호 2023{4}-{8}|접수번호,상태\n{4}-{4}-{4},완료|예약번호\t이름\n{10}\t김예시|"
    "¦ 주문번호 ¦ 상태 ¦\n¦ {8}-{7} ¦ 완료 ¦",
)  # fmt: skip


def _look_alike(rng: random.Random, half: int) -> Case:
    text, rest = "", rng.choice(_LOOK_ALIKES[half].split("|")).replace("¦", "|")
    while (at := rest.find("{")) >= 0:
        end = rest.find("}", at)
        name = rest[at + 1 : end]
        if name.isdigit():
            made = digits(rng, int(name), "123456789")
        elif name == "d":
            made = f"{rng.randrange(1, 29):02}"
        elif name == "h":
            made = "".join(rng.choices("0123456789abcdef", k=8))
        else:
            text, rest = text + rest[: at + 1], rest[at + 1 :]
            continue
        text, rest = text + rest[:at] + made, rest[end + 1 :]
    return Case(text + rest, (), "look-alike")


_FORMS = (_sentence, _sentence, _sentence, _bare, _log, _json, _json, _table, _mixed)


def cases(half: int, count: int, seed: int = 0) -> Iterator[Case]:
    """Texts of every kind in turn, and a look-alike after every two.

    Args:
        half: 0 or 1.
        count: How many with personal data.
        seed: Draws them.
    """
    rng = random.Random(f"{seed}-{half}")
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        form = rng.choice(_FORMS)
        if kind == "telephone" and rng.random() < 0.05:
            form = _spoken
        yield form(rng, half, kind)
        if index % 2:
            yield _look_alike(rng, half)
