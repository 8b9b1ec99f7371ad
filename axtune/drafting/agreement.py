"""Whether a drafted answer is what a passage says.

The server answers the drafted question again, with the passage alone, and the two answers are
compared: a model that judges its own answers nearly always agrees with itself, while one that
answers twice rarely invents the same thing twice (round-trip consistency: Alberti et al., Synthetic
QA Corpora Generation with Roundtrip Consistency, ACL 2019). The rules are strict rather than
lenient: what is refused wrongly costs a draft, what is kept wrongly is learned.
"""

from __future__ import annotations

import re
import unicodedata

LEAST_OVERLAP = 0.6

_WORD = re.compile(r"[^\W\d_]+")
_GROUPS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_LIST_MARK = re.compile(r"^\s*\d{1,2}[.)]\s", re.MULTILINE)
# Particles and endings say nothing of what a word says.
_ENDING = re.compile(
    r"(?<=[^\W\d_]{2})(?:은|는|이|가|을|를|의|에|로|으로|와|과|도|만|에서|에게|까지|부터|이나|하고|하며"
    r"|하여|해서|해야|해요|한다|하는|하기|합니다|하면|돼요|되며|된다|됩니다|이다|이며|이에요|예요|입니다)$"
)
_UNIT = re.compile(r"(\d+)([가-힣])")
_NOT = re.compile(
    r"않|없|못하|못한|못함|못합|아니|아닙|아님|불가|금지|제외|미만|비대상|무효|안\s?(?=[되된됩돼])"
)


def numbers_of(text: str) -> set[str]:
    """The runs of digits of a text, so that 2024.03.01 has those of 2024년 3월 1일.

    What groups digits, zeros in front and the numbers of list items do not count.
    """
    return {_plain(run) for run in re.findall(r"\d+", _folded(text))}


def overlap(one: str, other: str) -> float:
    """The share of what the text with less to say says that the other says too: 0 to 1.

    Said are numbers, and the pairs of neighbouring letters of words without their endings.
    """
    left, right = _said(one), _said(other)
    if not left or not right:
        return 0.0
    return len(left & right) / min(len(left), len(right))


def differ(drafted: str, answered: str) -> bool:
    """Whether two answers to a question do not say the same.

    They do not where they share too little, where neither's numbers hold the other's or a number
    counts something else, or where only one of them denies something.
    """
    one, other = numbers_of(drafted), numbers_of(answered)
    if one and other and not (one <= other or other <= one):
        return True
    if _units_differ(drafted, answered):
        return True
    if (_NOT.search(drafted) is None) != (_NOT.search(answered) is None):
        return True
    return overlap(drafted, answered) < LEAST_OVERLAP


def _units_differ(one: str, other: str) -> bool:
    """Whether a number of both counts something else in each, such as 3일 and 3개월."""
    left, right = _units(one), _units(other)
    return any(not left[number] & right[number] for number in left.keys() & right.keys())


def _units(text: str) -> dict[str, set[str]]:
    units: dict[str, set[str]] = {}
    for number, unit in _UNIT.findall(_folded(text)):
        units.setdefault(_plain(number), set()).add(unit)
    return units


def _said(text: str) -> set[str]:
    words = [_ENDING.sub("", word) for word in _WORD.findall(_folded(text))]
    pairs = {word[i : i + 2] for word in words for i in range(len(word) - 1)}
    return (pairs | numbers_of(text)) or set(words)


def _folded(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    return _GROUPS.sub("", _LIST_MARK.sub("", text))


def _plain(digits: str) -> str:
    return digits.lstrip("0") or "0"
