"""Where a line of a PDF ends: between two words, or in one.

Korean is set both ways. Where lines break between words, there is room for the next letter at the
end of many; where they break anywhere, hardly ever. In the second kind the page no longer says
whether a space was at the break, and the words of the document itself decide.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from axtune.documents.lines import Line

_HANGUL = re.compile(r"[가-힣]")
# Of a hundred breaks: where so many lines had room for another letter, they break between words.
_ROOMY_SHARE = 20
# Words end so; a break behind one of these is between words more often than not.
_ENDINGS = re.compile(
    r"(은|는|을|를|의|에|에서|에게|으로|로|와|과|도|만|며|면|고|서|게|(하|되|있|없|않|지나|넘|맞|이)지|있는|없는"
    r"|위한|대한|통해|따라|및|또는|등|수|것|그|각|모든|다|요|오|까지|부터|마다|처럼|보다|이나|거나"
    r"|(?<=[가-힣])(기|해|여|아|어|려|져|쳐|켜|워|줘|춰)|(?<=[가-힣\d]{2})(이|가))$"
)
_ADNOMINAL = (4, 8)  # ㄴ and ㄹ among the 28 finals of a syllable in Unicode's order
# What never begins a word: particles and endings, alone or before punctuation.
_ATTACHED = re.compile(
    r"(은|는|을|를|의|에|에서|에게|에는|에도|으로|로|로서|로써|와|과|도|만|이며|이고|이므로|이라|이라고|이라는|이어야|며|고|니다|습니다|입니다"
    r"|한다|된다|했다|하였다|였다|이다|다|요|까지|부터|마다|이나|거나|하여|되어|하고|되고|하는|되는|하며"
    r"|되며|하지|되지|한|된|할|될|하면|되면|하기|되기|들|들이|들은|들을|들의|라|라고|인|임|함|됨|음|게|지|면|서|야|어야|아야)"
    r"[.,;:!?)”’」』…]*$"
)

# A bracket or a quotation that has just been opened.
_OPENED = re.compile(r"[(\[{“‘「『《〈]$|(^|\s)[\"']$")
_PART_OF_WORD = frozenset("”’」』》〉)]%\"'")
# Adverbs and numerals that are words by themselves, and what begins a word wherever it stands.
_WORD = re.compile(
    r"(가장|매우|더|더욱|다시|함께|모두|이미|아직|미리|먼저|바로|자주|반드시|새로|서로|약|총|첫|둘째|셋째|주|전체"
    r"|또|또한|즉|그리고|그러나|다만|특히|직접|따로|매|한|두|세|네|여러|다른|같은|새|이|그|저|각|본|해당)"
)
_BEGINS_WORD = re.compile(
    r"않|없|있(?!어서)|것[이은을도]|때(는|에|까지|마다)?\b|때$|등[을의이은에]?$|및$|또는$|위하여|위한|대한|대하여"
    r"|따라|통해|통하여|관한|의한|가장$|매우$|더$|다시$|함께$|모두$|모든$|이미$|아직$|미리$|반드시$|따로$|바로$"
)

# The verbs of doing and becoming are words behind a particle, endings behind a noun.
_BEFORE_DO = re.compile(r"(을|를|로|게|도|지|록|고)$")
_DO = re.compile(r"[하한할함해했되된될됨됐]")

# What never begins a line of its own accord: it belongs to the word before.
_CLOSING = frozenset(".,;:!?)]}%”’」』》〉·~…/")
# What is counted or measured, behind its number; a particle behind one as well.
_UNIT = re.compile(
    r"(개|년|월|일|시|분|초|명|원|건|회|차|호|층|조|항|장|쪽|배|퍼센트|만|억|천|백|여|대|권|번|주|점|세|급"
    r"|인|위|단계|도|미터|킬로|센티|그램|리터|톤|평|은|는|을|를|의|에|로|과|와|이며|이고|이다)(?!상|하|전|후|내)"
)


@dataclass(frozen=True, slots=True)
class Breaks:
    """How a document breaks its lines.

    Attributes:
        anywhere: Whether words are broken at any letter.
        space: Width of a space that is not stretched, in heights of the font.
        words: The words of the document that stand within lines, with how often.
    """

    anywhere: bool
    space: float
    words: Counter[str]

    @classmethod
    def of(cls, paragraphs: Iterable[tuple[Sequence[Line], float]]) -> Breaks:
        """Learn it of lines that follow each other.

        Args:
            paragraphs: Lines, and the right end of the column that they stand in.
        """
        words: Counter[str] = Counter()
        breaks = roomy = 0
        held = list(paragraphs)
        space = _space_of(line for lines, _ in held for line in lines)
        for lines, right in held:
            for line in lines:
                words.update(line.text.split()[1:-1])
            for line, following in itertools.pairwise(lines):
                if _is_hangul_break(line, following):
                    breaks += 1
                    roomy += room_of(line, right, space) > following.pieces[0].first * 1.1
        return cls(breaks > 0 and roomy * 100 < breaks * _ROOMY_SHARE, space, words)

    def between(self, line: Line, following: Line, right: float) -> str:
        """What stands between two lines of a paragraph: a space or nothing.

        Args:
            line: The upper one.
            following: The lower one.
            right: Right end of the column.
        """
        above, below = line.text, following.text
        if re.search(r"[A-Za-z]-$", above) and below[:1].islower():
            return "-"  # a word that is hyphenated: the hyphen goes
        if not (above and below and self.anywhere) or following.pieces[0].led:
            return " "
        if _OPENED.search(above) or below[0] in _CLOSING:
            return ""
        if not above[-1].isalnum() and above[-1] not in _PART_OF_WORD:
            return " "  # a comma, a full stop
        if above[-1].isdigit() and below[0].isdigit():
            return ""
        if below[0] == "(":
            return ""  # what explains a word stands at it
        if not _HANGUL.match(below[0]):
            return " "  # another script begins a word, or a quotation does
        if above[-1].isdigit():
            return "" if _UNIT.match(below) else " "
        if room_of(line, right, self.space) > following.pieces[0].first * 1.1:
            return " "
        return " " if self._are_words(above.split()[-1], below.split()[0]) else ""

    def _are_words(self, above: str, below: str) -> bool:
        """Whether two pieces are two words, by the document's own, or by how Korean words end."""
        bare = below.rstrip(".,;:!?)”’」』")
        joined, apart = (
            self.words[above + below] + self.words[above + bare],
            min(self.words[above], self.words[below] + self.words[bare]),
        )
        if joined or apart:
            return apart > joined
        if _BEGINS_WORD.match(bare):
            return True
        if _BEFORE_DO.search(above) and _DO.match(below):
            return True
        if _ATTACHED.match(below) or (bare in ("이", "가") and not _ENDINGS.search(above)):
            return False
        if _WORD.fullmatch(above):
            return True
        known_below = any(self.words[bare[:end]] for end in range(len(bare), 1, -1))
        if self.words[above]:
            return True
        return _ends_a_word(above) and (len(above) > 1 or known_below)


def _ends_a_word(piece: str) -> bool:
    """Whether a piece ends as words do: a particle, or a verb's form before a noun (ㄴ, ㄹ)."""
    final = (ord(piece[-1]) - 0xAC00) % 28 if "가" <= piece[-1] <= "힣" else 0
    return bool(_ENDINGS.search(piece)) or (len(piece) > 1 and final in _ADNOMINAL)


def room_of(line: Line, right: float, space: float) -> float:
    """Points that a line has left at its end, with what its spaces were stretched by.

    Args:
        line: The line.
        right: Right end of its column.
        space: Width of a space that is not stretched, in heights of the font.
    """
    natural = space * line.size
    return right - line.x1 + sum(max(0.0, width - natural) for width in _spaces(line))


def _spaces(line: Line) -> list[float]:
    return [width for piece in line.pieces for width in piece.spaces]


def _space_of(lines: Iterable[Line]) -> float:
    """Most lines of a justified text are stretched, few hardly: the narrow ones show it."""
    widths = sorted(width / line.size for line in lines for width in _spaces(line))
    return min(max(widths[len(widths) // 10], 0.2), 0.6) if widths else 0.3


def _is_hangul_break(line: Line, following: Line) -> bool:
    above, below = line.text, following.text
    return bool(above and below and _HANGUL.match(above[-1]) and _HANGUL.match(below[0]))
