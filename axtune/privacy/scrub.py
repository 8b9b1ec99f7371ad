"""Texts with masks in the place of personal data.

In JSON a string stays a string, and a number that is no string becomes a quoted mask. A text that
has been scrubbed is left as it is.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from axtune.privacy.find import Found, find
from axtune.privacy.fold import fold
from axtune.privacy.kinds import MASKS
from axtune.privacy.own_kinds import OwnKind

_PASSES = 5  # a mask may let a number beside it be seen; two passes are common, three rare
_BARE = re.compile("[0-9]+")
_KEY = re.compile(r"(\\*[\"'])\s*:\s*-?$")
_CLOSES = re.compile(r"(?:\s|\\+[nrt])*[,}\]]")
# Between a quote and a number of the same JSON text: other numbers, and what has no quotes.
_BETWEEN = re.compile(r"(?:[\s,:\[\]{}0-9.eE+\-]|\\+[nrt]|true|false|null|NaN|Infinity)*+")
_OPENS = re.compile(r"(?:\s|\\+[nrt])*[\[{]")  # behind the quote that a nested text begins with
# A leaf of valid JSON, or a key, which has a colon behind it.
_LEAF = re.compile(r'"(?:[^"\\]|\\.)*+"(?=(?P<colon>\s*+:)?)|-?[0-9][0-9.eE+-]*+')
_LIST_REACH = 1000
_DEEPEST = 64  # backslashes before a quote
_KEY_REACH = 60  # white space and quotes between a key and its value
_NESTED = re.compile(r"[\[,](?:\s|\\+[nrt])*$")


Known = dict[str, str]  # what was found, without what it was cut up by, and its kind
_LEAST_KNOWN = 8  # characters of what is looked for again
_WORD = re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{0,2}[0-9](?:[0-9A-Za-z]|[-./](?=[0-9]))+")
_JOINTS = re.compile(r"[^0-9A-Za-z]+")


class Scrubbed(NamedTuple):
    """A text, and how much of each kind was masked in it."""

    text: str
    counts: Counter[str]


class Scrubber:
    """Finds personal data of the nine kinds and of a user's own, and masks it.

    Args:
        own: The user's own kinds; they go before the nine.
    """

    def __init__(self, own: Sequence[OwnKind] = ()) -> None:
        self._own = own
        self._masks = {**MASKS, **{kind.name: kind.mask for kind in own}}
        self._masked = re.compile("|".join(map(re.escape, sorted(set(self._masks.values())))))

    def find(self, text: str, before: str = "") -> list[Found]:
        """Personal data of any kind, in order, without overlaps.

        Args:
            text: Where.
            before: What stands before it; see `axtune.privacy.find.find`.

        Raises:
            AxtuneError: When the pattern of an own kind takes too long.
        """
        found = find(text, before)
        if not self._own:
            return found
        masks = [match.span() for match in self._masked.finditer(text)]
        own = _apart([*self._find_own(text)], masks)
        return sorted([*own, *_apart(found, [(one.begin, one.end) for one in own])])

    def _find_own(self, text: str) -> Iterator[Found]:
        folded = fold(text)
        for kind in self._own:
            for begin, end in kind.find(folded.text):
                yield Found(*folded.span(begin, end), kind.name)

    def scrub(self, text: str, before: str = "", known: Known | None = None) -> Scrubbed:
        """Mask personal data in a text, which may be JSON or hold some.

        What is found at one place is masked at every other as well, where nothing may name it.

        Args:
            text: As it is.
            before: What stands before it; see `axtune.privacy.find.find`.
            known: What was found in texts that belong to this one; what is found here is added.

        Raises:
            AxtuneError: When the pattern of an own kind takes too long.
        """
        counts: Counter[str] = Counter()
        known = {} if known is None else known
        for _ in range(_PASSES):
            found = self.find(text, before)
            if known:
                again = [*_known(text, known)]
                found = sorted([*found, *_apart(again, [(one.begin, one.end) for one in found])])
            if not found:
                break
            for one in found:
                if len(key := _JOINTS.sub("", text[one.begin : one.end])) >= _LEAST_KNOWN:
                    known.setdefault(key, one.kind)
            counts.update(one.kind for one in found)
            text = self._masked_text(text, found)
        return Scrubbed(text, counts)

    def scrub_value(
        self, value: Any, before: str = "", known: Known | None = None
    ) -> tuple[Any, Counter[str]]:
        """Mask personal data in a JSON value; keys stay.

        What stands beside a text says what it is: its key, and its neighbours.

        Args:
            value: As a JSON parser gives it.
            before: What stands before it.
            known: As in `scrub`.

        Returns:
            The value, the same where nothing is found, and the counts.
        """
        scrubbed, counts = self.scrub(json.dumps(value, ensure_ascii=False), before, known)
        if not counts:
            return value, counts
        made = _parsed(scrubbed)
        if made is None or not _same_keys(value, made):
            return self._scrub_leaves(value, "")
        return made, counts

    def scrub_json(self, text: str) -> Scrubbed:
        """Mask personal data in a text of JSON; keys stay, and so does what is not masked.

        Args:
            text: A whole JSON text.

        Raises:
            AxtuneError: When the pattern of an own kind takes too long.
        """
        scrubbed = self.scrub(text)
        if not scrubbed.counts:
            return scrubbed
        value, made = _parsed(text), _parsed(scrubbed.text)
        if value is None or (made is not None and _same_keys(value, made)):
            return scrubbed
        return self._scrub_written_leaves(text)

    def _scrub_written_leaves(self, text: str) -> Scrubbed:
        """Mask every leaf of a valid text of JSON for itself, in its place."""
        counts: Counter[str] = Counter()
        key = ""

        def masked(match: re.Match[str]) -> str:
            nonlocal key
            value = json.loads(match.group())
            if match["colon"]:
                key = value
                return match.group()
            made, more = self._scrub_leaves(value, key)
            counts.update(more)
            escaped = "\\u" in match.group()  # may stand for what no file can hold as it is
            return json.dumps(made, ensure_ascii=escaped) if more else match.group()

        return Scrubbed(_LEAF.sub(masked, text), counts)

    def _scrub_leaves(self, value: Any, key: str) -> tuple[Any, Counter[str]]:
        """Mask every leaf for itself, with its key as all that it is known by."""
        counts: Counter[str] = Counter()
        if isinstance(value, dict):
            made: Any = {}
            for name, item in value.items():
                made[name], more = self._scrub_leaves(item, str(name))
                counts += more
            return made, counts
        if isinstance(value, list):
            made = []
            for item in value:
                one, more = self._scrub_leaves(item, key)
                made.append(one)
                counts += more
            return made, counts
        if isinstance(value, str):
            return self.scrub(value, key)
        if isinstance(value, int) and not isinstance(value, bool):
            text, counts = self.scrub(str(value), key)
            return (text.strip('"'), counts) if counts else (value, counts)
        return value, counts

    def without_masks(self, text: str) -> str:
        """A text with a space in the place of each mask."""
        return self._masked.sub(" ", text)

    def _masked_text(self, text: str, found: Sequence[Found]) -> str:
        quotes = _Quotes(text)
        parts: list[str] = []
        end = 0
        for one in found:
            mask = self._masks[one.kind]
            begin, quote = quotes.around(one.begin, one.end)
            parts += [text[end:begin], quote, mask, quote]
            end = one.end
        return "".join([*parts, text[end:]])


class _Quotes:
    """Which quotes a mask needs where it replaces a number of a JSON text.

    Args:
        text: JSON, or a text that may hold some, escaped or not.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._looked = (-1, 0, True)  # a quote, how far behind it was looked, and what was seen

    def around(self, begin: int, end: int) -> tuple[int, str]:
        """Where the number at a stretch begins with its sign, and the quotes that it needs."""
        text = self._text
        if not _BARE.fullmatch(text, begin, end):
            return begin, ""
        if text[begin - 1 : begin] == "-":
            begin -= 1
        before = text[max(0, begin - _KEY_REACH) : begin]
        quote = ""
        if _CLOSES.match(text, end):
            key = _KEY.search(before)
            quote = key[1] if key else self._in_list(begin) if _NESTED.search(before) else ""
        elif not before.strip() and not text[end:].strip():  # a text of one number
            quote = '"'
        return begin if quote else begin + (text[begin] == "-"), quote

    def _in_list(self, begin: int) -> str:
        """The quotes of what stands at a place, as the nearest ones before it are."""
        at = self._text.rfind('"', 0, begin)
        known, end, bare = self._looked
        if at != known:
            end, bare = at + 1, True
        # Each place is looked at once, however many numbers a list has.
        bare = bare and _BETWEEN.fullmatch(self._text, end, begin) is not None
        self._looked = (at, begin, bare)
        if at < 0:
            return '"' if bare or self._is_list(begin) else ""
        if not bare:
            return ""
        depth = len(self._text[max(0, at - _DEEPEST) : at]) - len(
            self._text[max(0, at - _DEEPEST) : at].rstrip("\\")
        )
        opens = _OPENS.match(self._text, at + 1) is not None
        return "\\" * (2 * depth + 1 if opens else depth) + '"'

    def _is_list(self, begin: int) -> bool:
        """Whether the brackets around a place, in prose, hold a list of JSON."""
        opens = self._text.rfind("[", max(0, begin - _LIST_REACH), begin)
        closes = self._text.find("]", begin, begin + _LIST_REACH)
        return 0 <= opens < closes and _parsed(self._text[opens : closes + 1]) is not None


def _known(text: str, known: Known) -> Iterator[Found]:
    """Where what was found before stands in a text, in whatever way it is cut up."""
    for match in _WORD.finditer(text):
        if kind := known.get(_JOINTS.sub("", match.group())):
            yield Found(*match.span(), kind)


def _apart(found: Sequence[Found], taken: Sequence[tuple[int, int]]) -> list[Found]:
    """What is found, without what overlaps a stretch that is taken, or another before it."""
    kept: list[Found] = []
    taken = sorted(taken)
    ends = [end for _, end in taken]
    last = 0
    for one in sorted(found):
        at = bisect_left(ends, one.begin + 1)
        clear = at == len(taken) or one.end <= taken[at][0]
        if clear and one.begin >= last:
            kept.append(one)
            last = one.end
    return kept


def _parsed(text: str) -> Any:
    """The value of a text of JSON; None of another."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _same_keys(one: Any, other: Any) -> bool:
    """Whether two JSON values are of one shape, with the same keys."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(_same_keys(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list):
        return (
            isinstance(other, list) and len(one) == len(other) and all(map(_same_keys, one, other))
        )
    return True
