"""The training text of the two embedded models: synthetic Korean chat and tool calls.

Everything here was written for this project. Conversations are drawn from a grammar of sentence
patterns with slots, so that any number of them can be made, always the same ones for a seed.
The shapes follow OpenAI's chat format, with `content` as text and `arguments` as an object, which
is what vLLM hands to a chat template.

Two notations keep the tables below short:

- A pattern holds slots, `{city}`, and may ask for the particle that fits what fills it,
  `{city:을/를}`.
- A parameter is written `role=kind:name|name`, where `kind` is a key of SLOTS, `role` is what
  patterns call it (the kind itself when left out), and the names are what a tool may call it.
"""

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Conversation = dict[str, Any]
Value = tuple[str, Any]  # as people say it, as a tool takes it

# ---------------------------------------------------------------------------------------------
# Words


def words(text: str) -> tuple[str, ...]:
    """Split a table of words at commas."""
    return tuple(word.strip() for word in text.split(","))


CITIES = words(
    "서울, 부산, 대구, 인천, 광주, 대전, 울산, 세종, 수원, 성남, 용인, 고양, 춘천, 강릉, 속초,"
    "원주, 청주, 천안, 전주, 군산, 여수, 순천, 목포, 포항, 경주, 창원, 진주, 통영, 제주, 서귀포"
)
COUNTRIES = {
    "일본": ("도쿄", "엔", "스시"),
    "중국": ("베이징", "위안", "딤섬"),
    "미국": ("워싱턴", "달러", "햄버거"),
    "영국": ("런던", "파운드", "피시 앤 칩스"),
    "프랑스": ("파리", "유로", "크루아상"),
    "독일": ("베를린", "유로", "소시지"),
    "이탈리아": ("로마", "유로", "파스타"),
    "스페인": ("마드리드", "유로", "파에야"),
    "태국": ("방콕", "밧", "팟타이"),
    "베트남": ("하노이", "동", "쌀국수"),
    "인도": ("뉴델리", "루피", "커리"),
    "호주": ("캔버라", "호주 달러", "미트 파이"),
    "캐나다": ("오타와", "캐나다 달러", "푸틴"),
    "스위스": ("베른", "프랑", "퐁뒤"),
    "튀르키예": ("앙카라", "리라", "케밥"),
    "멕시코": ("멕시코시티", "페소", "타코"),
    "대만": ("타이베이", "대만 달러", "우육면"),
    "이집트": ("카이로", "파운드", "코샤리"),
}
SURNAMES = words("김, 이, 박, 최, 정, 강, 조, 윤, 장, 임, 한, 오, 서, 신, 권, 황, 안, 송, 류, 홍")
GIVEN = words(
    "민준, 서연, 도윤, 지우, 하준, 서현, 지호, 수빈, 예준, 하은, 현우, 지민, 유진, 은서, 태민,"
    "소영, 준호, 미영, 영수, 정아, 나연, 동현, 보라, 성민, 가은"
)
PRODUCTS = words(
    "노트북, 무선 이어폰, 운동화, 텀블러, 가습기, 공기청정기, 전기밥솥, 청소기, 책상, 의자, 모니터,"
    "키보드, 마우스, 스마트워치, 배낭, 우산, 담요, 베개, 프린터, 선풍기, 커피 머신, 충전기, 수건,"
    "볼펜, 노트, 장갑, 모자, 양말, 캠핑 의자, 전기 주전자"
)
FOODS = words(
    "김치찌개, 된장찌개, 비빔밥, 불고기, 떡볶이, 냉면, 칼국수, 삼계탕, 갈비탕, 잡채, 김밥, 라면,"
    "순두부찌개, 제육볶음, 파스타, 피자, 초밥, 쌀국수, 짜장면, 볶음밥, 카레, 샐러드, 만둣국, 돈가스"
)
RESTAURANTS = words(
    "한빛식당, 바다횟집, 달빛부엌, 솔향기, 고향집, 맛나분식, 하늘정원, 초록식탁, 남산면옥, 은하수,"
    "별미가든, 우리포차, 온기식당, 청춘국수, 해오름, 나무그늘"
)
HOTELS = words(
    "바다호텔, 한강호텔, 숲속리조트, 별빛펜션, 하늘호텔, 솔바람리조트, 노을펜션,"
    "중앙호텔, 올레스테이"
)
STATIONS = words(
    "서울역, 부산역, 강남역, 시청역, 동대구역, 대전역, 광명역, 용산역, 수원역, 잠실역, 홍대입구역,"
    "여의도역, 판교역, 오송역, 전주역, 강릉역"
)
COMPANIES = words(
    "한빛전자, 미래통신, 푸른은행, 새롬식품, 누리항공, 다온보험, 가온물류, 나래소프트, 해솔제약,"
    "두리쇼핑, 라온호텔, 마루건설, 바른카드, 아라에너지"
)
MOVIES = words(
    "봄날의 기차, 푸른 새벽, 달의 노래, 마지막 편지, 겨울 바다, 시간의 문, 작은 영웅, 별을 찾아서,"
    "도시의 그림자, 하얀 언덕, 여름의 끝, 비밀 정원"
)
SONGS = words(
    "밤하늘, 첫눈, 바람의 길, 너의 이름, 여름밤, 그날처럼, 푸른 꿈, 비 오는 거리, 소나기, 안녕 봄,"
    "작은 별빛, 오래된 노래"
)
BOOKS = words(
    "느린 산책, 숫자의 역사, 바다의 기억, 하루 한 문장, 처음 배우는 통계, 나무의 시간, 작은 식탁,"
    "별을 읽는 밤, 생각의 지도, 도시와 골목, 마음의 정원, 여행의 기술"
)
LANGUAGES = {
    "영어": "en",
    "일본어": "ja",
    "중국어": "zh",
    "프랑스어": "fr",
    "독일어": "de",
    "스페인어": "es",
    "베트남어": "vi",
    "태국어": "th",
}
CURRENCIES = {
    "달러": "USD",
    "엔": "JPY",
    "유로": "EUR",
    "위안": "CNY",
    "파운드": "GBP",
    "원": "KRW",
}
DEPARTMENTS = words(
    "내과, 외과, 치과, 안과, 피부과, 정형외과, 이비인후과, 소아과, 산부인과, 신경과"
)
ROOMS = words("거실, 안방, 주방, 서재, 침실, 현관, 욕실, 베란다, 작은방")
DEVICES = words("조명, 에어컨, 보일러, 공기청정기, 선풍기, 텔레비전, 커튼, 제습기, 스피커")
MEETING_ROOMS = words("회의실 1, 회의실 2, 회의실 3, 대회의실, 소회의실, 세미나실, 강당")
MEMOS = words(
    "우유 사기, 보고서 제출, 치과 가기, 어머니께 전화하기, 회의 자료 준비, 세탁물 찾기, 약 먹기,"
    "운동하기, 책 반납, 공과금 내기, 화분에 물 주기, 생일 선물 사기, 면접 준비, 영어 공부하기"
)
TITLES = words(
    "주간 회의, 팀 회식, 고객 미팅, 건강 검진, 가족 모임, 신제품 발표, 면접, 동창회, 프로젝트 점검,"
    "결혼기념일, 영어 수업, 이사 상담"
)
SENTENCES = words(
    "오늘 회의는 취소되었습니다, 내일 뵙겠습니다, 지금 출발합니다, 자료를 확인해 주세요,"
    "늦어서 죄송합니다, 도와주셔서 감사합니다, 생일 축하합니다, 주문이 완료되었습니다,"
    "곧 도착합니다, 점심 같이 먹어요, 계약서를 보내 드립니다, 좋은 하루 보내세요"
)
SUBJECTS = words("수학, 영어, 과학, 역사, 국어, 경제, 음악, 미술, 코딩, 한국사, 물리, 화학")
TOPICS = words(
    "환경 보호, 인공지능, 건강한 식습관, 전기차, 우주 탐사, 재택근무, 부동산, 기후 변화, 반도체,"
    "독서 습관, 저출산, 스마트폰, 관광 산업, 청년 취업"
)
SPORTS = words("야구, 축구, 농구, 배구, 배드민턴, 탁구, 수영, 테니스, 골프, 등산")
BANKS = words("푸른은행, 하늘은행, 나라은행, 새벽은행, 강산은행, 온누리은행")
SKIES = words("맑음, 흐림, 비, 눈, 구름 조금, 안개, 소나기")
AIR = words("좋음, 보통, 나쁨, 매우 나쁨")
STATES = words("배송 준비 중, 배송 중, 배송 완료, 상품 준비 중, 출고 완료")
SEATS = words("창가 좌석, 통로 좌석, 앞쪽 좌석, 뒤쪽 좌석")
CLASSES = words("일반석, 특실, 비즈니스석")
SIZES = words("소형, 중형, 대형")
COLORS = words("빨간색, 파란색, 검은색, 흰색, 초록색, 노란색, 회색")
VOCABULARY = {
    "사과": "apple",
    "학교": "school",
    "친구": "friend",
    "바다": "sea",
    "하늘": "sky",
    "물": "water",
    "책": "book",
    "음악": "music",
    "시간": "time",
    "가족": "family",
    "여행": "travel",
    "아침": "morning",
    "꽃": "flower",
    "나무": "tree",
    "회사": "company",
    "건강": "health",
    "날씨": "weather",
    "병원": "hospital",
    "문": "door",
    "약속": "promise",
}

# ---------------------------------------------------------------------------------------------
# Korean text out of patterns


def patterns(table: str) -> tuple[str, ...]:
    """The patterns of a table entry, one a line; a long one goes on after a backslash."""
    return tuple(" ".join(line.split()) for line in table.strip().split("\n"))


def particle(word: str, pair: str) -> str:
    """The form of a particle, written `with consonant/with vowel`, that follows `word`."""
    closed, open_ = pair.split("/")
    last = word[-1]
    if "가" <= last <= "힣":
        final = (ord(last) - ord("가")) % 28
    else:  # digits as they are read aloud; 1, 7 and 8 end in ㄹ, which is 8 in Unicode's order
        final = {"0": 21, "1": 8, "3": 16, "6": 1, "7": 8, "8": 8}.get(last, 0)
    if closed == "으로" and final == 8:
        return open_
    return closed if final else open_


ENDINGS = {
    "tell": words("알려줘, 알려 주세요, 알려줄래?, 알려 주시겠어요?, 확인해 줘, 확인해 주세요"),
    "give": words("줘, 주세요, 줄래?, 주시겠어요?, 주실 수 있나요?"),
}
SLOT = re.compile(r"\{(\w+)(?::([^}]+))?\}")


def fill(rng: random.Random, pattern: str, spoken: Mapping[str, str]) -> str:
    """Fill a pattern's slots with what people say, each with its fitting particle."""

    def one(match: re.Match[str]) -> str:
        name, pair = match.groups()
        word = rng.choice(ENDINGS[name]) if name in ENDINGS else spoken[name]
        return word + (particle(word, pair) if pair else "")

    return SLOT.sub(one, pattern).replace("?.", "?")


# ---------------------------------------------------------------------------------------------
# Slots: the kinds of values that tools take and give


@dataclass(frozen=True)
class Slot:
    """A kind of value: its Korean name, its JSON type and how one is drawn."""

    label: str
    json_type: str
    make: Callable[[random.Random], Value]


def text(label: str, *tables: tuple[str, ...]) -> Slot:
    """A slot whose value is said as it is written, one word of each table."""

    def make(rng: random.Random) -> Value:
        word = " ".join(rng.choice(table) for table in tables)
        return word, word

    return Slot(label, "string", make)


def coded(label: str, table: Mapping[str, str]) -> Slot:
    """A slot that people name in Korean and tools take as a code."""
    return Slot(label, "string", lambda rng: rng.choice(sorted(table.items())))


def number(label: str, unit: str, draw: Callable[[random.Random], int]) -> Slot:
    """A whole number, said with its unit."""

    def make(rng: random.Random) -> Value:
        value = draw(rng)
        return f"{value}{unit}", value

    return Slot(label, "integer", make)


def price(rng: random.Random) -> int:
    """A price in won, round as prices are."""
    return rng.choice(
        (
            rng.randint(1, 99) * 1000,
            rng.randint(10, 999) * 100,
            rng.randint(1, 50) * 10000,
            rng.randint(1, 30) * 100000,
        )
    )


def date(rng: random.Random) -> Value:
    """A day, said in Korean or as it is written."""
    year, month, day = rng.randint(2020, 2027), rng.randint(1, 12), rng.randint(1, 28)
    iso = f"{year}-{month:02d}-{day:02d}"
    return (iso if rng.random() < 0.4 else f"{year}년 {month}월 {day}일"), iso


def clock(rng: random.Random) -> Value:
    """A time of day on the hour or the half hour."""
    hour, half = rng.randint(6, 22), rng.random() < 0.4
    iso = f"{hour:02d}:{30 if half else 0:02d}"
    if rng.random() < 0.3:
        return iso, iso
    noon = "오전" if hour < 12 else "오후"
    return f"{noon} {hour if hour <= 12 else hour - 12}시" + (" 30분" if half else ""), iso


def person(rng: random.Random) -> Value:
    """A person's full name."""
    name = rng.choice(SURNAMES) + rng.choice(GIVEN)
    return name, name


def digits(label: str, form: str) -> Slot:
    """An identifier: every # of the form becomes a digit."""

    def make(rng: random.Random) -> Value:
        value = re.sub("#", lambda _: str(rng.randint(0, 9)), form)
        return value, value

    return Slot(label, "string", make)


SLOTS: dict[str, Slot] = {
    "city": text("지역", CITIES),
    "country": text("국가", tuple(COUNTRIES)),
    "person": Slot("이름", "string", person),
    "product": text("상품", PRODUCTS),
    "food": text("음식", FOODS),
    "restaurant": text("식당", RESTAURANTS),
    "hotel": text("숙소", HOTELS),
    "station": text("역", STATIONS),
    "company": text("회사", COMPANIES),
    "movie": text("영화", MOVIES),
    "song": text("노래", SONGS),
    "book": text("책", BOOKS),
    "language": coded("언어", LANGUAGES),
    "currency": coded("통화", CURRENCIES),
    "department": text("진료과", DEPARTMENTS),
    "room": text("공간", ROOMS),
    "device": text("기기", DEVICES),
    "meeting_room": text("회의실", MEETING_ROOMS),
    "memo": text("내용", MEMOS),
    "title": text("일정", TITLES),
    "sentence": text("문장", SENTENCES),
    "subject": text("과목", SUBJECTS),
    "topic": text("주제", TOPICS),
    "sport": text("종목", SPORTS),
    "bank": text("은행", BANKS),
    "sky": text("날씨", SKIES),
    "air": text("등급", AIR),
    "state": text("상태", STATES),
    "seat": text("좌석", SEATS),
    "grade": text("등급", CLASSES),
    "size": text("크기", SIZES),
    "color": text("색상", COLORS),
    "word": text("단어", tuple(VOCABULARY)),
    "date": Slot("날짜", "string", date),
    "time": Slot("시간", "string", clock),
    "order": digits("주문 번호", "20######-####"),
    "parcel": digits("운송장 번호", "##########"),
    "flight": digits("항공편", "NR###"),
    "booking": digits("예약 번호", "R#####"),
    "amount": number("금액", "원", price),
    "count": number("수량", "개", lambda rng: rng.randint(1, 20)),
    "people": number("인원", "명", lambda rng: rng.randint(1, 12)),
    "nights": number("숙박일", "박", lambda rng: rng.randint(1, 7)),
    "minutes": number("시간", "분", lambda rng: rng.randint(1, 24) * 5),
    "months": number("기간", "개월", lambda rng: rng.choice((6, 12, 18, 24, 36, 48, 60))),
    "degrees": number("온도", "도", lambda rng: rng.randint(-9, 35)),
    "percent": number("비율", "%", lambda rng: rng.randint(1, 20) * 5),
    "distance": number("거리", "km", lambda rng: rng.randint(1, 450)),
    "weight": number("체중", "kg", lambda rng: rng.randint(40, 110)),
    "height": number("키", "cm", lambda rng: rng.randint(145, 195)),
    "calories": number("열량", "kcal", lambda rng: rng.randint(5, 120) * 10),
    "score": number("지수", "", lambda rng: rng.randint(15, 39)),
    "left": number("재고", "개", lambda rng: rng.randint(0, 300)),
    "points": number("포인트", "점", lambda rng: rng.randint(1, 300) * 100),
    "pages": number("쪽수", "쪽", lambda rng: rng.randint(80, 600)),
    "foreign": number("금액", "", lambda rng: rng.choice((10, 50, 100, 200, 300, 500, 1000))),
}
LABELS = {"from": "출발지", "to": "도착지", "into": "바꿀 통화", "sender": "보내는 사람"}

# ---------------------------------------------------------------------------------------------
# Tools


@dataclass(frozen=True)
class Field:
    """A parameter or a result of a tool, before one of its names is chosen."""

    role: str
    kind: str
    names: tuple[str, ...]

    @property
    def label(self) -> str:
        """What people call it."""
        return LABELS.get(self.role, SLOTS[self.kind].label)


def fields(spec: str) -> tuple[Field, ...]:
    """Read `role=kind:name|name` entries, separated by spaces."""
    found = []
    for entry in spec.split():
        head, _, names = entry.partition(":")
        role, _, kind = head.partition("=")
        found.append(Field(role, kind or role, tuple(names.split("|"))))
    return tuple(found)


@dataclass(frozen=True)
class Tool:
    """A tool in all its variants: every prompt that lists it draws one.

    `bare` is a request that names the task and none of the values.
    """

    names: tuple[str, ...]
    label: str
    description: str
    params: tuple[Field, ...]
    results: tuple[Field, ...]
    bare: str
    asks: tuple[str, ...]
    answers: tuple[str, ...]


def tool(
    names: str, label: str, params: str, results: str, bare: str, asks: str, answers: str
) -> Tool:
    """A tool from its table entry; asks and answers are one a line."""
    return Tool(
        tuple(names.split("|")),
        label,
        f"{label} 기능입니다.",
        fields(params),
        fields(results),
        bare,
        patterns(asks),
        patterns(answers),
    )


TOOLS: tuple[Tool, ...] = (
    tool(
        "get_weather|weather_lookup|check_weather|current_weather",
        "날씨 조회",
        "city:city|location|region",
        "sky:condition|weather degrees:temperature|temp",
        "날씨 {tell}.",
        """{city} 날씨 {tell}.
        지금 {city} 날씨 어때?
        {city}의 현재 날씨를 {tell}.
        오늘 {city}에 우산이 필요할까요?""",
        """{city}의 현재 날씨는 {sky}, 기온은 {degrees}입니다.
        지금 {city:은/는} {sky}이며 기온은 {degrees}입니다.""",
    ),
    tool(
        "get_forecast|weather_forecast|forecast_by_date",
        "날짜별 일기 예보",
        "city:city|location date:date|target_date",
        "sky:condition|forecast degrees:temperature|max_temp",
        "일기 예보 좀 {tell}.",
        """{date} {city} 일기 예보 {tell}.
        {city:은/는} {date}에 날씨가 어떨까요?
        {date}에 {city}에 가는데 예보 좀 {tell}.""",
        """{date} {city}의 예보는 {sky}, 기온은 {degrees}입니다.
        {city:은/는} {date}에 {sky}, {degrees}로 예상됩니다.""",
    ),
    tool(
        "get_air_quality|air_quality|check_dust",
        "미세먼지 조회",
        "city:city|area|location",
        "air:grade|level",
        "미세먼지 농도 {tell}.",
        """{city} 미세먼지 {tell}.
        {city} 공기 상태 어때?
        오늘 {city:은/는} 미세먼지가 심한가요?""",
        """{city}의 미세먼지 등급은 {air}입니다.
        현재 {city}의 공기 상태는 {air}입니다.""",
    ),
    tool(
        "search_product|find_product|product_search",
        "상품 검색",
        "product:query|keyword|product_name",
        "amount:price|cost left:stock|quantity",
        "상품 좀 찾아 {give}.",
        """{product} 찾아 {give}.
        {product:을/를} 사고 싶은데 검색해 {give}.
        {product} 가격이랑 재고 {tell}.""",
        """{product}의 가격은 {amount}이고 재고는 {left}입니다.
        {product:은/는} {amount}이며 {left} 남아 있습니다.""",
    ),
    tool(
        "order_product|place_order|create_order|buy_item",
        "상품 주문",
        "product:product|item|product_name count:quantity|count",
        "order:order_id|order_number",
        "주문 좀 해 {give}.",
        """{product} {count} 주문해 {give}.
        {product:을/를} {count} 사고 싶어요.
        {count} 필요한데 {product:을/를} 주문해 {give}.""",
        """{product} {count} 주문이 완료되었습니다. 주문 번호는 {order}입니다.
        {product:을/를} {count} 주문했습니다. 주문 번호 {order:을/를} 확인해 주세요.""",
    ),
    tool(
        "track_delivery|delivery_status|track_parcel",
        "배송 조회",
        "parcel:tracking_number|parcel_id|invoice",
        "state:status|state",
        "택배가 어디쯤 왔는지 {tell}.",
        """운송장 번호 {parcel} 배송 상태 {tell}.
        {parcel} 택배가 어디쯤 왔나요?
        {parcel} 배송 조회해 {give}.""",
        """운송장 번호 {parcel} 택배는 현재 {state}입니다.
        조회 결과 {state}입니다.""",
    ),
    tool(
        "cancel_order|order_cancel|request_cancel",
        "주문 취소",
        "order:order_id|order_number|order_no",
        "amount:refund|refund_amount",
        "주문을 취소해 {give}.",
        """주문 번호 {order} 취소해 {give}.
        {order} 주문을 취소하고 싶어요.
        방금 주문한 {order:을/를} 취소해 {give}.""",
        """주문 {order:이/가} 취소되었고 {amount:이/가} 환불됩니다.
        취소가 완료되었습니다. 환불 금액은 {amount}입니다.""",
    ),
    tool(
        "get_order|order_lookup|order_detail",
        "주문 내역 조회",
        "order:order_id|order_number",
        "product:product|item amount:total|price",
        "주문 내역 {tell}.",
        """주문 번호 {order} 내역 {tell}.
        {order} 주문이 뭐였는지 {tell}.
        {order} 주문 상세를 {tell}.""",
        """주문 {order}의 상품은 {product}, 결제 금액은 {amount}입니다.
        {product:을/를} {amount}에 주문하신 내역입니다.""",
    ),
    tool(
        "request_exchange|exchange_item|apply_exchange",
        "상품 교환 신청",
        "order:order_id|order_no color:color|new_color",
        "date:pickup_date|visit_date",
        "상품을 교환하고 싶어요.",
        """주문 번호 {order} 상품을 {color:으로/로} 교환해 {give}.
        {order} 주문을 {color:으로/로} 바꾸고 싶어요.""",
        """{order} 주문을 {color:으로/로} 교환 신청했습니다. {date}에 방문합니다.
        {color} 상품으로 교환 접수되었으며 수거일은 {date}입니다.""",
    ),
    tool(
        "book_restaurant|reserve_table|restaurant_reservation",
        "식당 예약",
        "restaurant:restaurant|place date:date|day time:time|hour people:people|party_size",
        "booking:reservation_id|booking_no",
        "식당 예약 좀 해 {give}.",
        """{restaurant}에 {date} {time} {people} 예약해 {give}.
        {date} {time}에 {people} {restaurant} 예약 부탁해요.
        {people:이/가} {restaurant}에 가려고 해요. {date} {time}에 예약해 {give}.""",
        """{restaurant}에 {date} {time} {people} 예약했습니다. 예약 번호는 {booking}입니다.
        예약되었습니다. {restaurant}, {date} {time}, {people}이고 번호는 {booking}입니다.""",
    ),
    tool(
        "find_restaurant|search_restaurant|recommend_restaurant",
        "맛집 검색",
        "city:city|location food:menu|cuisine|food",
        "restaurant:name|restaurant",
        "맛집 좀 추천해 {give}.",
        """{city}에서 {food} 맛집 추천해 {give}.
        {city} 근처 {food} 잘하는 곳 {tell}.
        {food:을/를} 먹고 싶은데 {city} 식당 찾아 {give}.""",
        """{city}에서 {food:을/를} 드신다면 {restaurant:을/를} 추천합니다.
        {restaurant:이/가} {city}에서 {food:으로/로} 유명합니다.""",
    ),
    tool(
        "order_food|food_delivery|request_food",
        "음식 배달 주문",
        "food:menu|food count:quantity|count",
        "minutes:eta|minutes",
        "배달 음식 좀 시켜 {give}.",
        """{food} {count} 배달시켜 {give}.
        {food:이/가} 먹고 싶어요. {count} 주문해 {give}.""",
        """{food} {count} 주문했습니다. {minutes} 뒤에 도착합니다.
        {food:은/는} 약 {minutes} 뒤에 도착할 예정입니다.""",
    ),
    tool(
        "book_hotel|reserve_hotel|hotel_booking",
        "숙소 예약",
        "hotel:hotel|hotel_name date:check_in|date nights:nights|stay",
        "booking:booking_id|reservation amount:price|total",
        "숙소를 예약해 {give}.",
        """{hotel} {date}부터 {nights} 예약해 {give}.
        {date}에 {hotel:으로/로} {nights} 잡아 {give}.""",
        """{hotel} {nights:을/를} {date}부터 예약했습니다. 요금은 {amount}입니다.
        {hotel} 예약 번호는 {booking}, 요금은 {amount}입니다.""",
    ),
    tool(
        "find_hotel|search_hotel|hotel_search",
        "숙소 검색",
        "city:city|destination people:guests|people",
        "hotel:hotel|name amount:price|rate",
        "묵을 곳 좀 찾아 {give}.",
        """{city}에서 {people:이/가} 묵을 숙소 찾아 {give}.
        {people} 여행인데 {city} 호텔 추천해 {give}.""",
        """{city}에서는 {hotel:이/가} 좋습니다. 요금은 {amount}입니다.
        {people:이/가} 묵기에 {hotel:을/를} 추천합니다. 하루 {amount}입니다.""",
    ),
    tool(
        "book_train|reserve_train|train_ticket",
        "기차표 예매",
        "from=station:departure|from_station|origin to=station:arrival|to_station|destination"
        " date:date|travel_date",
        "booking:ticket_id|booking_no amount:fare|price",
        "기차표 예매해 {give}.",
        """{date} {from}에서 {to} 가는 기차표 예매해 {give}.
        {from}에서 {to}까지 {date} 기차 예약해 {give}.""",
        """{date} {from}에서 {to}까지 예매했습니다. 요금은 {amount}입니다.
        {to}행 기차표를 예매했습니다. 예매 번호는 {booking}입니다.""",
    ),
    tool(
        "search_flight|find_flight|flight_search",
        "항공편 검색",
        "from=city:departure|from_city|origin to=country:destination|to_country|arrival"
        " date:date|departure_date",
        "flight:flight|flight_no amount:price|fare",
        "비행기표 좀 찾아 {give}.",
        """{date} {from}에서 {to} 가는 항공편 찾아 {give}.
        {from}에서 {to:으로/로} {date}에 출발하는 비행기 {tell}.""",
        """{date} {from}에서 {to} 가는 {flight}편이 {amount}입니다.
        {to}행은 {flight}편이 있으며 요금은 {amount}입니다.""",
    ),
    tool(
        "flight_status|check_flight|get_flight_info",
        "항공편 운항 조회",
        "flight:flight_no|flight",
        "time:departure_time|time",
        "비행기가 제시간에 뜨는지 {tell}.",
        """{flight}편 언제 출발하는지 {tell}.
        {flight} 항공편 운항 정보 {tell}.""",
        """{flight}편은 {time}에 출발합니다.
        {flight} 항공편의 출발 시간은 {time}입니다.""",
    ),
    tool(
        "get_route|find_route|navigate",
        "길 찾기",
        "from=station:start|origin|from to=station:end|goal|to",
        "minutes:duration|minutes distance:distance|distance_km",
        "길 좀 찾아 {give}.",
        """{from}에서 {to} 가는 길 {tell}.
        {from}에서 {to}까지 얼마나 걸려요?
        {to}까지 가야 해요. {from}에서 출발하는 길 {tell}.""",
        """{from}에서 {to}까지 {distance}, 약 {minutes} 걸립니다.
        {to}까지는 {minutes} 정도 걸리고 거리는 {distance}입니다.""",
    ),
    tool(
        "call_taxi|request_taxi|book_taxi",
        "택시 호출",
        "from=station:pickup|pickup_point to=hotel:dropoff|destination",
        "minutes:wait|arrival_minutes",
        "택시 좀 불러 {give}.",
        """{from}에서 {to}까지 택시 불러 {give}.
        {to} 가는 택시를 {from:으로/로} 불러 {give}.""",
        """택시를 불렀습니다. {minutes} 뒤에 {from}에 도착합니다.
        {to} 가는 택시가 {minutes} 뒤에 옵니다.""",
    ),
    tool(
        "convert_currency|exchange_rate|currency_convert",
        "환율 계산",
        "foreign:amount|value currency:from|from_currency into=currency:to|to_currency",
        "amount:result|converted",
        "환율 좀 계산해 {give}.",
        """{foreign} {currency:을/를} {into:으로/로} 바꾸면 얼마예요?
        {foreign} {currency:은/는} {into:으로/로} 얼마인지 {tell}.""",
        """{foreign} {currency:은/는} 현재 {amount} 상당입니다.
        계산 결과 {amount} 정도입니다.""",
    ),
    tool(
        "get_stock_price|stock_quote|check_stock",
        "주가 조회",
        "company:company|name|stock_name",
        "amount:price|current_price",
        "주가 좀 {tell}.",
        """{company} 주가 {tell}.
        지금 {company} 주식 얼마예요?
        {company} 현재 주가를 {tell}.""",
        """{company}의 현재 주가는 {amount}입니다.
        {company} 주식은 지금 {amount}입니다.""",
    ),
    tool(
        "transfer_money|send_money|bank_transfer",
        "송금",
        "person:recipient|to|receiver bank:bank|bank_name amount:amount|money",
        "time:completed_at|time",
        "돈 좀 보내 {give}.",
        """{person}에게 {bank:으로/로} {amount} 보내 {give}.
        {amount:을/를} {person}님 {bank} 계좌로 송금해 {give}.""",
        """{person}님께 {bank:으로/로} {amount:을/를} 보냈습니다.
        {time}에 {person}님 앞으로 {amount} 송금이 완료되었습니다.""",
    ),
    tool(
        "get_balance|check_balance|account_balance",
        "잔액 조회",
        "bank:bank|bank_name|account",
        "amount:balance|amount",
        "잔액이 얼마인지 {tell}.",
        """{bank} 잔액 {tell}.
        {bank} 계좌에 얼마 남았는지 {tell}.""",
        """{bank} 계좌의 잔액은 {amount}입니다.
        현재 {bank}에는 {amount:이/가} 있습니다.""",
    ),
    tool(
        "calculate_loan|loan_payment|loan_calculator",
        "대출 이자 계산",
        "amount:principal|loan_amount months:months|period",
        "pay=amount:monthly|payment",
        "대출 상환금 좀 계산해 {give}.",
        """{amount:을/를} {months} 동안 빌리면 매달 얼마예요?
        {months} 동안 {amount} 대출하면 상환금이 얼마인지 {tell}.""",
        """{amount:을/를} {months} 동안 빌리면 매달 {pay:을/를} 갚아야 합니다.
        월 상환금은 {pay}입니다.""",
    ),
    tool(
        "add_expense|record_expense|log_spending",
        "지출 기록",
        "product:item|name amount:amount|cost date:date|spent_on",
        "sum=amount:total|month_total",
        "지출 내역 좀 적어 {give}.",
        """{date}에 {product} {amount} 쓴 것 기록해 {give}.
        {product} {amount} 지출을 {date:으로/로} 적어 {give}.""",
        """{date} {product} {amount:을/를} 기록했습니다. 이번 달 합계는 {sum}입니다.
        {amount} 지출을 적었습니다. 합계는 {sum}입니다.""",
    ),
    tool(
        "translate_text|translate|text_translation",
        "번역",
        "sentence:text|sentence language:target|target_language|lang",
        "time:finished_at|time",
        "번역 좀 해 {give}.",
        """'{sentence}'를 {language:으로/로} 번역해 {give}.
        {language:으로/로} '{sentence}'를 어떻게 말해요?""",
        """'{sentence}'를 {language:으로/로} 번역했습니다.
        {time}에 {language} 번역이 끝났습니다.""",
    ),
    tool(
        "send_message|send_sms|text_message",
        "문자 전송",
        "person:to|recipient|receiver sentence:message|text|body",
        "time:sent_at|time",
        "문자 좀 보내 {give}.",
        """{person}에게 '{sentence}'라고 문자 보내 {give}.
        '{sentence}'라고 {person}님께 전해 {give}.""",
        """{person}님께 '{sentence}'라고 보냈습니다.
        {time}에 {person}님께 문자를 보냈습니다.""",
    ),
    tool(
        "send_email|write_email|mail_send",
        "이메일 전송",
        "person:to|recipient title:subject|title sentence:body|content",
        "time:sent_at|time",
        "이메일 좀 보내 {give}.",
        """{person}님께 제목은 {title}, 내용은 '{sentence}'로 메일 보내 {give}.
        {title} 제목으로 {person}에게 '{sentence}'라고 이메일 보내 {give}.""",
        """{person}님께 {title} 메일을 보냈습니다.
        {time}에 {title} 제목으로 {person}님께 보냈습니다.""",
    ),
    tool(
        "make_call|phone_call|call_contact",
        "전화 걸기",
        "person:name|contact|callee",
        "minutes:duration|minutes",
        "전화 좀 걸어 {give}.",
        """{person}에게 전화 걸어 {give}.
        {person}님과 통화하고 싶어요.""",
        """{person}님과 {minutes} 동안 통화했습니다.
        {person}님께 전화를 걸었습니다.""",
    ),
    tool(
        "add_schedule|create_event|add_calendar|new_event",
        "일정 등록",
        "title:title|event|name date:date|day time:time|start",
        "minutes:reminder|alarm_before",
        "일정 하나 등록해 {give}.",
        """{date} {time}에 {title} 일정 추가해 {give}.
        {title:을/를} {date} {time}에 등록해 {give}.""",
        """{date} {time}에 {title} 일정을 등록했습니다. {minutes} 전에 알려 드리겠습니다.
        {title} 일정이 {date} {time:으로/로} 등록되었습니다.""",
    ),
    tool(
        "get_schedule|list_events|check_calendar",
        "일정 조회",
        "date:date|day|target_date",
        "title:title|event time:time|start",
        "일정 좀 {tell}.",
        """{date} 일정 {tell}.
        {date}에 무슨 약속이 있는지 {tell}.""",
        """{date}에는 {time}에 {title} 일정이 있습니다.
        {date} {time}에 {title:이/가} 예정되어 있습니다.""",
    ),
    tool(
        "set_alarm|create_alarm|alarm_set",
        "알람 설정",
        "time:time|at|alarm_time",
        "minutes:snooze|repeat_minutes",
        "알람 좀 맞춰 {give}.",
        """{time}에 알람 맞춰 {give}.
        {time}에 깨워 {give}.
        알람을 {time:으로/로} 설정해 {give}.""",
        """{time}에 알람을 맞췄습니다.
        알람이 {time:으로/로} 설정되었습니다. {minutes} 간격으로 다시 울립니다.""",
    ),
    tool(
        "set_timer|start_timer|timer",
        "타이머 설정",
        "minutes:minutes|duration",
        "time:ends_at|end",
        "타이머 좀 켜 {give}.",
        """{minutes} 타이머 켜 {give}.
        타이머 {minutes:으로/로} 맞춰 {give}.""",
        """{minutes} 타이머를 시작했습니다. {time}에 끝납니다.
        타이머를 {minutes:으로/로} 맞췄습니다.""",
    ),
    tool(
        "add_memo|create_note|save_memo|add_todo",
        "할 일 메모",
        "memo:content|text|memo",
        "count:total|memo_count",
        "메모 하나 남겨 {give}.",
        """{memo} 메모해 {give}.
        할 일에 {memo:을/를} 추가해 {give}.
        {memo:을/를} 잊지 않게 적어 {give}.""",
        """{memo:을/를} 메모했습니다. 메모는 모두 {count}입니다.
        할 일에 {memo:을/를} 추가했습니다.""",
    ),
    tool(
        "set_reminder|create_reminder|remind_me",
        "미리 알림",
        "memo:content|message|what date:date|when|day",
        "time:time|at",
        "미리 알림을 설정해 {give}.",
        """{date}에 {memo} 알림 설정해 {give}.
        {memo:을/를} {date}에 다시 알려 {give}.""",
        """{date} {time}에 {memo} 알림을 드리겠습니다.
        {memo} 알림을 {date:으로/로} 설정했습니다.""",
    ),
    tool(
        "reserve_meeting_room|book_room|meeting_room_booking",
        "회의실 예약",
        "meeting_room:room|room_name date:date|day time:time|start_time",
        "booking:reservation_id|booking_no",
        "회의실 좀 잡아 {give}.",
        """{meeting_room:을/를} {date} {time}에 예약해 {give}.
        {date} {time}에 {meeting_room} 쓸 수 있게 잡아 {give}.""",
        """{meeting_room:을/를} {date} {time}에 예약했습니다. 예약 번호는 {booking}입니다.
        {date} {time} {meeting_room} 예약이 완료되었습니다.""",
    ),
    tool(
        "control_device|device_on|turn_on_device",
        "가전 켜기",
        "room:room|place|location device:device|target",
        "percent:level|intensity",
        "가전제품 좀 켜 {give}.",
        """{room} {device} 켜 {give}.
        {room}에 있는 {device:을/를} 켜 {give}.""",
        """{room} {device:을/를} 켰습니다. 세기는 {percent}입니다.
        {room}의 {device:이/가} 켜졌습니다.""",
    ),
    tool(
        "set_temperature|adjust_temperature|thermostat",
        "실내 온도 조절",
        "room:room|zone degrees:temperature|celsius|degree",
        "now=degrees:current|now",
        "온도 좀 맞춰 {give}.",
        """{room} 온도를 {degrees:으로/로} 맞춰 {give}.
        {room:을/를} {degrees:으로/로} 설정해 {give}.""",
        """{room} 온도를 {degrees:으로/로} 맞췄습니다. 현재 온도는 {now}입니다.
        {room:이/가} 지금 {now}이며 곧 {degrees:이/가} 됩니다.""",
    ),
    tool(
        "play_music|play_song|music_player",
        "음악 재생",
        "song:song|title|track",
        "person:artist|singer",
        "노래 좀 틀어 {give}.",
        """{song} 노래 틀어 {give}.
        {song:을/를} 듣고 싶어요.
        노래 {song} 재생해 {give}.""",
        """{person}의 {song:을/를} 재생합니다.
        {song:을/를} 틀어 드릴게요. 가수는 {person}입니다.""",
    ),
    tool(
        "book_movie|movie_ticket|reserve_movie",
        "영화 예매",
        "movie:movie|title date:date|day people:people|seats",
        "seat:seat|position amount:price|total",
        "영화 예매해 {give}.",
        """{date} {movie} {people} 예매해 {give}.
        {movie:을/를} {people:이/가} 보려고 해요. {date}에 예매해 {give}.""",
        """{movie} {people} 예매했습니다. {seat}이며 {amount}입니다.
        {date} {movie} 예매가 끝났습니다. 금액은 {amount}입니다.""",
    ),
    tool(
        "get_movie_info|movie_search|find_movie",
        "영화 정보 조회",
        "movie:movie|title|query",
        "person:director|director_name minutes:running_time|minutes",
        "영화 정보 {tell}.",
        """영화 {movie} 정보 {tell}.
        {movie:은/는} 누가 감독했어요?""",
        """{movie:은/는} {person} 감독의 작품이며 상영 시간은 {minutes}입니다.
        영화 {movie}의 감독은 {person}입니다.""",
    ),
    tool(
        "search_book|find_book|library_search",
        "도서 검색",
        "book:title|book|query",
        "person:author|writer pages:pages|page_count",
        "책 좀 찾아 {give}.",
        """{book} 책 찾아 {give}.
        {book:을/를} 쓴 사람이 누구예요?
        도서관에 {book} 있는지 {tell}.""",
        """{book:은/는} {person} 작가의 책이며 {pages}입니다.
        {book}의 저자는 {person}입니다.""",
    ),
    tool(
        "book_hospital|make_appointment|hospital_reservation",
        "병원 진료 예약",
        "department:department|clinic date:date|day time:time|hour",
        "person:doctor|doctor_name",
        "병원 예약 좀 해 {give}.",
        """{date} {time}에 {department} 예약해 {give}.
        {department} 진료를 {date} {time}에 받고 싶어요.""",
        """{date} {time}에 {department} {person} 선생님 진료를 예약했습니다.
        {department} 예약이 완료되었습니다. 담당은 {person} 선생님입니다.""",
    ),
    tool(
        "calculate_bmi|bmi|check_bmi",
        "체질량 지수 계산",
        "height:height|height_cm weight:weight|weight_kg",
        "score:bmi|score",
        "체질량 지수 계산해 {give}.",
        """키 {height}, 체중 {weight}인데 체질량 지수 {tell}.
        {weight}에 {height:이면/면} 비만인지 {tell}.""",
        """키 {height}, 체중 {weight}의 체질량 지수는 {score}입니다.
        체질량 지수는 {score:으로/로} 계산되었습니다.""",
    ),
    tool(
        "get_calories|food_calories|nutrition_info",
        "열량 조회",
        "food:food|menu|dish",
        "calories:calories|kcal",
        "열량이 얼마인지 {tell}.",
        """{food} 열량 {tell}.
        {food:은/는} 몇 칼로리예요?""",
        """{food}의 열량은 {calories}입니다.
        {food:은/는} 한 그릇에 {calories}입니다.""",
    ),
    tool(
        "search_news|get_news|news_search",
        "뉴스 검색",
        "topic:topic|keyword|query",
        "title:headline|title count:count|total",
        "뉴스 좀 찾아 {give}.",
        """{topic} 관련 뉴스 찾아 {give}.
        요즘 {topic} 소식 {tell}.""",
        """{topic} 관련 뉴스는 '{title}' 등 {count} 있습니다.
        {topic} 소식을 {count} 찾았습니다.""",
    ),
    tool(
        "apply_leave|request_vacation|leave_request",
        "휴가 신청",
        "person:employee|name date:date|start_date",
        "count:remaining|days_left",
        "휴가 신청해 {give}.",
        """{person} 이름으로 {date} 휴가 신청해 {give}.
        {date}에 {person} 휴가 올려 {give}.""",
        """{person}님의 {date} 휴가를 신청했습니다.
        {date} 휴가가 {person}님 이름으로 접수되었습니다.""",
    ),
    tool(
        "find_employee|employee_search|staff_lookup",
        "직원 검색",
        "person:name|employee_name",
        "meeting_room:office|seat company:affiliate|company",
        "직원 한 명 찾아 {give}.",
        """{person} 직원 찾아 {give}.
        {person}님이 어느 회사 소속인지 {tell}.""",
        """{person}님은 {company} 소속입니다.
        {company}에서 일하는 {person}님을 찾았습니다.""",
    ),
    tool(
        "get_points|point_balance|check_points",
        "포인트 조회",
        "person:member|name|customer",
        "points:points|balance",
        "포인트가 몇 점인지 {tell}.",
        """{person} 회원 포인트 {tell}.
        {person} 고객의 포인트가 몇 점인지 {tell}.""",
        """{person} 회원님의 포인트는 {points}입니다.
        현재 {points:이/가} 적립되어 있습니다.""",
    ),
    tool(
        "find_class|search_lecture|course_search",
        "강의 검색",
        "subject:subject|course city:city|region",
        "person:teacher|instructor amount:fee|price",
        "강의 좀 찾아 {give}.",
        """{city}에서 {subject} 강의 찾아 {give}.
        {subject:을/를} 배우고 싶은데 {city} 수업 {tell}.""",
        """{city}의 {subject} 강의는 {person} 강사가 하며 {amount}입니다.
        {subject} 수업은 {amount}이고 강사는 {person}입니다.""",
    ),
    tool(
        "reserve_court|book_sports|sports_booking",
        "체육 시설 예약",
        "sport:sport|activity date:date|day people:people|players",
        "booking:booking_id|code",
        "운동할 곳 예약해 {give}.",
        """{date}에 {people:이/가} {sport} 할 곳 예약해 {give}.
        {sport} 경기장을 {date}에 {people:으로/로} 잡아 {give}.""",
        """{date} {sport} {people} 예약이 끝났습니다. 번호는 {booking}입니다.
        {sport} 경기장을 예약했습니다. 예약 번호는 {booking}입니다.""",
    ),
    tool(
        "change_seat|seat_change|update_seat",
        "좌석 변경",
        "booking:booking_id|reservation_no grade:seat_class|grade",
        "amount:extra|fee",
        "좌석 좀 바꿔 {give}.",
        """예약 번호 {booking} 좌석을 {grade:으로/로} 바꿔 {give}.
        {booking} 예약을 {grade:으로/로} 변경해 {give}.""",
        """{booking} 예약을 {grade:으로/로} 바꿨습니다. 추가 요금은 {amount}입니다.
        {grade:으로/로} 변경되었으며 {amount:이/가} 추가됩니다.""",
    ),
    tool(
        "print_document|print_file|printer",
        "문서 인쇄",
        "title:document|file count:copies|count color:color|ink",
        "minutes:wait|minutes",
        "문서 좀 인쇄해 {give}.",
        """{title} 문서를 {color:으로/로} {count} 인쇄해 {give}.
        {color:으로/로} {title} 문서 {count} 뽑아 {give}.""",
        """{title} 문서를 {count} 인쇄합니다. {minutes} 걸립니다.
        {title} 문서 인쇄를 시작했습니다.""",
    ),
    tool(
        "get_country_info|country_info|country_lookup",
        "국가 정보 조회",
        "country:country|nation|name",
        "time:local_time|time",
        "그 나라 시간이 몇 시인지 {tell}.",
        """{country:은/는} 지금 몇 시예요?
        {country} 현지 시간 {tell}.""",
        """{country}의 현지 시간은 {time}입니다.
        지금 {country:은/는} {time}입니다.""",
    ),
    tool(
        "rent_car|reserve_car|car_rental",
        "차량 대여",
        "city:city|pickup_city size:size|car_size date:date|pickup_date",
        "amount:price|fee booking:booking_id|rental_no",
        "차 좀 빌려 {give}.",
        """{date} {city}에서 {size} 차 빌려 {give}.
        {city}에서 {date}에 {size} 차량 대여해 {give}.""",
        """{date} {city}에서 {size} 차량을 예약했습니다. 요금은 {amount}입니다.
        {size} 차량 대여 번호는 {booking}입니다.""",
    ),
)

# ---------------------------------------------------------------------------------------------
# Chat without tools: questions and answers, one a line; [a|b] is a choice


def topic(questions: str, answers: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A topic of conversation from its table entry."""
    return patterns(questions), patterns(answers)


CHATS = (
    topic(
        """안녕하세요!
        안녕하세요, 저는 {person}입니다.
        [반가워요|처음 뵙겠습니다], {person:이라고/라고} 해요.""",
        """안녕하세요! 무엇을 도와드릴까요?
        [반갑습니다|안녕하세요]. [궁금한 점|필요한 것]이 있으시면 말씀해 주세요.""",
    ),
    topic(
        """너는 누구야?
        자기소개 [부탁해요|해 줘|해 주세요].
        이름이 뭐예요?""",
        """저는 [질문에 답하고|정보를 찾아 드리고] 일을 돕는 인공지능 도우미입니다.
        인공지능 도우미입니다. [글쓰기|번역|계산|일정 관리]도 도와드릴 수 있습니다.""",
    ),
    topic(
        """{country}의 수도는 어디예요?
        {country} 수도 {tell}.
        {country:은/는} 수도가 어디인가요?""",
        """{country}의 수도는 {capital}입니다.
        {capital:이/가} {country}의 수도입니다.""",
    ),
    topic(
        """{country}에서는 어떤 돈을 써요?
        {country}의 화폐 단위 {tell}.""",
        """{country}에서는 {money:을/를} 씁니다.
        {country}의 화폐 단위는 {money}입니다.""",
    ),
    topic(
        """{country}에 가면 뭘 먹어야 해요?
        {country}의 대표 음식 {tell}.
        {country} 음식 하나 추천해 {give}.""",
        """{country}에 가시면 {dish:을/를} 드셔 보세요.
        {country}의 대표 음식으로는 {dish:이/가} 있습니다.""",
    ),
    topic(
        """{word:을/를} 영어로 뭐라고 해요?
        '{word}'의 영어 단어 {tell}.
        {word:은/는} 영어로 무엇인가요?""",
        """{word:은/는} 영어로 '{english}'입니다.
        영어로는 '{english}'라고 합니다.""",
    ),
    topic(
        """{a} 더하기 {b:은/는} 얼마예요?
        {a}에 {b:을/를} 더하면 몇인가요?""",
        """{a} 더하기 {b:은/는} {sum}입니다.
        답은 {sum}입니다.""",
    ),
    topic(
        """{a}, {b}, {c} 중에서 가장 큰 수는?
        {a:과/와} {b} 그리고 {c} 중 제일 큰 것은 무엇인가요?""",
        """가장 큰 수는 {largest}입니다.
        세 수 중 {largest:이/가} 가장 큽니다.""",
    ),
    topic(
        """오늘 [저녁|점심] 메뉴 추천해 {give}.
        [비 오는 날|더운 날|추운 날]에 뭘 먹으면 좋을까요?
        뭘 먹을지 고민이에요.""",
        """[따뜻한|맛있는|든든한] {food:은/는} 어떠세요?
        {food:을/를} 추천합니다. \
        [속이 든든해집니다|기분이 좋아질 거예요|간단히 만들 수 있습니다].""",
    ),
    topic(
        """{food} 만드는 법 {tell}.
        {food:은/는} 어떻게 만들어요?
        집에서 {food:을/를} 만들고 싶어요.""",
        """먼저 재료를 [씻고|다듬고] {minutes} 동안 [끓이세요|볶으세요|익히세요]. \
        [마지막에 간을 맞추면 됩니다|그러면 {food:이/가} 완성됩니다].
        {food:은/는} 재료를 준비한 뒤 {minutes} 정도 [끓이면|볶으면|익히면] 됩니다.""",
    ),
    topic(
        """{city:으로/로} 여행을 가려고 해요.
        {city} 여행에서 [볼거리|가볼 만한 곳|할 일] {tell}.
        주말에 {city}에 가는데 추천해 {give}.""",
        """{city}에서는 [시장을|바닷가를|박물관을|공원을|전망대를] \
        둘러보고 {food:을/를} 드셔 보세요.
        {city}에 가시면 [산책을|사진 찍기를|시장 구경을] 추천합니다. \
        {nights} 일정이면 [충분합니다|넉넉합니다].""",
    ),
    topic(
        """{subject} 공부는 어떻게 해야 하나요?
        {subject} 성적을 올리고 싶어요.
        {subject} 공부 방법 {tell}.""",
        """{subject:은/는} 매일 {minutes}씩 [꾸준히 공부하는|문제를 푸는|복습하는] 것이 좋습니다.
        먼저 기본 개념을 익히고 [문제를 많이 풀어|배운 내용을 정리해|친구에게 설명해] 보세요.""",
    ),
    topic(
        """{sport:을/를} 시작하고 싶어요.
        {sport:은/는} 건강에 좋은가요?
        운동으로 {sport:은/는} 어때요?""",
        """{sport:은/는} [체력을 기르는|스트레스를 푸는|체중을 줄이는] 데 좋습니다. \
        하루 {minutes}부터 시작해 보세요.
        네, {sport:은/는} 좋은 운동입니다. [준비 운동을|물 마시기를] 잊지 마세요.""",
    ),
    topic(
        """요즘 잠을 잘 못 자요.
        [스트레스가 심해요|너무 피곤해요|기운이 없어요].
        [걱정이 많아요|기분이 우울해요].""",
        """많이 힘드셨겠어요. [가벼운 산책|따뜻한 차 한 잔|충분한 휴식]이 도움이 될 수 있습니다.
        그러셨군요. 하루 {minutes} 정도 [쉬어|걸어|명상을 해] 보시는 것은 어떨까요?""",
    ),
    topic(
        """읽을 만한 책 추천해 {give}.
        [휴가|주말|출퇴근길]에 읽을 책이 있을까요?""",
        """책 {book:을/를} 추천합니다. [읽기 쉽고|내용이 깊고|재미있고] \
        {pages:이라/라} [부담이 없습니다|알맞습니다].
        책 {book:은/는} 어떠세요? [많은 분이 좋아하는|쉽게 읽히는] 책입니다.""",
    ),
    topic(
        """볼 만한 영화 {tell}.
        {person:과/와} 볼 영화 추천해 {give}.""",
        """영화 {movie:을/를} 추천합니다. 상영 시간은 {minutes}입니다.
        영화 {movie:은/는} 어떠세요? [감동적인|재미있는|따뜻한] 영화입니다.""",
    ),
    topic(
        """{product:을/를} 환불하고 싶어요.
        {product:이/가} 고장 났어요.
        어제 산 {product}에 문제가 있어요.""",
        """불편을 드려 죄송합니다. 구매 후 [7일|14일] 안에 [환불|교환]하실 수 있습니다.
        죄송합니다. {product}의 주문 번호를 알려 주시면 [확인해|처리해] 드리겠습니다.""",
    ),
    topic(
        """배송은 얼마나 걸려요?
        {product:은/는} 언제 도착하나요?
        배송비가 얼마인가요?""",
        """배송은 보통 [2일|3일]에서 [4일|5일] 걸리며 배송비는 [2500원|3000원|4000원]입니다.
        [30000원|50000원|70000원] 이상 주문하시면 배송비가 무료입니다.""",
    ),
    topic(
        """{product:이/가} {amount}인데 살까요?
        {amount}짜리 {product} 어때요?""",
        """{amount:이면/면} [괜찮은|적당한|조금 비싼] 가격입니다. \
        다른 {product:과/와} 비교해 보세요.
        {product:이/가} 꼭 필요하시면 [사셔도 좋습니다|할인을 기다려 보세요].""",
    ),
    topic(
        """{title} 안내문을 써 {give}.
        {title} 공지 [메일|문자] 작성해 {give}.
        {date} {time}에 있는 {title:을/를} 알리는 글을 써 {give}.""",
        """안녕하세요. {date} {time}에 {title:이/가} 있습니다. \
        [많은 참석|시간 확인] 부탁드립니다. 감사합니다.
        [알려 드립니다|공지합니다]. {title:은/는} {date} {time}에 진행합니다. \
        장소는 {meeting_room}입니다.""",
    ),
    topic(
        """{topic:이란/란} 무엇인가요?
        {topic}에 대해 설명해 {give}.
        {topic:이/가} 왜 중요한가요?""",
        """{topic:은/는} [우리 생활|경제|미래 사회]에 큰 영향을 주는 주제입니다. \
        [꾸준한 관심이 필요합니다|함께 고민해야 합니다].
        {topic:은/는} 요즘 [많은 사람이|여러 나라가|전문가들이] 관심을 갖는 분야입니다.""",
    ),
    topic(
        """고마워요.
        [도와줘서|알려 줘서] 고마워요.
        정말 감사합니다.""",
        """[별말씀을요|천만에요]. 더 필요한 것이 있으면 말씀해 주세요.
        도움이 되어 기쁩니다. [좋은 하루 보내세요|또 찾아 주세요].""",
    ),
    topic(
        """제 전화번호는 <|telephone|>입니다.
        계좌는 <|bank_account|>이고 이름은 {person}입니다.
        주민등록번호는 <|resident_reg|>입니다.
        카드 번호 <|credit_card|>로 결제해 {give}.
        여권 번호는 <|passport|>, 면허 번호는 <|driver_license|>입니다.
        사업자 번호 <|business_reg|>로 등록해 {give}.""",
        """확인했습니다. 개인 정보는 안전하게 [보호|보관]하겠습니다.
        [네, |]말씀하신 정보를 확인했습니다. \
        [다음 단계를 안내해 드리겠습니다|잠시만 기다려 주세요].""",
    ),
)

SYSTEMS = (
    "당신은 친절한 인공지능 도우미입니다.",
    "당신은 {company}의 고객 상담원입니다. [정중하게|친절하게] 답하세요.",
    "{company} 상담 챗봇입니다. 고객의 질문에 [짧고 정확하게|존댓말로] 답하세요.",
    "항상 한국어로 [간결하게|친절하게] 답변하세요.",
    "오늘 날짜는 {date}입니다.",
    "현재 시각은 {date} {time}입니다. 사용자는 {city}에 있습니다.",
    "사용자의 이름은 {person}입니다.",
    "당신은 [여행|요리|건강|학습|쇼핑] 분야의 전문가입니다.",
)
# A system prompt that changes the answer, so that the model learns to heed it: before and after.
HOUSE_STYLES = (
    ("답변은 '고객님,'으로 시작하세요.", "고객님, ", ""),
    ("답변 끝에 '감사합니다.'를 붙이세요.", "", " 감사합니다."),
    ("답변을 '네,'로 시작하세요.", "네, ", ""),
    (
        "상담원 이름은 {person}입니다. 답변 끝에 이름을 밝히세요.",
        "",
        " 상담원 {person:이었/였}습니다.",
    ),
)
OPENERS = (
    "",
    "",
    "",
    "",
    "",
    "",
    "안녕하세요. ",
    "혹시 ",
    "저기요, ",
    "부탁이 있어요. ",
    "급해요. ",
)
ASK_BACK = (
    "{labels:을/를} 알려 주시겠어요?",
    "{topic:을/를} 도와드리려면 {labels:이/가} 필요합니다. 알려 주시겠어요?",
    "네, 먼저 {labels:을/를} 말씀해 주세요.",
)
CANNOT = (
    "죄송합니다. {topic} 기능은 제공되지 않아 도와드릴 수 없습니다.",
    "죄송하지만 지금은 {topic:을/를} 도와드릴 수 없습니다.",
    "{topic} 기능은 없습니다. 다른 도움이 필요하시면 말씀해 주세요.",
)
PROSE = (
    "{company:은/는} {date}에 {city}에서 새로운 {product:을/를} 선보였다.",
    "가격은 {amount:으로/로} 정해졌으며 {count:이/가} 먼저 판매된다.",
    "{person} 대표는 {topic} 분야에 {amount:을/를} 투자하겠다고 밝혔다.",
    "{city}의 기온은 {degrees:으로/로} 예상되며 하늘은 {sky} 상태이다.",
    "{from}에서 {to}까지의 거리는 {distance}이고 {minutes} 정도 걸린다.",
    "{person:은/는} {book:을/를} 읽고 {pages} 분량의 글을 썼다.",
    "{city}에서는 {sport} 대회가 {date}에 열린다.",
    "이 지역에서는 {food:이/가} 유명하며 {restaurant:이/가} 잘 알려져 있다.",
    "{topic:은/는} 앞으로 {percent} 늘어날 것으로 보인다.",
    "회사는 {months} 동안 {subject} 교육을 제공하기로 했다.",
)

# ---------------------------------------------------------------------------------------------
# Conversations


def expand(rng: random.Random, pattern: str) -> str:
    """Settle the [a|b] choices of a pattern."""
    return re.sub(r"\[([^\]]+)\]", lambda match: rng.choice(match[1].split("|")), pattern)


def world(rng: random.Random) -> dict[str, str]:
    """One spoken value for every slot that chat patterns use."""
    spoken = {kind: slot.make(rng)[0] for kind, slot in SLOTS.items()}
    spoken["from"], spoken["to"] = rng.sample(STATIONS, 2)
    spoken["capital"], spoken["money"], spoken["dish"] = COUNTRIES[spoken["country"]]
    spoken["english"] = VOCABULARY[spoken["word"]]
    numbers = rng.sample(range(1, 100), 3)
    spoken["largest"] = str(max(numbers))
    if rng.random() < 0.5:  # small enough for a small model to know by heart
        numbers[:2] = rng.randint(1, 9), rng.randint(1, 9)
        spoken["largest"] = str(max(numbers))
    spoken.update(zip("abc", map(str, numbers), strict=True))
    spoken["sum"] = str(numbers[0] + numbers[1])
    return spoken


def user(content: str) -> Message:
    """A user's turn."""
    return {"role": "user", "content": content}


def assistant(content: str, calls: list[Message] | None = None) -> Message:
    """An assistant's turn, with its tool calls if it has any."""
    message = {"role": "assistant", "content": content}
    return {**message, "tool_calls": calls} if calls else message


def system_turn(rng: random.Random) -> tuple[Message, str, str]:
    """A system turn and what it adds before and after every answer."""
    spoken = world(rng)
    before = after = ""
    content = fill(rng, expand(rng, rng.choice(SYSTEMS)), spoken)
    if rng.random() < 0.4:
        style, before, after = (fill(rng, part, spoken) for part in rng.choice(HOUSE_STYLES))
        content = style if rng.random() < 0.5 else f"{content} {style}"
    return {"role": "system", "content": content}, before, after


def chat_exchange(rng: random.Random) -> tuple[str, str]:
    """A question and its answer that need no tool."""
    questions, answers = rng.choice(CHATS)
    spoken = world(rng)
    return tuple(
        fill(rng, expand(rng, rng.choice(table)), spoken) for table in (questions, answers)
    )


def chat(rng: random.Random) -> Conversation:
    """A conversation without tools, of one to four exchanges."""
    messages, before, after = [], "", ""
    if rng.random() < 0.5:
        turn, before, after = system_turn(rng)
        messages.append(turn)
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        question, answer = chat_exchange(rng)
        messages += [user(question), assistant(before + answer + after)]
    return {"messages": messages}


@dataclass(frozen=True)
class Listed:
    """A tool as one prompt lists it: one of its names, one for each parameter and result."""

    tool: Tool
    schema: dict[str, Any]
    params: dict[str, str]
    results: dict[str, str]

    @classmethod
    def draw(cls, rng: random.Random, tool: Tool) -> "Listed":
        """Choose the names."""
        params = {field.role: rng.choice(field.names) for field in tool.params}
        results = {field.role: rng.choice(field.names) for field in tool.results}
        described = rng.random() < 0.5
        properties = {
            params[field.role]: {"type": SLOTS[field.kind].json_type}
            | ({"description": field.label} if described else {})
            for field in tool.params
        }
        schema = {
            "type": "function",
            "function": {
                "name": rng.choice(tool.names),
                "description": tool.description,
                "parameters": {
                    "type": "object",
                    "properties": properties,
                    "required": list(properties),
                },
            },
        }
        return cls(tool, schema, params, results)


def draw_values(rng: random.Random, tool: Tool) -> dict[str, Value]:
    """Values for a tool's parameters; two of the same kind differ."""
    values: dict[str, Value] = {}
    for field in tool.params:
        value = SLOTS[field.kind].make(rng)
        while value in values.values():
            value = SLOTS[field.kind].make(rng)
        values[field.role] = value
    return values


@dataclass(frozen=True)
class Use:
    """One use of a tool: its request, call, result and answer."""

    request: str
    call: Message
    result: str
    answer: str
    values: tuple[str, ...]

    @classmethod
    def draw(cls, rng: random.Random, listed: Listed) -> "Use":
        """Draw the values and what is said about them."""
        tool = listed.tool
        values = draw_values(rng, tool)
        found = {field.role: SLOTS[field.kind].make(rng) for field in tool.results}
        spoken = {role: value[0] for role, value in (values | found).items()}
        arguments = {listed.params[role]: value for role, (_, value) in values.items()}
        result = {listed.results[role]: value for role, (_, value) in found.items()}
        name = listed.schema["function"]["name"]
        return cls(
            fill(rng, rng.choice(tool.asks), spoken),
            {"type": "function", "function": {"name": name, "arguments": arguments}},
            json.dumps(result, ensure_ascii=False),
            fill(rng, rng.choice(tool.answers), spoken),
            tuple(value[0] for value in values.values()),
        )


def tool_exchange(
    rng: random.Random, listed: list[Listed], before: str, after: str, last: bool
) -> Iterator[Message]:
    """One exchange about the listed tools; the last one may end with its call."""
    shape = rng.choices(("one", "two", "missing", "cannot", "chat"), (58, 14, 14, 8, 6))[0]
    opener = rng.choice(OPENERS)
    if shape == "chat":
        question, answer = chat_exchange(rng)
        yield from (user(question), assistant(before + answer + after))
        return
    if shape == "cannot":
        here = {one.tool for one in listed}
        other = rng.choice([tool for tool in TOOLS if tool not in here])
        request = Use.draw(rng, Listed.draw(rng, other)).request
        reply = fill(rng, rng.choice(CANNOT), {"topic": other.label})
        yield from (user(opener + request), assistant(before + reply + after))
        return

    chosen = rng.choice(listed)
    uses = [Use.draw(rng, chosen)]
    if shape == "two":
        uses.append(Use.draw(rng, rng.choice(listed)))
        joint = rng.choice((" 그리고 ", " 또 ", " "))
        yield user(opener + joint.join(use.request for use in uses))
    elif shape == "missing":
        yield user(opener + fill(rng, chosen.tool.bare, {}))
        labels = ", ".join(field.label for field in chosen.tool.params)
        asked = {"labels": labels, "topic": chosen.tool.label}
        yield assistant(before + fill(rng, rng.choice(ASK_BACK), asked) + after)
        given = ", ".join(uses[0].values)
        ending = rng.choice(("입니다.", "{given:이요/요}.", "", "{given:으로/로} 해 주세요."))
        yield user(fill(rng, ending, {"given": given}) if "{" in ending else given + ending)
    else:
        yield user(opener + uses[0].request)
    yield assistant("", [use.call for use in uses])
    if last and rng.random() < 0.2:
        return
    yield from ({"role": "tool", "content": use.result} for use in uses)
    yield assistant(before + " ".join(use.answer for use in uses) + after)


def tool_chat(rng: random.Random) -> Conversation:
    """A conversation with one to five tools listed, of one to three exchanges."""
    listed = [Listed.draw(rng, tool) for tool in rng.sample(TOOLS, rng.randint(1, 5))]
    messages, before, after = [], "", ""
    if rng.random() < 0.25:
        turn, before, after = system_turn(rng)
        messages.append(turn)
    exchanges = rng.choice((1, 2, 2, 3, 3))
    for index in range(exchanges):
        messages += tool_exchange(rng, listed, before, after, index + 1 == exchanges)
    return {"messages": messages, "tools": [one.schema for one in listed]}


def thinking(rng: random.Random) -> Conversation:
    """A sum worked out between think tags, asked for by the system turn."""
    a, b, c = (rng.randint(1, 9) for _ in range(3))
    thought = (
        f"{a} 더하기 {b}{particle(str(b), '은/는')} {a + b},"
        f" 여기에 {c}{particle(str(c), '을/를')} 더하면 {a + b + c}이다."
    )
    return {
        "messages": [
            {"role": "system", "content": "먼저 생각을 적고 답하세요."},
            user(f"{a}, {b}, {c}의 합은 얼마예요?"),
            assistant(f"<think>\n{thought}\n</think>\n\n합은 {a + b + c}입니다."),
        ]
    }


def prose(rng: random.Random) -> Conversation:
    """A short news text, for the plain-text side of training."""
    lines = rng.sample(PROSE, rng.randint(2, 5))
    return {"text": " ".join(fill(rng, line, world(rng)) for line in lines)}


def drill(rng: random.Random) -> Conversation:
    """A short exercise in copying: repeat, look up, write or read JSON, or choose a tool.

    Calling a tool is these skills together. In short documents a small model learns them with a
    fraction of the tokens that it needs when they come only inside long lists of tools.
    """
    listed = [Listed.draw(rng, tool) for tool in rng.sample(TOOLS, rng.randint(2, 4))]
    entries = {}  # parameter name -> label, how it is said, value
    for field in (field for one in listed for field in one.tool.params):
        entries[rng.choice(field.names)] = (field.label, *SLOTS[field.kind].make(rng))
    names = rng.sample(sorted(entries), min(len(entries), rng.randint(1, 4)))
    chosen = {name: entries[name] for name in names}
    label, said, _ = chosen[names[0]]
    asked = rng.choice(names)
    as_json = json.dumps(
        {name: value for name, (_, _, value) in chosen.items()}, ensure_ascii=False
    )
    shape = rng.choice(("repeat", "look up", "write", "write", "write", "read", "choose", "choose"))
    if shape == "repeat":
        given = " ".join(said for _, said, _ in chosen.values())
        question, answer = f"그대로 따라 하세요: {given}", given
    elif shape == "look up":
        pairs = rng.sample([f"{label} {said}" for label, said, _ in chosen.values()], len(names))
        question, answer = f"{', '.join(pairs)}. {label}?", f"{said}입니다."
    elif shape == "write":
        pairs = rng.sample([f"{name} {said}" for name, (_, said, _) in chosen.items()], len(names))
        question = f"{', '.join(pairs)}. {', '.join(names)} 순서로 JSON을 써 줘."
        answer = as_json
    elif shape == "read":
        question, answer = f"{as_json}\n{asked} 값은?", f"{chosen[asked][1]}입니다."
    else:
        use = Use.draw(rng, listed[0])
        lines = [f"{one.schema['function']['name']}: {one.tool.label}" for one in listed]
        question = "\n".join((*rng.sample(lines, len(lines)), use.request, "무엇을 쓸까요?"))
        answer = use.call["function"]["name"]
    return {"messages": [user(question), assistant(answer)]}


Maker = Callable[[random.Random], Conversation]
# The makers of documents and how often each is drawn. The tokenizer learns from the first alone:
# drills hold no word of their own.
PLAIN_MIX: dict[Maker, int] = {tool_chat: 70, chat: 24, thinking: 2, prose: 4}
TRAINING_MIX: dict[Maker, int] = {tool_chat: 42, chat: 20, thinking: 1, prose: 3, drill: 34}


def corpus(seed: int, mix: Mapping[Maker, int] = PLAIN_MIX) -> Iterator[Conversation]:
    """Documents without end, always the same ones for a seed and a mix.

    Yields:
        `{"messages": [...]}`, many of them with `"tools": [...]`, or `{"text": ...}` for prose.
    """
    rng = random.Random(seed)
    makers, shares = list(mix), list(mix.values())
    while True:
        yield rng.choices(makers, shares)[0](rng)
