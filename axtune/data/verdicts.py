"""What a row says itself of how good its answers are, in columns beside them.

Nothing is guessed from these: which answer is preferred is said by ``chosen`` and ``rejected``, and
whether one is wanted by ``label``. A row whose other columns say the opposite is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from axtune.data.cells import says, text_of
from axtune.data.key_names import plain, words
from axtune.data.labels import as_flag
from axtune.data.messages import Placed
from axtune.errors import Problem

# Which of two answers is the better one.
_WHICH = frozenset(
    (
        *("preference", "preferred", "humanpreference", "overallpreference", "preferencelabel"),
        *("winner", "better", "betterresponse", "betteranswer", "betterresponseid", "best"),
        *("bestresponse", "bestanswer", "choice", "verdict", "judgement", "judgment", "decision"),
        *("label", "labels", "preferredanswer", "preferredresponse", "preferredoutput", "선호"),
    )
)
_FIRST = frozenset(
    (
        *("chosen", "a", "first", "1", "1.0", "true", "yes", "responsea", "modela", "answera"),
        *("response1", "answer1", "model1", "assistanta", "optiona", "better", "preferred"),
    )
)
_OTHERS = frozenset(
    (
        *("rejected", "b", "second", "2", "2.0", "0", "0.0", "-1", "false", "no", "responseb"),
        *("modelb", "answerb", "response2", "answer2", "model2", "assistantb", "optionb"),
        *("tie", "tied", "draw", "equal", "same", "both", "neither", "none", "either", "bothbad"),
        *("tie(bothbad)", "worse", "무승부", "동점"),
    )
)
# How good the two are: of columns with chosen and rejected in their names, less these words.
_SCORES = frozenset(
    (
        *("score", "rating", "reward", "grade", "overall", "overallscore", "quality", "points"),
        *("qualityscore", "votes", "elo", "rmscore", "rewardscore", "avgrating", "avgscore"),
        *("averagescore", "averagerating", "meanscore", "meanrating", "finalscore", "totalscore"),
        *("preferencescore", "winrate", "judgescore", "llmscore", "gptscore", "humanscore"),
        *("overallrating", "점수"),
    )
)
_RANKS = frozenset(("rank", "ranking", "place", "순위"))
_MARGINS = frozenset(
    (
        *("margin", "scoremargin", "rewardmargin", "scorediff", "scoredifference", "rewarddiff"),
        *("scoregap", "ratingdiff", "ratingdifference", "ratingmargin", "preferencemargin"),
    )
)
_BETTER = frozenset(("better", "best", "preferred", "winner", "wins", "won", "correct", "right"))
# Whether one answer is good, by what true says.
_GOOD = frozenset(
    (
        *("accepted", "isaccepted", "correct", "iscorrect", "passed", "ispassed", "isgood", "good"),
        *("desirable", "isdesirable", "issafe", "safe", "valid", "isvalid", "approved", "liked"),
        *("isapproved", "ispreferred", "helpful", "ishelpful", "thumbsup", "upvoted", "ktolabel"),
        *("verified", "isverified", "isfactual", "success", "succeeded", "resolved", "isresolved"),
        *("solved", "issolved", "좋아요", "정답여부", "적합", "적합여부", "합격", "합격여부"),
    )
)
# In words; false says that there was none.
_SPOKEN = frozenset(
    (
        *("feedback", "thumbs", "userfeedback", "humanfeedback", "quality", "verdict"),
        *("status", "reviewstatus", "reviewresult", "평가", "평가결과", "판정", "검수결과"),
    )
)
_BAD = frozenset(
    (
        *("thumbsdown", "isbad", "bad", "rejected", "isrejected", "undesirable", "iswrong"),
        *("wrong", "incorrect", "isincorrect", "flagged", "isflagged", "toxic", "istoxic"),
        *("harmful", "isharmful", "unsafe", "isunsafe", "hallucinated", "ishallucination"),
        *("ishallucinated", "disliked", "downvoted", "failed", "isfailed", "invalid", "isinvalid"),
        *("deleted", "isdeleted", "spam", "isspam", "싫어요", "오답", "부적합", "유해", "오답여부"),
    )
)
_NEGATIVE = frozenset(
    (
        *("bad", "negative", "thumbsdown", "thumbs_down", "down", "dislike", "disliked", "wrong"),
        *("rejected", "incorrect", "unsafe", "undesirable", "fail", "failed", "👎", "나쁨", "오답"),
        *("discarded", "deleted", "error", "불합격", "부적합", "싫어요", "반려"),
    )
)
_POSITIVE = frozenset(
    (
        *("good", "positive", "thumbsup", "thumbs_up", "up", "like", "liked", "right", "accepted"),
        *("correct", "safe", "desirable", "pass", "passed", "👍", "좋음", "정답", "합격", "적합"),
    )
)
_RIGHT_ANSWERS = frozenset(("correctanswer", "correctanswers", "bestanswer", "rightanswer"))
_WRONG_ANSWERS = frozenset(
    ("incorrectanswers", "incorrectanswer", "wronganswers", "wronganswer", "distractors")
)
# Conversations that are wanted and not wanted, of tasks that no answer is learned in (ms-swift).
_CONTRASTS = frozenset(("positivemessages", "negativemessages"))


def take_pair_verdict(
    fields: dict[str, Any], keys: tuple[str, str], problems: list[Problem]
) -> None:
    """Hold two answers against what the row's other columns say of them.

    Args:
        fields: The row's cells that are left; those that only say the same again are taken out.
        keys: Those of the chosen and of the rejected answer.
        problems: Appended to.
    """
    agreed = [key for key, value in fields.items() if _agrees(key, value, keys)]
    for key in agreed:
        del fields[key]
    for key in _contradictions(fields, keys):
        message = (
            f"{key}: it does not say that {keys[0]} is the better answer; swap the two where it is "
            "the other one, or leave the row out."
        )
        problems.append(Problem("bad-label", message))
        fields.pop(key, None)


def _agrees(key: str, value: Any, keys: tuple[str, str]) -> bool:
    if plain(key) in _WHICH and isinstance(value, (str, int, float)):
        said = plain(str(value))
        return said in _FIRST or said == plain(keys[0])
    return as_flag(value) is True and _says_better(key, "chosen")


def _says_better(key: str, which: str) -> bool:
    said = words(key)
    return which in said and not said.isdisjoint(_BETTER)


def _contradictions(fields: dict[str, Any], keys: tuple[str, str]) -> Iterator[str]:
    """The columns that say that the chosen answer is not the better one."""
    for key, value in list(fields.items()):
        name, said = plain(key), plain(str(value))
        if name in _WHICH and isinstance(value, (str, int, float)):
            if said in _OTHERS or said == plain(keys[1]):
                yield key
        elif (
            (as_flag(value) is False and _says_better(key, "chosen"))
            or (as_flag(value) is True and _says_better(key, "rejected"))
            or (name in ("tie", "istie") and as_flag(value))
            or (name == "status" and said == "tie")  # Argilla's Orca pairs
            or (name in _MARGINS and (_number(value) or 0) < 0)
            or _is_lower(fields, key, name)
        ):
            yield key


def _is_lower(fields: dict[str, Any], key: str, name: str) -> bool:
    """Whether a column gives the chosen answer less than another the rejected one."""
    what = name.replace("chosen", "")
    if "chosen" not in name or what not in _SCORES | _RANKS:
        return False
    other = next((k for k in fields if plain(k) == name.replace("chosen", "rejected")), None)
    one, two = _number(fields[key]), _number(fields[other]) if other else None
    if one is None or two is None:
        return False
    return one > two if what in _RANKS else one < two


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, (str, int, float)) else None
    except (ValueError, OverflowError):
        return None


def take_answer_verdict(
    fields: dict[str, Any], turns: list[Placed], problems: list[Problem]
) -> None:
    """Hold an answer against what the row's other columns say of it.

    Args:
        fields: The row's cells that are left; those that call the answer good are taken out.
        turns: The conversation, with the answer at its end.
        problems: Appended to.
    """
    answer = text_of(turns[-1][1]) if turns else None
    for key, value in list(fields.items()):
        name = plain(key)
        good = is_good(key, value)
        if good is not None:
            del fields[key]
        if good is False or _is_wrong(answer, name, value):
            message = (
                f"{key}: it says that the answer is not a good one; leave the row out, or name the "
                "judgement label, to learn from it with task: kto."
            )
            problems.append(Problem("bad-label", message))
        elif name in _CONTRASTS and says(value):
            message = (
                f"{key}: conversations to compare with are not read; write one that is not wanted "
                "as rejected_messages (task: dpo), or remove the key."
            )
            problems.append(Problem("bad-label", message))
            del fields[key]


def is_good(key: str, value: Any) -> bool | None:
    """What a column says of an answer: good or bad; None where it says neither."""
    name = plain(key)
    if name not in _GOOD | _BAD | _SPOKEN:
        return None
    flag = None if name in _SPOKEN else as_flag(value)
    if isinstance(value, str) and flag is None:
        said = plain(value)
        flag = False if said in _NEGATIVE else True if said in _POSITIVE else None
    if name in _SPOKEN and (_number(value) or 0) < 0:
        flag = False
    return flag if flag is None or name not in _BAD else not flag


def bad_answer(place: str, turn: dict[str, Any]) -> Iterator[Problem]:
    """The problems of a turn that is to be learned and says itself that it is not a good one.

    Args:
        place: Where the turn stands.
        turn: As a row has it.
    """
    for key, value in turn.items():
        if is_good(key, value) is False:
            message = (
                f"{place}.{key}: it says that the answer is not a good one; mark the turn weight: "
                "0, or leave the row out."
            )
            yield Problem("bad-label", message)


def _is_wrong(answer: Any, name: str, value: Any) -> bool:
    """Whether an answer is among those that a column calls wrong, or none that it calls right."""
    if not isinstance(answer, str) or name not in _RIGHT_ANSWERS | _WRONG_ANSWERS:
        return False
    listed = value if isinstance(value, list) else [value]
    said = [text.strip().casefold() for text in listed if isinstance(text, str) and text.strip()]
    given = answer.strip().casefold()
    if name in _WRONG_ANSWERS:
        return given in said
    return bool(said) and not any(text in given or given in text for text in said)
