"""Names of keys, however they are written: ``loss_mask``, ``loss-mask``, ``lossMask`` are one."""

from __future__ import annotations

import re
from functools import lru_cache

_BETWEEN = re.compile(r"[\s_\-.]+")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\dA-Za-z_]+|\d+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\- ]{0,39}")

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
