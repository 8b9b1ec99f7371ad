"""The nine kinds of personal data that the models have mask tokens for, and what names them.

A label says what the number beside it is: in Korean or English, in a sentence, as a table's header
or as a JSON key. A label of something else (an order, an invoice, a serial number) is a veto.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Literal, NamedTuple, get_args

Kind = Literal[
    "resident_reg",
    "foreigner_reg",
    "business_reg",
    "credit_card",
    "passport",
    "driver_license",
    "telephone",
    "health_insurance",
    "bank_account",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
MASKS: dict[str, str] = {kind: f"<|{kind}|>" for kind in KINDS}
VETO = "veto"  # what a label of something else stands for


class Label(NamedTuple):
    """Words that name a kind.

    Attributes:
        kind: What they name, one of `KINDS` or `VETO`.
        words: In lower case, each beginning with a plain letter. A space may be left out, ``_`` is
            a space, a hyphen, an underscore or nothing, ``#`` a word for "number" or nothing,
            ``@`` such a word or "id".
        tight: Whether they count only right beside a number, since they have other senses.
    """

    kind: str
    words: tuple[str, ...]
    tight: bool = False


_LABELS = (
    Label("resident_reg", (
        "주 민 등 록 번 호", "주민 등록증?#", "주민#", "주번", "rrn#", "jumin#", "ssn#",
        "resident_registration_#", "resident_reg_#", "resident_#", "national_id_#", "regist_no",
        "social_security_#", "id_card_#", "신분증#", "ihidnum", "rrno", "juminbunho",
        "citizen_#",
    )),
    Label("foreigner_reg", (
        "외 국 인 등 록 번 호", "외국인 등록증?#", "외국인#", "등록 외국인#", "거소 신고#",
        "거소#", "alien_registration_#", "alien_reg_#", "alien_#", "arc_#", "arn",
        "foreigner_reg_#", "foreigner_registration_#", "foreigner_#", "residence_card_#",
        "foreign_reg_#", "frn#", "frgn_#",
    )),
    Label("business_reg", (
        "사 업 자 등 록 번 호", "사업자 등록증?#", "사업자#", "사업장#", "biz_reg_#", "biz_#",
        "business_registration_#", "business_reg_#", "business_#", "brn#", "bsn_no", "bizr_no",
        "tax_id_#", "tax_payer_#", "tin#", "saupja_#", "tax_no", "vat_#", "고유 번호",
        "company_reg_#",
    )),
    Label("credit_card", (
        "신용 카드#", "체크 카드#", "카드#", "아멕스", "credit_card_#", "debit_card_#",
        "card_#", "cc_no", "cc_num", "cc_number", "credit_#", "debit_#", "pan", "amex", "visa",
        "mastercard", "payment_card_#", "결제",
    )),
    Label("passport", (
        "여 권 번 호", "여권#", "passport_#", "ppt_#", "pspt_#", "psprt_#", "paspt_#", "pp_no",
        "패스포트#", "travel_document_#", "travel_doc_#",
    )),
    Label("driver_license", (
        "운 전 면 허", "운전 면허증?#", "면허증?#", "driver'?s?_licen[sc]e_#", "driver_lic_#",
        "lcns_#", "driving_licen[sc]e_#", "licen[sc]e_#", "lic_no", "lic_num", "dl_no",
        "dl_num", "dl_#", "drv_lic_#", "drivers?_#",
    )),
    Label("telephone", (
        "연 락 처", "연락#", "전 화", "전화#", "휴대 폰#", "휴대 전화#", "핸드폰#", "폰#",
        "모바일#", "휴대#", "대표 번호", "팩스#", "고객 센터", "콜 센터", "상담 센터", "직통#",
        "비상 연락망", "안심 번호", "문자", "발신#", "수신#", "회선#", "전번", "tel_#",
        "telephone_#", "phone_#", "mobile_#", "cell_phone_#", "cellphone_#", "cell_#", "hp#",
        "h\\.p\\.?", "handphone_#", "contact_#", "msisdn", "callee", "caller_#", "calling_#",
        "called_#", "ani", "dnis", "sms", "mms", "fax_#", "whatsapp", "receiver_#", "sender_#",
        "recipient_#", "line_no", "hotline", "통화", "콜백#",
    )),
    Label("telephone", (
        "t\\.?", "m\\.?", "h\\.?", "f\\.?", "p\\.?", "c\\.?p\\.?", "문의", "to", "from",
    ), tight=True),
    Label("health_insurance", (
        "건 강 보 험", "건강 보험증?#", "건보#", "보험증#", "의료 보험증?#", "의료 급여증?#",
        "보험 자격#", "health_insurance_card_#", "health_insurance_cert_#",
        "health_insurance_#", "health_ins_#", "insurance_card_#", "insurance_#", "ins_card_#",
        "nhis_card_#", "nhis_#", "nhic_#", "nhi_#", "insu_#", "hins_#", "medical_card_#",
        "medical_insurance_#", "hi_no", "hi_num", "hi_number", "insured_#", "hi_card_#",
        "health_card_#",
    )),
    Label("bank_account", (
        "계 좌 번 호", "계좌#", "통장#", "예금주", "입금", "송금", "이체", "출금", "account_#",
        "acct_#", "acc_no", "acc_num", "acnt_#", "accnt_#", "acno", "bank_account_#",
        "bank_acct_#", "bank_#", "bankname", "deposit_#", "virtual_account_#", "payee_#",
        "은행", "뱅크", "금고", "우체국", "농협", "수협", "신협", "축협", "저축 은행", "카뱅",
        "케뱅", "토뱅", "shinhan", "woori", "kookmin", "kakao", "ibk", "nonghyup", "iban",
        "withdrawal_#", "자동 납부",
    )),
    Label("bank_account", (
        "우리", "국민", "신한", "하나", "기업", "제일", "씨티", "산업", "증권", "대구", "부산",
        "경남", "광주", "전북", "제주", "토스", "새마을", "kb", "nh", "kdb", "sc", "mg", "hana",
        "toss", "im뱅크", "환불", "월급", "급여", "한국투자", "미래에셋", "키움",
    ), tight=True),
    Label("health_insurance", (
        "증 번호",
    ), tight=True),
    Label(VETO, (
        "금액", "잔액", "송금액", "입금액", "출금액", "한도", "수수료", "합계", "총액", "원금",
        "이자",
    ), tight=True),
    Label(VETO, (
        "주문#", "송장#", "운송장#", "등기@", "법 인 등 록#", "법인 등록#", "법인@", "시리얼#",
        "일련@", "제조@", "제품@", "버전", "승인@", "접수@", "관리@", "청구@", "고객@", "회원@",
        "학번", "학생@", "사번", "사원@", "직원@", "계약@", "증권 번호", "보험 증권#", "증서@",
        "자재#", "부품#", "품목#", "품번", "모델#", "모델명", "상품@", "상품 바코드", "바코드#",
        "유심@", "지점@", "은행 코드", "우편@", "특허#", "출원#", "사건@", "판결", "허가@",
        "납세@", "납부@", "고지@",
        "신고@", "통신 판매업?#", "문서@", "티켓@", "예약@", "쿠폰#", "로또", "좌표", "위경도",
        "위도", "경도", "거래@", "인증@", "참조@", "추적@", "배송@", "물품@", "재고@", "장비@",
        "자산@", "차대@", "차량@", "공고@", "입찰@", "과제@", "강의@", "도서@", "포인트@",
        "포인트 카드#", "멤버십#", "멤버십 카드#", "마일리지#", "교통 카드#", "기프트#",
        "상품권@", "라이선스#", "라이센스#", "제품 키", "연번", "순번", "전표#", "영수증#",
        "신청@", "민원@", "의안@", "고시@", "결재@", "표본", "패치", "포트", "생산@", "배치@",
        "로트#", "검사@", "통관#", "화물@", "컨테이너#", "항공권#", "편명", "요청@", "세션#",
        "단말@", "기기@", "장치@", "노드@", "라우터", "주파수", "가맹점@", "도면#", "카탈로그#",
        "규격#", "실험@", "시료#", "논문@", "등록 특허", "상표@", "디자인@", "건축@", "필지@",
        "지번", "도로명", "국가 코드", "해시#", "체크섬", "커밋", "타임 스탬프", "코드#",
        "좌석#", "객실#", "사물함#", "라커#", "셀@", "수험#", "환자@", "차트@", "진료@",
        "병록@", "차량 등록#", "조합원@", "단체@", "기관@", "업체@", "거래처@", "점포@",
        "매장@", "지사@", "부서@", "대출@", "펀드@", "종목@", "여신@", "채권@", "조회@",
        "전문@", "계산서@", "cell_id", "pci", "earfcn", "tac", "enb_#", "gnb_#",
        "loan_#", "order_#", "order_id", "invoice_#", "inv_no", "tracking_#", "waybill_#",
        "shipment_#", "shipping_#", "parcel_#", "serial_#", "s/n", "sn", "version", "ver",
        "build", "approval_#", "auth_code", "receipt_#", "ticket_#", "coupon_#", "voucher_#",
        "booking_#", "reservation_#", "pnr", "customer@", "cust_no", "cust_id", "member@",
        "user_id", "account_id", "student@", "employee@", "emp_no", "emp_id", "contract@",
        "policy_#", "product@", "item@", "sku", "part@", "p/n", "model@", "barcode", "ean",
        "upc", "gtin", "isbn", "issn", "imei", "imsi", "iccid", "usim", "meid", "mac", "ip",
        "ip_addr", "ip_address", "port", "branch@", "branch", "zip_code", "zip", "postal_code",
        "patent_#", "case@", "document@", "doc_no", "doc_id", "transaction@", "transaction",
        "txn_id", "tx_id", "tid", "trace_id", "request_id", "req_id", "session_id",
        "message_id", "msg_id", "hash", "blob", "commit", "sha1", "sha256", "md5", "uuid",
        "guid", "token", "timestamp", "ts", "epoch", "lot_#", "batch_#", "asset@", "device_id",
        "device@", "vin", "corp_#", "corporate_#", "corporate_registration_#", "corporation_#",
        "corporate_reg_#", "license_key", "licence_key", "product_key", "ref_#", "reference_#",
        "coordinates?", "coords?", "lat", "lng", "lon", "latitude", "longitude", "range",
        "point@", "membership_#", "gift_card_#", "bid_#", "po_#", "seq_#", "sequence_#", "idx",
        "index", "etag", "checksum", "mid", "merchant_id", "terminal_id", "bank_code",
        "branch_code", "crn", "amount", "price", "total", "size", "count",
    )),
)  # fmt: skip

_NUMBER = r"[_ \-]?(?:numbers?|nums?|nos?)\.?| ?번호| ?넘버"
_SIGNS = {
    "_": r"[_ \-]?",
    " ": " ?",
    "#": f"(?:{_NUMBER})?",
    "@": rf"(?:{_NUMBER}|[_ \-]?id| ?코드| ?아이디)",
}


def _compiled() -> tuple[re.Pattern[str], tuple[Label, ...]]:
    """One pattern of all labels, and the label of each of its groups."""
    # By their first letter, so that most places of a text are passed at once; and longer ones
    # first, which a shorter one would hide.
    by_letter: dict[str, list[tuple[str, Label]]] = defaultdict(list)
    for label in _LABELS:
        for word in label.words:
            by_letter[word[0]].append((word, label))
    branches: list[str] = []
    order: list[Label] = []
    for letter, words in by_letter.items():
        words.sort(key=lambda one: _length(one[0]), reverse=True)
        rests = ["".join(_SIGNS.get(sign, sign) for sign in word[1:]) for word, _ in words]
        branches.append(f"{letter}(?:{'|'.join(f'({rest})' for rest in rests)})")
        order += [label for _, label in words]
    return re.compile("|".join(branches)), tuple(order)


def _length(word: str) -> int:
    """How many letters a word has at least."""
    return len(re.sub(r"\\.\?|.\?|[_ #]", "", word))


LABELS, LABEL_OF_GROUP = _compiled()
