"""Rows that say nearly what an earlier row says, by Jaccard's index of three-letter sequences.

MinHash (Broder 1997) and locality-sensitive hashing find what may be near, with the library rensa;
the sequences themselves then decide. The parameters were measured on Korean
(``scripts/bench_near_duplicates.py``): five-letter sequences lose half of the rows in which a tenth
of the words has been edited, and sequences of tokens nearly all.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import unicodedata
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from axtune.data.row_text import RowText, letters
from axtune.errors import MissingPackageError

# Jaccard's index of two rows from which on they are near duplicates. Of rows in which a tenth of
# the words was edited, 1 to 2% have less than 0.7 and 0.4% less than this; other rows have 0.15.
NEAR = 0.67
SHORTEST = 30  # letters; shorter rows are duplicates only when they are the same
_GRAM = 3
_PERMUTATIONS, _BANDS, _SEED = 128, 32, 1
# Of two answers. A passage asked about twice makes two rows alike as a whole; their answers, which
# are what is learned, have then nothing in common.
_NEAR_ANSWERS = 0.2
# Rows of one form are all candidates of each other. Those that MinHash holds for the nearest are
# looked at; its estimate is off by 0.04 (one standard deviation).
_LOOKED_AT, _ESTIMATE = 16, NEAR - 0.16
# A row with more candidates than this, all of one form, is no candidate of later rows: else time
# would grow with the square of the rows of a form. Rows that say the same are found nevertheless.
_CROWD = 2000

_Grams = NDArray[np.uint64]


class Twin(NamedTuple):
    """The earlier row that a row repeats.

    Attributes:
        row: Its number, in the order in which rows were kept.
        similarity: Jaccard's index of the two.
    """

    row: int
    similarity: float


@dataclass(frozen=True, slots=True)
class _Row:
    """A row as it is compared.

    Attributes:
        letters: Of all that it says.
        exact: Digest of what a row that says the same shares: of a short one everything.
        tools: Digest of the names of its tools.
        grams: The sequences of the row, of its answer, and of its rejected one.
    """

    letters: str
    exact: int
    tools: int
    grams: tuple[_Grams, _Grams, _Grams]


class NearDuplicates:
    """Finds the earlier row that a row repeats; remembers the rows that repeat none.

    Memory is about 4 kB a row: the sequences themselves lie as digests in a file without a name,
    which is gone with the finder.

    Raises:
        MissingPackageError: When rensa is not installed.
    """

    def __init__(self) -> None:
        try:
            import rensa
        except ImportError:
            raise MissingPackageError(
                "data.near_duplicates needs the package rensa, which is not installed.",
                "Install it: pip install 'axtune[duplicates]'.",
            ) from None
        self._minhash: Any = rensa.RMinHash
        self._index: Any = rensa.RMinHashLSH(NEAR, _PERMUTATIONS, _BANDS)
        self._exact: dict[int, int] = {}
        # Of each row that was kept: a byte of each permutation's minimum, which tells two of them
        # apart in 255 of 256 cases; its tools; and where its sequences lie in the file, with their
        # three sizes.
        self._signatures = _Column(np.uint8, _PERMUTATIONS)
        self._tools = _Column(np.uint64, 1)
        self._places = array("Q")
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 # closed with the finder
        weakref.finalize(self, self._file.close)

    def find(self, texts: Sequence[RowText]) -> list[Twin | None]:
        """The earlier row that each of some rows repeats; rows that repeat none are kept.

        Args:
            texts: In the order of the files; each is held against those before it as well.
        """
        rows = [_as_row(text) for text in texts]
        tokens = [_tokens(row.letters) for row in rows]
        hashes = self._minhash.from_token_sets(tokens, _PERMUTATIONS, _SEED)
        return [self._find(row, minhash) for row, minhash in zip(rows, hashes, strict=True)]

    def _find(self, row: _Row, minhash: Any) -> Twin | None:
        if (same := self._exact.get(row.exact)) is not None:
            return Twin(same, 1.0)
        signature = np.array(minhash.digest(), np.uint32).astype(np.uint8)
        number = len(self._tools)
        if len(row.letters) >= SHORTEST:
            candidates = np.array(self._index.query(minhash), np.int64)
            if twin := self._nearest(row, signature, candidates):
                return twin
            if len(candidates) <= _CROWD:
                self._index.insert(number, minhash)
        self._exact[row.exact] = number
        self._signatures.append(signature)
        self._tools.append(np.uint64(row.tools))
        self._write(row.grams)
        return None

    def _nearest(
        self, row: _Row, signature: NDArray[np.uint8], candidates: NDArray[np.int64]
    ) -> Twin | None:
        """The most similar one of some kept rows, the earliest of several; None is near."""
        candidates.sort()
        same = candidates[self._tools[candidates, 0] == row.tools]
        estimates = (self._signatures[same] == signature).mean(axis=1)
        likely = np.argsort(-estimates, kind="stable")[:_LOOKED_AT]
        found = [
            Twin(int(one), similarity)
            for one in same[likely[estimates[likely] >= _ESTIMATE]]
            if (similarity := _similarity(row.grams, self._grams(int(one)))) >= NEAR
        ]
        return max(found, key=lambda twin: (twin.similarity, -twin.row), default=None)

    def _write(self, grams: Sequence[_Grams]) -> None:
        self._places.append(self._file.seek(0, os.SEEK_END))
        self._places.extend(map(len, grams))
        for part in grams:
            self._file.write(part.tobytes())

    def _grams(self, row: int) -> tuple[_Grams, ...]:
        begin, *sizes = self._places[4 * row : 4 * row + 4]
        self._file.seek(begin)
        return tuple(np.frombuffer(self._file.read(8 * size), np.uint64) for size in sizes)


class _Column:
    """An array to which rows are appended."""

    def __init__(self, kind: type[np.generic], width: int) -> None:
        self._rows = np.zeros((1024, width), kind)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return self._rows[key]  # type: ignore[no-any-return]

    def append(self, row: Any) -> None:
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[self._count] = row
        self._count += 1


def _as_row(text: RowText) -> _Row:
    said = letters(text.joined("question", "result", "answer", "rejected"))
    parts = [letters(text.joined(part)) for part in ("answer", "rejected")]
    tools = "\0".join(sorted(text.tools))
    same = [said, *parts] if len(said) >= SHORTEST else [_as_written(text)]
    grams = _grams_of(said), _grams_of(parts[0]), _grams_of(parts[1])
    return _Row(said, _digest("\0".join([tools, *same])), _digest(tools), grams)


def _as_written(text: RowText) -> str:
    """Everything that a row says, where spaces alone may differ: -1 and 1 are not the same."""
    whole = "\0".join(f"{part}\0{said}" for part, said in text.said)
    return " ".join(unicodedata.normalize("NFKC", whole).split())


def _tokens(said: str) -> list[str]:
    return [said[place : place + _GRAM] for place in range(len(said) - _GRAM + 1)]


def _grams_of(said: str) -> _Grams:
    """The different sequences of a text, each as a number; of a shorter text the text itself."""
    codes = np.frombuffer(said.encode("utf-32-le"), np.uint32).astype(np.uint64)
    if 0 < len(codes) < _GRAM:
        codes = np.pad(codes, (0, _GRAM - len(codes)))
    count = max(len(codes) - _GRAM + 1, 0)
    grams = np.zeros(count, np.uint64)
    for place in range(_GRAM):
        grams = (grams << np.uint64(21)) | codes[place : place + count]
    return np.unique(grams)


def _similarity(one: Sequence[_Grams], two: Sequence[_Grams]) -> float:
    """Of two rows; 0 where an answer of theirs is another one."""
    if any(_jaccard(a, b) < _NEAR_ANSWERS for a, b in zip(one[1:], two[1:], strict=True)):
        return 0.0
    return _jaccard(one[0], two[0])


def _jaccard(one: _Grams, two: _Grams) -> float:
    """Of two sets, 1 of two empty ones: answers of calls without arguments, and of emoji."""
    shared = len(np.intersect1d(one, two, assume_unique=True))
    return shared / (len(one) + len(two) - shared) if len(one) or len(two) else 1.0


def _digest(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)
