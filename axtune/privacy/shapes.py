"""Stretches of folded text that have the form of a kind, and how much the form alone says.

Everything here looks at text in lower case, folded by `axtune.privacy.fold`. Every pattern is
bounded or has one way to match, so that no text makes it slow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple

from axtune.privacy import checksums
from axtune.privacy.kinds import Kind


class Strength(IntEnum):
    """What it takes for a shape to be what it looks like.

    Attributes:
        SURE: It is, unless a veto stands right before it.
        LIKELY: It is, unless a veto stands close.
        LABELLED: Only where its own kind is the nearest label.
        BESIDE: Only where a label of its own kind stands right beside it.
    """

    SURE = 0
    LIKELY = 1
    LABELLED = 2
    BESIDE = 3


class Candidate(NamedTuple):
    """A stretch of folded text that may be of a kind."""

    begin: int
    end: int
    kind: Kind
    strength: Strength


# Digits with what people put between them; shapes are sought in these only.
_ISLAND = re.compile(r"[(+]?[0-9]+(?:[\s\-./()_]{1,5}[0-9]+)*")
_BEFORE = r"(?<![0-9a-z])(?<![0-9][-.])"
_BEHIND = r"(?![0-9a-z])(?![-.][0-9])"
_SEP = r"(?:\s{0,2}[-./_]\s{0,2}|\s)"  # a line may end at it
# A letter that says what follows: T010-1234-5678.
_TOLD = r"(?:(?<![0-9a-z])(?<![0-9][-.])|(?<=(?<![0-9a-z])[tmhpfc])|(?<=tel)|(?<=hp)|(?<=fax))"

_ABROAD = re.compile(
    rf"(?:\+|(?<![0-9a-z])(?:00)?)82[ \-.)]{{0,2}}\(?0?\)?[ \-]?\(?"
    rf"(?:1[016-9]|2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|[78]0|50[2-8])\)?{_SEP}?"
    rf"[0-9]{{3,4}}{_SEP}?[0-9]{{4}}{_BEHIND}"
)
_ELSEWHERE = re.compile(
    r"(?<![0-9a-z])\+(?!82)[1-9][0-9]{0,2}(?:[ \-.]\(?[0-9]{1,4}\)?){1,4}[0-9]{0,6}" + _BEHIND
)
_MOBILE = re.compile(
    rf"{_TOLD}(?:\(01[016-9]\)\s?|01[016-9](?:\)\s?|{_SEP}))[0-9]{{3,4}}{_SEP}[0-9]{{4}}{_BEHIND}"
)
_MOBILE_RUN = re.compile(
    rf"{_TOLD}(?:010{_SEP}?[0-9]{{4}}{_SEP}?[0-9]{{4}}|01[16-9]{_SEP}?[0-9]{{7,8}}){_BEHIND}"
)
_AREA = r"0(?:2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|[678]0|[35]0[0-9]?)"
_LINE = re.compile(
    rf"{_TOLD}(?:\({_AREA}\)\s?|{_AREA}(?:\)\s?-?|{_SEP}))[0-9]{{3,4}}{_SEP}[0-9]{{4}}{_BEHIND}"
)
_LINE_RUN = re.compile(rf"{_TOLD}{_AREA}[ \-]?[0-9]{{3,4}}[ \-]?[0-9]{{4}}{_BEHIND}")
_SERVICE = re.compile(
    r"(?<![0-9a-z])(?<![0-9][-.])"
    r"1(?:5(?:2[0-9]|33|44|66|77|88|99)|6(?:00|11|22|33|44|55|6[0168]|7[07]|88|99)|"
    rf"8(?:00|11|22|33|44|55|66|77|88|99))(?:(\s?-\s?)|[ .])?[0-9]{{4}}{_BEHIND}"
)
_YEARS = re.compile(r"(1[0-9]{3})\s?-\s?(1[0-9]{3}|20[0-4][0-9])")
_LOCAL = re.compile(rf"{_BEFORE}[2-9][0-9]{{2,3}}-[0-9]{{4}}{_BEHIND}")
_NO_ZERO = re.compile(rf"{_BEFORE}1[016-9](?:[0-9]{{8}}|-[0-9]{{3,4}}-[0-9]{{4}}){_BEHIND}")

_RESIDENT = re.compile(rf"{_BEFORE}[0-9]{{6}}(\s{{0,2}}[-./_~]?\s{{0,2}})[0-9]{{7}}{_BEHIND}")
_RESIDENT_APART = re.compile(rf"{_BEFORE}[0-9](?: [0-9]){{5}} ?-? ?[0-9](?: [0-9]){{6}}{_BEHIND}")
_RESIDENT_SHORT = re.compile(rf"{_BEFORE}[0-9]{{11,12}}{_BEHIND}")
_BUSINESS = re.compile(rf"{_BEFORE}[0-9]{{3}}({_SEP}?)[0-9]{{2}}{_SEP}?[0-9]{{5}}{_BEHIND}")
_CARD = re.compile(
    rf"{_BEFORE}(?:[0-9]{{4}}({_SEP}?)[0-9]{{4}}({_SEP}?)[0-9]{{4}}({_SEP}?)[0-9]{{4}}"
    rf"|[0-9]{{4}}({_SEP}?)[0-9]{{6}}({_SEP}?)[0-9]{{4,5}}){_BEHIND}"
)
_LICENCE = re.compile(
    rf"{_BEFORE}[0-9]{{2}}({_SEP}?)[0-9]{{2}}({_SEP}?)[0-9]{{6}}({_SEP}?)[0-9]{{2}}{_BEHIND}"
)
_LICENCE_AT = re.compile(rf"(?<![0-9])[0-9]{{2}}{_SEP}?[0-9]{{6}}{_SEP}?[0-9]{{2}}{_BEHIND}")
_REGION = re.compile(
    r"(?:서울|부산|경기(?:[남북]부)?|강원|충북|충남|전북|전남|경북|경남|제주|대구|인천|광주|대전|울산"
    r"|세종)[ \-]{0,2}$"
)
_HEALTH = re.compile(
    rf"{_BEFORE}[1-9](?:\s?-\s?| )?(?:[0-9]{{10}}|[0-9]{{4}}[- ][0-9]{{6}}){_BEHIND}"
)
_ACCOUNT = re.compile(
    rf"{_BEFORE}(?:[0-9]{{2,6}}(?:\s?-\s?[0-9]{{1,8}}){{1,4}}|[0-9]{{2,6}}(?: [0-9]{{1,8}}){{1,4}}"
    rf"|[0-9]{{2,6}}(?:\.[0-9]{{1,8}}){{1,4}}|[0-9]{{10,16}}){_BEHIND}"
)
_BRACKET_REACH = 40  # characters before a number in which a bracket may have been opened
_DATE = re.compile(r"(?:19|20)[0-9]{2}[-. ](?:0?[1-9]|1[0-2])[-. ][0-3]?[0-9](?![0-9])")
# Korea's own passports, old and new; and those of other countries.
_PASSPORT = re.compile(
    rf"(?<![0-9a-z])(?:[msrodgptj][ \-]?[0-9]{{4}}[ \-]?[0-9]{{4}}"
    rf"|p[a-z][ \-]?[0-9]{{3}} ?[0-9]{{4}}"
    rf"|[a-z][ \-]?[0-9]{{3}}[ \-]?[a-z][ \-]?[0-9]{{4}}){_BEHIND}"
)
_PASSPORT_ABROAD = re.compile(rf"(?<![0-9a-z])[a-z]{{1,2}}[0-9]{{6,8}}[a-z]?{_BEHIND}")
_NAMES_PASSPORT = re.compile("여 ?권|passport|ppt|pspt|psprt|paspt|pp_?no|패스포트|travel")
_UNIT = re.compile(
    r" ?(?:(?:원|건|개|명|년|월|번째|바이트|초|분|시간|회|호|쪽|페이지)"
    r"(?=[은는이가을를의에로도만까]|[^가-힣]|$)|%|퍼센트|bytes?|ms|km|kg)"
)


# What a licence's region and the space behind it end with.
_REGION_ENDS = frozenset(" -울산기부원북남주구천전종")
_NO_DIGITS = dict.fromkeys(map(ord, "abcdefghijklmnopqrstuvwxyz \t\n\r-./()_+"))


def candidates(text: str) -> Iterator[Candidate]:
    """Everything in a folded text that has the shape of a kind.

    Args:
        text: `axtune.privacy.fold.Folded.lower`.
    """
    for island in _ISLAND.finditer(text):
        begin, end = island.span()
        if end - begin < 8:
            continue
        count = len(_digits(island.group()))
        # What dashes join is one number: no part of it is matched.
        one = count + text.count("-", begin, end) == end - begin
        at_place = text[begin - 1 : begin] in _REGION_ENDS
        for pattern, read, sign, least, most in _SHAPES:
            if count < least or (one and count > most):
                continue
            if sign and text.find(sign, begin, end) < 0:
                continue
            if pattern is _LICENCE_AT and not at_place:
                continue
            for match in pattern.finditer(text, begin, end + 2):
                if found := read(match, _digits(match.group())):
                    yield found
    if _NAMES_PASSPORT.search(text):
        for match in _PASSPORT.finditer(text):
            yield _of(match, "passport", Strength.LABELLED)
        for match in _PASSPORT_ABROAD.finditer(text):
            yield _of(match, "passport", Strength.BESIDE)


def _digits(text: str) -> str:
    return text if text.isdigit() else text.translate(_NO_DIGITS)


def _of(match: re.Match[str], kind: Kind, strength: Strength) -> Candidate:
    return Candidate(match.start(), match.end(), kind, strength)


def _telephone(strength: Strength) -> Callable[[re.Match[str], str], Candidate | None]:
    def read(match: re.Match[str], digits: str) -> Candidate:
        found = _of(match, "telephone", strength)
        # In 전화(02)123-4567) the first bracket belongs to the sentence.
        before = match.string[max(0, match.start() - _BRACKET_REACH) : match.start()]
        behind = match.string[match.end() : match.end() + 1]
        closed = before.count("(") <= before.count(")")
        outer = match.group()[0] == "(" and behind == ")" and closed
        return found._replace(begin=found.begin + 1) if outer else found

    return read


def _abroad(match: re.Match[str], digits: str) -> Candidate:
    sure = match.group()[0] in "+0"
    apart = len(match.group()) > len(digits)
    strength = Strength.SURE if sure else Strength.LIKELY if apart else Strength.BESIDE
    return _of(match, "telephone", strength)


def _elsewhere(match: re.Match[str], digits: str) -> Candidate | None:
    return _of(match, "telephone", Strength.LIKELY) if 9 <= len(digits) <= 15 else None


def _service(match: re.Match[str], digits: str) -> Candidate:
    years = _YEARS.fullmatch(match.group())
    dashed = match.group(1) is not None
    lifetime = years is not None and 0 < int(years.group(2)) - int(years.group(1)) <= 150
    likely = dashed and not lifetime
    return _of(match, "telephone", Strength.LIKELY if likely else Strength.BESIDE)


def _resident(match: re.Match[str], digits: str) -> Candidate | None:
    digits = digits.zfill(13)  # a table's program has taken the zeros in front for no digits
    birth = checksums.born(digits)
    if birth is None:
        return None
    kind: Kind = "foreigner_reg" if digits[6] in "5678" else "resident_reg"
    strength = Strength.LABELLED
    if match.re is _RESIDENT and digits[6] in "12345678":
        dashed = "-" in match.group(1)
        if checksums.resident(digits):
            # Without a dash, milliseconds since 1970 look the same.
            clock = digits[:2] in ("16", "17", "18") and digits[6] in "3478"
            strength = Strength.SURE if dashed else strength if clock else Strength.LIKELY
        elif dashed and birth >= (2020, 10, 1):
            strength = Strength.LIKELY
    elif match.re is _RESIDENT_SHORT:
        strength = Strength.BESIDE
    return _of(match, kind, strength)


def _business(match: re.Match[str], digits: str) -> Candidate | None:
    if not checksums.business(digits) or not int(digits):
        return None
    apart = "-" in match.group(1)
    return _of(match, "business_reg", Strength.LIKELY if apart else Strength.LABELLED)


def _card(match: re.Match[str], digits: str) -> Candidate | None:
    if not checksums.luhn(digits) or digits[0] not in "234569":
        return None
    joints = [joint for joint in match.groups() if joint is not None]
    likely = all(joints) and checksums.issued(digits)
    return _of(match, "credit_card", Strength.LIKELY if likely else Strength.LABELLED)


def _licence(match: re.Match[str], digits: str) -> Candidate | None:
    if not 11 <= int(digits[:2]) <= 28:
        return None
    dashed = all(match.group(n).strip() == "-" for n in (1, 2, 3))
    return _of(match, "driver_license", Strength.LIKELY if dashed else Strength.LABELLED)


def _licence_at(match: re.Match[str], digits: str) -> Candidate | None:
    before = max(0, match.start() - 8)
    region = _REGION.search(match.string, before, match.start())
    if region is None:
        return None
    apart = len(match.group()) > len(digits)
    strength = Strength.LIKELY if apart else Strength.LABELLED
    return Candidate(region.start(), match.end(), "driver_license", strength)


def _health(match: re.Match[str], digits: str) -> Candidate:
    return _of(match, "health_insurance", Strength.LABELLED)


def _account(match: re.Match[str], digits: str) -> Candidate | None:
    text = match.group()
    if not 8 <= len(digits) <= 16 or not int(digits) or _DATE.match(text):
        return None
    apart = len(text) > len(digits)
    if apart and (_MOBILE.fullmatch(text) or _LINE.fullmatch(text) or _SERVICE.fullmatch(text)):
        return None
    if not apart and _UNIT.match(match.string, match.end()):
        return None
    if len(digits) > 14 and _CARD.fullmatch(text):
        return None
    spaced = apart and "-" not in text
    strict = spaced or not 10 <= len(digits) <= 14 or digits.startswith("010")
    return _of(match, "bank_account", Strength.BESIDE if strict else Strength.LABELLED)


class _Shape(NamedTuple):
    """A pattern, what reads its matches, and what an island must have for it to be tried.

    Attributes:
        pattern: Of folded text in lower case.
        read: What a match and its digits are.
        sign: What the island must hold.
        least: How many digits the pattern has at least.
        most: And at most.
    """

    pattern: re.Pattern[str]
    read: Callable[[re.Match[str], str], Candidate | None]
    sign: str
    least: int
    most: int


_SHAPES = (
    _Shape(_ABROAD, _abroad, "82", 10, 15),
    _Shape(_ELSEWHERE, _elsewhere, "+", 9, 20),
    _Shape(_MOBILE, _telephone(Strength.SURE), "01", 10, 11),
    _Shape(_MOBILE_RUN, _telephone(Strength.LIKELY), "01", 10, 11),
    _Shape(_LINE, _telephone(Strength.LIKELY), "0", 9, 12),
    _Shape(_LINE_RUN, _telephone(Strength.LABELLED), "0", 9, 12),
    _Shape(_SERVICE, _service, "1", 8, 8),
    _Shape(_LOCAL, _telephone(Strength.BESIDE), "-", 7, 8),
    _Shape(_NO_ZERO, _telephone(Strength.BESIDE), "1", 9, 10),
    _Shape(_RESIDENT, _resident, "", 13, 13),
    _Shape(_RESIDENT_APART, _resident, " ", 13, 13),
    _Shape(_RESIDENT_SHORT, _resident, "", 11, 12),
    _Shape(_BUSINESS, _business, "", 10, 10),
    _Shape(_CARD, _card, "", 14, 16),
    _Shape(_LICENCE, _licence, "", 12, 12),
    _Shape(_LICENCE_AT, _licence_at, "", 10, 10),
    _Shape(_HEALTH, _health, "", 11, 11),
    _Shape(_ACCOUNT, _account, "", 8, 16),
)
