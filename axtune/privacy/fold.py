"""Characters that people write for the same thing, made one, with each one's place kept.

Full-width digits and letters, dashes, spaces and dots fold one to one, so that offsets stay. Where
a text has zero-width characters, JSON's ``\\uXXXX`` or a URL's ``%2D``, places are kept in a list
instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain


def _table() -> dict[int, str]:
    table = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    same = {
        " ": "\u3000\u00a0\u202f\u205f\u1680" + "".join(map(chr, range(0x2000, 0x200B))),
        "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\u30fc\u3161\u2500\u2043\u00ad",
        ".": "\u00b7\u2022\u2027\u30fb\uff65\u318d\u2024\u2219\u22c5",
        '"': "\u201c\u201d",
        "'": "\u2018\u2019",
        "\n": "\u2028\u2029\u0085\x0b\x0c",
        "I": "\u0130",  # the only letter that grows in lower case
    }
    for to, letters in same.items():
        table |= dict.fromkeys(map(ord, letters), to)
    return table


_FOLDS = _table()
_FOLDED = re.compile(f"[{re.escape(''.join(map(chr, _FOLDS)))}]")
_ESCAPE = re.compile(r"(?<!\\)\\++[nrtbf\"/]")  # whatever the depth of the JSON
_WHITE = {"n": "\n", "r": "\n", "t": "\t", "b": " ", "f": " "}
# A URL writes the signs of a number so: space, brackets, plus, dash.
_UNPLACED = re.compile(
    r"(?<!\\)\\++u[0-9a-fA-F]{4}|%2[089bdBD](?=[0-9%+])" "|[\u200b-\u200f\u2060-\u2064\ufeff]"
)

# A mask that stands already: it names nothing, and separates no cells of a table.
_TOKEN = re.compile(r"<\|[a-z0-9_]{1,40}\|>")

# Numbers that are read aloud: 공일공 일이삼사 오육칠팔.
_SPOKEN = dict(zip("공영일이삼사오육륙칠팔구", "001234566789", strict=True))
_DIGIT = f"[{''.join(_SPOKEN)}]"
_SAID = re.compile(
    rf"{_DIGIT}{{2,7}}(?:(?:[ ,.\-]{{0,2}}(?:다시|에|의)?[ ,.\-]{{0,2}}){_DIGIT}{{2,7}}){{1,4}}"
)
# And said in part: 공일공 1234 5678.
_PREFIX = re.compile(r"[공영]일[공영일육칠팔구](?=[ ,.\-]{0,3}[0-9]{3,4})")
_JOINT = re.compile("다시|에|의")


@dataclass(frozen=True, slots=True)
class Folded:
    """A text with its characters folded.

    Attributes:
        text: Folded, in its own case.
        lower: The same in lower case.
        places: Where each character begins and ends in the text that was folded; None where each
            stands at its own place.
    """

    text: str
    lower: str
    places: list[tuple[int, int]] | None

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """A span of the folded text in the text that was folded."""
        if self.places is None:
            return begin, end
        return self.places[begin][0], self.places[end - 1][1]


def fold(text: str) -> Folded:
    """Fold a text."""
    places = None
    if _UNPLACED.search(text):
        text, places = _without_unplaced(text)
    if not text.isascii():
        if _FOLDED.search(text):
            text = text.translate(_FOLDS)
        text = _SAID.sub(_as_digits, text)
        text = _PREFIX.sub(lambda said: "".join(map(_SPOKEN.__getitem__, said.group())), text)
    if "<|" in text:
        text = _TOKEN.sub(lambda token: "□" * len(token.group()), text)
    if "\\" in text:
        text = _ESCAPE.sub(_as_white, text)
    return Folded(text, text.lower(), places)


def _as_white(escape: re.Match[str]) -> str:
    """White space that JSON escapes, and an escaped quote, at the place of the last character."""
    said = escape.group()
    return " " * (len(said) - 1) + _WHITE.get(said[-1], said[-1])


def _as_digits(said: re.Match[str]) -> str:
    text = said.group()
    if sum(letter in _SPOKEN for letter in text) < 7:
        return text
    last = re.split("[^" + "".join(_SPOKEN) + "]", text)[-1]
    if len(last) == 5 and last[-1] in "이구":  # 오육칠팔이에요, 오육칠팔구요: the last is no digit
        return _as_digits_alone(text[:-1]) + text[-1]
    return _as_digits_alone(text)


def _as_digits_alone(text: str) -> str:
    text = _JOINT.sub(lambda joint: "-".ljust(len(joint.group())), text)
    return "".join(_SPOKEN.get(letter, letter) for letter in text)


def _without_unplaced(text: str) -> tuple[str, list[tuple[int, int]]]:
    """A text with JSON's escapes as their characters, and where each begins and ends."""
    letters: list[str] = []
    places: list[tuple[int, int]] = []
    end = 0
    for match in chain(_UNPLACED.finditer(text), (None,)):
        begin = match.start() if match else len(text)
        letters.append(text[end:begin])
        places += [(place, place + 1) for place in range(end, begin)]
        if match:
            end = match.end()
            if match.group()[0] in "\\%":
                letters.append(chr(int(match.group()[-4:].lstrip("%"), 16)))
                places.append(match.span())
    return "".join(letters), places
