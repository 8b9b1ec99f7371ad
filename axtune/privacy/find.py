"""Personal data in a text: shapes are found first, then the nearest label decides.

A table's header outranks the labels around a number; a label of something else (`VETO`) speaks
against it. What only looks like a number of a kind stays.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from axtune.privacy.fold import Folded, fold
from axtune.privacy.kinds import LABEL_OF_GROUP, LABELS, VETO
from axtune.privacy.shapes import Candidate, Strength, candidates
from axtune.privacy.tables import Tables

_REACH = 50  # characters from a label to the number behind it
_REACH_BACK = 14  # from a number to a label behind it
_REACH_SIBLING = 34  # the same where the label is another value of a JSON object
_REACH_LINE = 24  # over the end of a line
_CLOSE = 12  # within which a veto speaks against what is only likely
_BACK = 6  # what a label behind counts as farther than one before
_MANY = 6  # labels that are looked at in each direction

# What may stand between a label and its number when they belong together.
_BESIDE = re.compile(
    r"s?(?:[\s:=#→>\"'\\(\[\]{|*_~.,)/\-]|번호|코드|no\b|number|num\b|id\b|info|[은는이가을를의로도란으에서과와요]"
    r"|[0-9]{1,2}(?=\")|입니다|및)*+"
)
_LONGEST_BESIDE = 18
_LEAST_LISTED = 8
_LISTED = re.compile(r"[0-9][0-9\-]{6,}[\s\"'\\,]+")  # the numbers before one in a list
# A bank and an account may have a name between them.
_OWNER = re.compile(r"(?:은행)?[\s(:]{0,3}[가-힣]{2,4}님?[\s):]{1,3}")
# A label with this behind it names the next number.
_NAMES_NEXT = re.compile(r"[ \"'\\]{0,4}(?:번호)?[ \"'\\]{0,4}(?:[:=]|[(#]?[0-9+])")
_REGISTRATION = ("resident_reg", "foreigner_reg")  # one label serves both, a digit tells them apart


class Found(NamedTuple):
    """A stretch of a text that is personal data.

    Attributes:
        begin: Its first character.
        end: Behind its last.
        kind: Its kind, or the name of one of the user's own.
    """

    begin: int
    end: int
    kind: str


class _Named(NamedTuple):
    """A label where it stands in a folded text."""

    begin: int
    end: int
    kind: str
    tight: bool


_Around = tuple[Sequence[_Named], Sequence[_Named]]  # the labels before and behind


class _Seen(NamedTuple):
    """A label as a candidate sees it."""

    distance: int
    kind: str
    beside: bool


class _Judged(NamedTuple):
    """How good the reason is for which a candidate counts: smaller is better."""

    rank: int
    distance: int
    size: int
    candidate: Candidate


def find(text: str, before: str = "") -> list[Found]:
    """Find personal data of the nine kinds.

    Args:
        text: Where.
        before: What stands before it and is not searched, such as the turn before or a table's
            header; its labels count.

    Returns:
        What is found, in order, without overlaps.
    """
    shift = len(before) + 1 if before else 0
    folded = fold(f"{before}\n{text}" if before else text)
    found = sorted((folded.span(one.begin, one.end), one.kind) for one in _found(folded))
    return [Found(a - shift, b - shift, kind) for (a, b), kind in found if a >= shift]


def labels_in(folded: Folded, begin: int, end: int) -> Iterator[_Named]:
    """The labels in a stretch of a folded text."""
    for match in LABELS.finditer(folded.lower, begin, end):
        assert match.lastindex is not None
        label = LABEL_OF_GROUP[match.lastindex - 1]
        if _stands_alone(folded.text, match.start(), match.end(), label.tight):
            yield _Named(match.start(), match.end(), label.kind, label.tight)


def _stands_alone(text: str, begin: int, end: int, tight: bool) -> bool:
    """Whether a label is a word, or one of a name such as ``homeTel``."""
    before = text[begin - 1 : begin]
    if not text[begin].isascii():
        return not (tight and before.isalpha() and not before.isascii())
    first, last = text[begin], text[end - 1]
    if last in "_- ":  # what separates it from a further word of a name
        return begin == 0 or not before.isalnum() or end - begin > 5
    if tight and (before.isalnum() or before == "-"):
        return False
    if before.isascii() and before.isalpha():
        camel = before.islower() and first.isupper()
        if not camel and end - begin < 5:
            return False
    behind = text[end : end + 1]
    if behind.isascii() and behind.isalpha():
        camel = behind.isupper() and last.islower()
        return camel or (behind == "s" and not text[end + 1 : end + 2].isalpha())
    return True


def _found(folded: Folded) -> list[Candidate]:
    """The candidates that are what they look like, the best of those that overlap."""
    all_of_them = sorted(set(candidates(folded.lower)))
    if not all_of_them:
        return []
    labels = _labels_around(folded, all_of_them)
    tables = Tables(folded.lower)
    headers: dict[int, frozenset[str]] = {}
    judged: list[_Judged] = []
    for group in _overlapping(all_of_them):
        rivals = _rivals(group)
        around = _around(labels, group)
        for candidate in group:
            header = _header_kinds(tables, headers, candidate.begin)
            if reason := _judge(folded.lower, candidate, rivals, header, around):
                judged.append(reason)
    return _best(judged)


def _overlapping(found: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Candidates in groups of those that overlap."""
    group: list[Candidate] = []
    end = 0
    for candidate in found:
        if group and candidate.begin >= end:
            yield group
            group = []
        group.append(candidate)
        end = max(end, candidate.end) if len(group) > 1 else candidate.end
    yield group


def _around(labels: Sequence[_Named], group: Sequence[Candidate]) -> _Around:
    """The labels before and behind candidates; none inside, where a licence has its region's."""
    begin, end = group[0].begin, max(candidate.end for candidate in group)
    at = bisect_left(labels, begin, key=lambda label: label.begin)
    behind = bisect_left(labels, end, key=lambda label: label.begin)
    return labels[max(0, at - _MANY) : at], labels[behind : behind + _MANY]


def _labels_around(folded: Folded, found: Sequence[Candidate]) -> list[_Named]:
    """The labels near any candidate."""
    labels: list[_Named] = []
    done = 0
    begin = end = -1
    reach, back = _REACH + 16, _REACH_SIBLING + 8
    for candidate in (*found, None):
        if candidate and candidate.begin - reach <= end:
            end = max(end, candidate.end + back)
            continue
        if end >= 0:
            labels += labels_in(folded, max(begin, done), min(end, len(folded.lower)))
            done = end
        if candidate:
            begin, end = max(0, candidate.begin - reach), candidate.end + back
    return labels


def _header_kinds(tables: Tables, known: dict[int, frozenset[str]], place: int) -> frozenset[str]:
    """The kinds that a column's header names; none outside of tables."""
    header = tables.header(place)
    if header is None:
        return frozenset()
    column, text = header
    if column not in known:
        named = list(labels_in(Folded(text, text, None), 0, len(text)))
        size = sum(label.end - label.begin for label in named)
        # A line of prose may have commas as well, but no cell that is a label and little else.
        said = [one for one in named if not one.tight or one.end - one.begin == len(text)]
        known[column] = frozenset(one.kind for one in said if 3 * size >= len(text))
    return known[column]


def _judge(
    text: str,
    candidate: Candidate,
    rivals: Mapping[str, bool],
    header: frozenset[str],
    labels: _Around,
) -> _Judged | None:
    """Whether a candidate is what it looks like, and how good the reason is."""
    own = _REGISTRATION if candidate.kind in _REGISTRATION else (candidate.kind,)
    size = candidate.begin - candidate.end
    if header:
        if header.intersection(own):
            return _Judged(0, 0, size, candidate)
        if VETO in header or candidate.strength is not Strength.SURE:
            return None
    heard = {**rivals, **dict.fromkeys(own, False)}
    seen = min(_seen(text, candidate, heard, labels), default=None)
    strength = candidate.strength
    if seen is not None and seen.kind in own and (seen.beside or strength is not Strength.BESIDE):
        weak = strength >= Strength.LABELLED
        rank = 1 if seen.beside else 3 if weak else 2
        return _Judged(rank, seen.distance, size, candidate)
    if strength >= Strength.LABELLED:
        return None
    if seen is not None and seen.kind == VETO:
        near = strength is Strength.LIKELY and seen.distance <= _CLOSE
        if seen.beside or near:
            return None
    return _Judged(2, _REACH, size, candidate)


def _rivals(group: Sequence[Candidate]) -> dict[str, bool]:
    """The kinds whose labels speak of candidates that overlap, and whether only right beside."""
    strongest: dict[str, Strength] = {}
    for one in group:
        strongest[one.kind] = min(one.strength, strongest.get(one.kind, Strength.BESIDE))
    beside = {kind: strength is Strength.BESIDE for kind, strength in strongest.items()}
    return {**beside, VETO: False}


def _seen(
    text: str, candidate: Candidate, kinds: Mapping[str, bool], labels: _Around
) -> Iterator[_Seen]:
    """The nearest labels of some kinds before and behind a candidate that may speak of it.

    Args:
        text: Folded, in lower case.
        candidate: Of which they may speak.
        kinds: Theirs, and whether a label of the kind counts only right beside the candidate.
        labels: Those around.
    """
    before, behind = labels
    for label in reversed(before):
        distance = candidate.begin - label.end
        if not 0 <= distance <= _REACH:
            continue
        if label.kind not in kinds:
            continue
        gap = text[label.end : candidate.begin]
        beside = _is_beside(gap)
        if kinds[label.kind] and not beside:
            continue
        if label.tight and not (beside and distance <= 6):
            of_somebody = label.kind == "bank_account" and _OWNER.fullmatch(gap)
            if not of_somebody:
                continue
        if "\n" in gap and distance > _REACH_LINE:
            continue
        yield _Seen(distance, label.kind, beside)
        break
    for label in behind:
        distance = label.begin - candidate.end
        gap = text[candidate.end : label.begin]
        sibling = label.kind == "bank_account" and '":' in gap
        if distance > (_REACH_SIBLING if sibling else _REACH_BACK):
            break
        if label.kind not in kinds:
            continue
        names_next = _NAMES_NEXT.match(text, label.end) is not None
        if names_next or any(sign in gap for sign in "\n\t|;{}"):
            continue
        if '"' in gap and not sibling:
            continue
        beside = distance <= 3 and _BESIDE.fullmatch(gap) is not None
        if (label.tight or kinds[label.kind]) and not beside:
            continue
        yield _Seen(distance + _BACK, label.kind, beside)
        break


def _is_beside(gap: str) -> bool:
    """Whether what stands between a label and a number joins the two."""
    if len(gap) > _LEAST_LISTED:
        gap = _LISTED.sub("", gap)
    return len(gap) <= _LONGEST_BESIDE and _BESIDE.fullmatch(gap) is not None


def _best(judged: list[_Judged]) -> list[Candidate]:
    """Of candidates that overlap the one with the best reason."""
    chosen: list[Candidate] = []
    for one in sorted(judged):
        candidate = one.candidate
        at = bisect_left(chosen, candidate)
        clear_before = at == 0 or chosen[at - 1].end <= candidate.begin
        clear_behind = at == len(chosen) or candidate.end <= chosen[at].begin
        if clear_before and clear_behind:
            chosen.insert(at, candidate)
    return chosen
