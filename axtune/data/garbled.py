"""Texts that are not what their writer wrote: decoded wrongly, escaped twice, without their image.

What is found here is told by its form alone; each search costs next to nothing on a sound text.
"""

from __future__ import annotations

import re
from functools import lru_cache

_LOOKED_AT = 4000  # characters of a text; what is decoded wrongly is so throughout
_LATIN = re.compile("[\u00a1-\u00ff]")
# UTF-8 as Latin-1 or Windows-1252: a lead byte, and continuation bytes as these show them.
_CONTINUED = "[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_UTF8_AS_LATIN = re.compile(
    f"(?:[\u00e3-\u00ed]{_CONTINUED}{{2}}\\s?){{2}}|\u00e2€[™œ\u009d“”˜¦]"
    "|(?:\u00c3[\u0080-\u00bf].*){2}",
    re.DOTALL,
)
# CP949 as Latin-1: two bytes a syllable.
_CP949_AS_LATIN = re.compile("(?:[\u00b0-\u00c8][\u00a1-\u00fe]\\s?){4}")
_ASCII = bytes(range(0x80))
_UTF8_KOREAN = bytes((*range(0x80, 0xC0), 0xE2, 0xE3, *range(0xEA, 0xEE)))
_HANGUL = re.compile("[가-힣]")

# Letters written as \\uXXXX, one behind the other; line ends written as \\n.
_ESCAPED_LETTERS = re.compile(r"(?:\\u[0-9a-fA-F]{4}){2}")
_ESCAPED_LINES = re.compile(r"\\n")
_CODE = re.compile(r"```|`[^`\n]*\\")

# What programs write for a value that is not there: pandas, Python, JavaScript, Excel.
_NO_VALUES = (
    *("nan", "NaN", "None", "null", "NULL", "<NA>", "NaT", "undefined", "#N/A", "#VALUE!"),
)
_NO_INPUTS = tuple(f"\n{word}" for word in _NO_VALUES)  # below an instruction

# Where an image stood: LLaVA, InternVL, Qwen-VL, ms-swift, and their numbered kinds.
_MEDIA = re.compile(
    r"<\|?(?:image|img|picture|photo|video|audio|speech|sound)"
    r"(?:[_ -]?(?:\d+|pad|start|end|here|placeholder|token|soft_token))?\|?>|\[(?:IMG|IMAGE)\d*\]"
    r"|<\|vision_(?:start|end|pad)\|>|<img>[^<>\n]+</img>|!\[[^\]\n]*\]\(data:image/",
    re.IGNORECASE,
)
_CODED = re.compile(r"`[^`\n]*`|```.*?```", re.DOTALL)
_HTML = re.compile(r"</(?:video|audio|picture|body|div|p)>|<source\b|<html", re.IGNORECASE)


def is_mojibake(text: str) -> bool:
    """Whether a text's bytes were decoded as another encoding than theirs.

    That is UTF-8, CP949, or UTF-16, which leaves NUL characters.
    """
    if "\0" in text:
        return True
    if text.isascii():
        return False
    text = text[:_LOOKED_AT]
    if _LATIN.search(text) and (_UTF8_AS_LATIN.search(text) or _CP949_AS_LATIN.search(text)):
        return True
    # UTF-8 as CP949 becomes syllables that hardly any word has, of the bytes that UTF-8 has.
    if _rare_syllable().search(text) is None:
        return False
    high = text.encode("cp949", "ignore").translate(None, _ASCII)
    others = high.translate(None, _UTF8_KOREAN)
    return len(high) >= 6 and 10 * len(others) <= len(high)


@lru_cache(maxsize=1)
def _rare_syllable() -> re.Pattern[str]:
    """Hangul syllables that KS X 1001 leaves out, about four of five."""
    syllables = map(chr, range(ord("가"), ord("힣") + 1))
    rare = (syllable for syllable in syllables if len(syllable.encode("euc_kr")) > 2)
    return re.compile(f"[{''.join(rare)}]")


def is_escaped(text: str) -> bool:
    r"""Whether a text was escaped once too often: ``\n`` or ``\uXXXX`` as text, throughout."""
    if "\\" not in text:
        return False
    if _ESCAPED_LETTERS.search(text) and _HANGUL.search(text) is None:
        return True
    lines = len(_ESCAPED_LINES.findall(text))
    return lines > 1 and "\n" not in text and _CODE.search(text) is None


def is_no_value(text: str, role: str) -> bool:
    """Whether a text is a program's word for a value that is not there, or a question ends so."""
    return text in _NO_VALUES or (role == "user" and text.endswith(_NO_INPUTS))


def media_placeholder(text: str) -> bool | None:
    """Whether a text has the place of an image, a video or a sound that is not there.

    Returns:
        True where that stands at an end of the text or on a line of its own; False where it is
        within a sentence, which may speak of it; None where there is none.
    """
    if ("<" not in text and "[" not in text) or _MEDIA.search(text) is None:
        return None
    text = _CODED.sub("", text)
    found = list(_MEDIA.finditer(text))
    if not found or _HTML.search(text):
        return None
    for match in found:
        before, after = text[: match.start()], text[match.end() :]
        alone = not before.strip() or before.rstrip(" ").endswith("\n")
        last = not after.strip() or after.lstrip(" ").startswith("\n")
        if alone or last or match[0].lower().startswith(("<img>", "<|", "![")):
            return True
    return False
