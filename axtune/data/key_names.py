"""Names of keys, however they are written: ``loss_mask``, ``loss-mask``, ``lossMask`` are one."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_BETWEEN = re.compile(r"[\s_\-.]+")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\dA-Za-z_]+|\d+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\- ]{0,39}")

_SHOWN = 12
# Names of columns in Korean; other texts could be what a row says.
_KOREAN = frozenset(
    (
        *("질문", "답변", "답", "정답", "문제", "지시", "지시문", "명령", "명령어", "요청", "응답"),
        *(
            "입력",
            "출력",
            "프롬프트",
            "사용자",
            "어시스턴트",
            "챗봇",
            "대답",
            "물음",
            "발화",
            "대화",
        ),
        *(
            "지문",
            "본문",
            "문맥",
            "원문",
            "번역",
            "번역문",
            "요약",
            "요약문",
            "제목",
            "내용",
            "문서",
        ),
        *(
            "보기",
            "선택지",
            "해설",
            "설명",
            "시스템",
            "역할",
            "텍스트",
            "글",
            "분류",
            "출처",
            "번호",
        ),
    )
)
_KINDS: tuple[tuple[Any, str], ...] = (
    (str, "a text"),
    (bool, "true or false"),
    ((int, float), "a number"),
    (list, "a list"),
)

# What tools keep beside a turn or a row for themselves; marks and tools stand in these too.
HOLDERS = frozenset(
    (
        *("metadata", "meta", "additionalkwargs", "additionalinfo", "additionalproperties"),
        *("extra", "extras", "extrainfo", "extrabody", "extradata", "info", "attributes", "attrs"),
        *("annotations", "annotation", "details", "config", "settings", "custom", "customfields"),
        *("responsemetadata", "providermetadata", "tags", "flags", "chattemplatekwargs"),
    )
)


@lru_cache(maxsize=4096)
def plain(key: str) -> str:
    """A key in lower case, without what stands between its words."""
    return _BETWEEN.sub("", key).lower()


@lru_cache(maxsize=4096)
def words(key: str) -> frozenset[str]:
    """The words of a key, in lower case."""
    return frozenset(word.lower() for word in _WORD.findall(key))


def is_name(key: str) -> bool:
    """Whether a key is short and plain enough to be one, rather than what a row says."""
    return _NAME.fullmatch(key) is not None


def names_of(fields: dict[str, Any]) -> str:
    """The keys of an object for a message; those that are no names are counted only."""
    names = [key for key in fields if is_name(key) or plain(key) in _KOREAN][:_SHOWN]
    if rest := len(fields) - len(names):
        names.append(f"{rest} more" if names else f"({rest}, no name)")
    return ", ".join(names)


def named_keys(fields: dict[str, Any]) -> str:
    """`names_of`, as a part of a sentence."""
    return f"the key{'s' if len(fields) > 1 else ''} {names_of(fields)}"


def described(value: Any) -> str:
    """What a value is, for a message that expects something else."""
    if isinstance(value, dict):
        return f"an object with {named_keys(value)}" if value else "an empty object"
    for kinds, name in _KINDS:
        if isinstance(value, kinds):
            return name if value or not isinstance(value, (str, list)) else f"an empty {name[2:]}"
    return "nothing"
