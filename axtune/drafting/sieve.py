"""Which drafts are refused for what they say themselves, before anybody is asked of them."""

from __future__ import annotations

import re

from axtune.drafting.agreement import numbers_of
from axtune.drafting.passages import has_control_token
from axtune.drafting.replies import Pair
from axtune.privacy.scrub import Scrubber

_LEAST_QUESTION = 5  # letters
_NO_WORD = re.compile(r"[\W_]+")
_HANGUL = re.compile("[가-힣]")

# What the reader of a question does not see, and what may follow such a word.
_TEXT = "문서|글|지문|본문|텍스트|자료|문단|단락|구절|기사|보고서|문헌|안내문|공고문"
_PART = (
    rf"\s?(?:{_TEXT}|내용|문장|그림|도표|예시|사례|규정|조항|지침|공지|설명|정보|목록|제목)"
    r"|\s(?:표|조|항|절|장)"
)
_PARTICLE = r"(?:은|는|이|가|을|를|의|에|에서|에는|에선|에서는|과|와|로|으로|도|만|상)?(?![가-힣])"
_POINTS = "이|위|윗|본|해당|앞|앞선|상기|상기의|위의|앞의|제시된|주어진|제공된|첨부된|이러한|이런"
_BY_THE_TEXT = (
    r"(?<![가-힣])(?:문서|글|자료|텍스트|내용)(?:에|에서)(?:는)?\s?"
    r"(?:따르|의하|의거|나온|나와|나타난|언급|설명하|설명된|말하|제시|다루|적힌|적혀|기술|명시|소개)"
    r"|(?<![가-힣])(?:지문|본문)(?:에|에서|의|을|이|은|상)(?![가-힣])"
    r"|글쓴이|(?<![가-힣])(?:필자|저자)(?:는|가)"
    r"|(?<![a-z])(?:this|the) (?:document|passage|text|article|paragraph)(?![a-z])"
)
_ANSWER = re.compile(
    rf"(?<![가-힣])(?:{_POINTS})\s?(?:{_TEXT}){_PARTICLE}|{_BY_THE_TEXT}", re.IGNORECASE
)
_QUESTION = re.compile(
    rf"(?<![가-힣])(?:{_POINTS}|다음|다음의|아래|아래의)(?:{_PART}){_PARTICLE}|{_BY_THE_TEXT}"
    r"|(?<![가-힣])(?:위에서|앞에서|앞서|아래에서|여기서|여기에서|상기와)\s"
    r"|다음\s?(?:중|보기|가운데)(?![가-힣])"
    r"|^(?:이|그|저|이것|그것|저것|여기|이곳|그곳|이들|그들)(?:은|는|이|가|을|를|의|에)?\s",
    re.IGNORECASE,
)


def needs_context(pair: Pair) -> bool:
    """Whether a pair points at a text that its reader does not see, such as "이 문서".

    An answer may list what is said "다음과 같이", and speak of what its question has named.
    """
    return bool(_QUESTION.search(pair.question) or _ANSWER.search(pair.answer))


def refused(pair: Pair, passage: str, scrubber: Scrubber) -> str:
    """Why a draft is refused; empty where it is not.

    Args:
        pair: The draft.
        passage: That it is drafted from, with masks.
        scrubber: Finds personal data.
    """
    both = f"{pair.question}\n{pair.answer}"
    question, answer = (_NO_WORD.sub("", text) for text in (pair.question, pair.answer))
    if len(question) < _LEAST_QUESTION or not answer:
        return "empty"
    if scrubber.find(both):
        return "personal-data"
    if scrubber.without_masks(both) != both:
        return "masked"
    if has_control_token(both):
        return "control-token"
    if not _HANGUL.search(pair.question):
        return "not-korean"
    if question == answer:
        return "repeats-question"
    if needs_context(pair):
        return "needs-context"
    if not numbers_of(pair.answer) <= numbers_of(f"{passage}\n{pair.question}"):
        return "not-in-passage"
    return ""
