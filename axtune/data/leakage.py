"""Training rows that repeat a held-out item: runs of twenty letters and digits that both have.

An item is repeated when such runs cover a fifth of it; a shorter one, when it stands in the row
whole. The usual measure, thirteen words in a row, finds half of verbatim Korean copies, since a
Korean sentence has few words. Measured in ``scripts/bench_near_duplicates.py``.

What many items share is their form and not what they ask, and so is what a row shares with an item
whose numbers are others: rows of the same form are told apart from leaked ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from axtune.data.held_out_items import Item
from axtune.data.row_text import RowText, letters

RUN = 20  # letters and digits in a row
COVERED = 0.2  # of an item
# Many rows are answered with the same sentence, and more end with the same one.
_SHORTEST_ANSWER, _COVERED_ANSWER = 40, 0.5
# Items shorter than a run say nothing inside of a text; as a whole question from `_SHORTEST` on.
_SHORTEST, _WITHIN = 8, 12
# Twenty Latin letters are four words, as many people write them: of texts in Latin script twice as
# many letters are asked for, everywhere.
_LATIN = 2
# A run of more items than this is their form.
_FORM = 3
_NUMBER = re.compile(r"\d{2,}")

# Odd constants of splitmix64 and of Knuth's multiplicative generator.
_MIXED = ((0xBF58476D1CE4E5B9, 31), (0x94D049BB133111EB, 29))
_BASE = 6364136223846793005

_Hashes = NDArray[np.uint64]


class Leak(NamedTuple):
    """The item that a row repeats most of.

    Attributes:
        file: Where the item stands.
        line: Where the item stands.
        run: Letters and digits of the longest run that both have.
        size: Letters and digits of the item, or of the part of it that is repeated.
        covered: The share of these that such runs cover.
        others: How many further items the row repeats.
        same_form: Whether the item and the row have other numbers.
    """

    file: str
    line: int
    run: int
    size: int
    covered: float
    others: int = 0
    same_form: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """A text of an item: all that is asked, or all that is answered."""

    letters: str
    answer: bool
    file: str
    line: int

    @property
    def scale(self) -> int:
        """How many letters it takes to say what one of Hangul says."""
        latin = sum("a" <= letter <= "z" for letter in self.letters)
        return _LATIN if 2 * latin > len(self.letters) else 1


class LeakIndex:
    """Items, to hold rows against.

    Args:
        items: Of all held-out files; a text that several have is the first one's.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        parts: dict[str, _Part] = {}
        for item in items:
            for part in _parts_of(item):
                parts.setdefault(part.letters, part)
        self._short = _ShortParts()
        long: dict[int, list[_Part]] = {}
        for part in parts.values():
            size, scale = len(part.letters), part.scale
            if size >= (_SHORTEST_ANSWER if part.answer else RUN) * scale:
                long.setdefault(RUN * scale, []).append(part)
            elif not part.answer and size >= _SHORTEST * scale:
                self._short.add(part, within=size >= _WITHIN * scale)
        self._long = [_LongParts(some, run) for run, some in long.items()]

    def find(self, text: RowText) -> Leak | None:
        """The item that a row repeats most of; one of the same form only when it repeats none."""
        said = [letters(one.text) for one in text.said]
        whole = "".join(said)
        asked = {one for (part, _), one in zip(text.said, said, strict=True) if part == "question"}
        found = list(self._short.find(whole, asked))
        for parts in self._long:
            found += parts.find(whole)
        leaked = [leak for leak in found if not leak.same_form]
        if not found:
            return None
        most = max(leaked or found, key=lambda leak: (leak.run, leak.covered))
        items = {(leak.file, leak.line) for leak in leaked or found}
        return most._replace(others=len(items) - 1)


class _ShortParts:
    """Questions too short for a run: they have to be there whole."""

    def __init__(self) -> None:
        self._questions: dict[str, _Part] = {}
        self._within: dict[int, set[str]] = {}  # by length: those that also count inside a text

    def add(self, part: _Part, *, within: bool) -> None:
        self._questions[part.letters] = part
        if within:
            self._within.setdefault(len(part.letters), set()).add(part.letters)

    def find(self, whole: str, asked: set[str]) -> Iterator[Leak]:
        """Those that are one of the questions of a row, or stand in what it says."""
        found = asked & self._questions.keys()
        for size, known in self._within.items():
            windows = (whole[place : place + size] for place in range(len(whole) - size + 1))
            found |= known.intersection(windows)
        for one in sorted(found):
            part = self._questions[one]
            yield Leak(part.file, part.line, len(one), len(one), 1.0)


class _LongParts:
    """Texts of items, found by the runs that a row has in common with them.

    Args:
        parts: Each of a run's length or longer.
        run: Letters of a run.
    """

    def __init__(self, parts: list[_Part], run: int) -> None:
        self._parts = parts
        self._run = run
        self._runs, self._owners = _rare_runs([part.letters for part in parts], run)

    def find(self, whole: str) -> Iterator[Leak]:
        """Those of which a row repeats enough."""
        hashes = np.unique(_windows(whole, self._run))
        begin = np.searchsorted(self._runs, hashes, "left")
        end = np.searchsorted(self._runs, hashes, "right")
        hit = end > begin
        owners = [self._owners[b:e] for b, e in zip(begin[hit], end[hit], strict=True)]
        for owner in np.unique(np.concatenate(owners)).tolist() if owners else ():
            if leak := self._leak(self._parts[owner], whole, hashes):
                yield leak

    def _leak(self, part: _Part, whole: str, hashes: _Hashes) -> Leak | None:
        size = len(part.letters)
        if part.letters in whole:
            return Leak(part.file, part.line, size, size, 1.0)
        covered = self._share(part, hashes)
        if covered < (_COVERED_ANSWER if part.answer else COVERED):
            return None
        run = _longest_run(part.letters, whole, self._run)
        form = _other_numbers(part.letters, whole)
        return Leak(part.file, part.line, run, size, covered, same_form=form)

    def _share(self, part: _Part, hashes: _Hashes) -> float:
        """The share of an item's text that runs of a row cover, without those of its form."""
        own = _windows(part.letters, self._run)
        # Not isin, which would go through the runs of all items for each row.
        place = np.searchsorted(self._runs, own).clip(max=len(self._runs) - 1)
        begins = np.flatnonzero(np.isin(own, hashes) & (self._runs[place] == own))
        change = np.zeros(len(part.letters) + 1, np.int64)
        change[begins] += 1
        change[begins + self._run] -= 1
        return float((np.cumsum(change)[:-1] > 0).mean())


def _parts_of(item: Item) -> Iterator[_Part]:
    """What an item asks and what it answers, each as one text.

    A row that is no conversation may hold several questions, each a text of its own.
    """
    for answer, kinds in ((False, ("question",)), (True, ("answer", "rejected"))):
        texts = [letters(text) for part, text in item.said if part in kinds]
        for said in texts if item.separate else ["".join(texts)]:
            if said:
                yield _Part(said, answer, item.file, item.line)


def _rare_runs(texts: list[str], size: int) -> tuple[_Hashes, NDArray[np.int32]]:
    """Hashes of the runs of some texts, in order, with the number of the text that each is of.

    Those of more than `_FORM` texts are left out; a text that has no other keeps its first.
    """
    runs = [np.unique(_windows(text, size)) for text in texts]
    hashes = np.concatenate(runs)
    owners = np.repeat(np.arange(len(runs), dtype=np.int32), [len(one) for one in runs])
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    _, place, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    kept = counts[place] <= _FORM
    bare = np.setdiff1d(np.arange(len(runs)), owners[kept])
    first = np.array([_windows(texts[one][:size], size)[0] for one in bare], np.uint64)
    hashes = np.concatenate([hashes[kept], first])
    owners = np.concatenate([owners[kept], bare.astype(np.int32)])
    order = np.argsort(hashes, kind="stable")
    return hashes[order], owners[order]


def _longest_run(one: str, two: str, least: int) -> int:
    """Letters of the longest run that two texts share, by halving: each part of a run is one.

    Args:
        one: A text.
        two: Another.
        least: Letters of a run that they are known to share.
    """
    most = min(len(one), len(two))
    while least < most:
        size = (least + most + 1) // 2
        if np.isin(_windows(one, size), _windows(two, size)).any():
            least = size
        else:
            most = size - 1
    return least


def _other_numbers(item: str, row: str) -> bool:
    """Whether most of the digits of an item's numbers are of numbers that a row does not have.

    A month and a day are soon the same in two rows; a receipt's number of eight digits never is.
    """
    numbers = set(_NUMBER.findall(item))
    shared = numbers & set(_NUMBER.findall(row))
    return 2 * sum(map(len, shared)) < sum(map(len, numbers))


def _windows(text: str, size: int) -> _Hashes:
    """A 64-bit hash of each window of a text, a polynomial in its characters modulo 2**64.

    Windows of 1, 2, 4… characters are put together to those of the binary digits of `size`.
    """
    window = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    if len(window) < size:
        return np.zeros(0, np.uint64)
    for factor, shift in _MIXED:  # else the low bits would depend on few bits of the characters
        window = (window + np.uint64(1)) * np.uint64(factor)
        window ^= window >> np.uint64(shift)
    made, length, span = np.zeros(len(window) + 1, np.uint64), 0, 1
    while span <= size:
        power = np.uint64(pow(_BASE, span, 1 << 64))
        if size & span:
            length += span
            count = len(text) - length + 1
            made = made[:count] * power + window[length - span :][:count]
        window = window[:-span] * power + window[span:]
        span *= 2
    return made
