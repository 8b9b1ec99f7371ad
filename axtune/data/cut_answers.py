"""Answers that their server cut off, as it says itself: ``finish_reason: length`` and its like.

Learned as they stand they would teach a model to end in the middle of a sentence.
"""

from __future__ import annotations

from typing import Any

from axtune.data.key_names import HOLDERS, plain
from axtune.data.labels import as_flag
from axtune.errors import Problem

# Keys that say why an answer ended: OpenAI, Anthropic, Bedrock, Gemini, Ollama, Cohere, LangChain.
_REASONS = ("finishreason", "stopreason", "donereason", "finishdetails", "endreason", "stoptype")
_CUT = frozenset(
    (
        *("length", "maxtokens", "maxoutputtokens", "maxlength", "modellength", "maxnewtokens"),
        *("tokenlimit", "maxtokensreached", "limit", "truncated", "incomplete", "contentfilter"),
        *("contentfiltered", "safety", "recitation", "cancelled", "canceled", "aborted", "abort"),
        *("interrupted", "error", "errorlimit", "timeout", "modelcontextwindowexceeded"),
    )
)
_STATUS = frozenset(("incomplete", "inprogress", "failed", "cancelled", "truncated"))
_FLAGS = {
    **dict.fromkeys(("truncated", "istruncated", "wastruncated", "cutoff", "incomplete"), True),
    **dict.fromkeys(("iscomplete", "complete", "isfinished", "finished", "completed"), False),
}
# Where these stand inside of a turn or a row, besides the objects that all tools have.
_INSIDE = HOLDERS | {"generationinfo", "message", "data", "responsemetadata"}


def cut_key(holder: dict[str, Any]) -> str | None:
    """The key with which a turn or a row says that its answer was cut off; None where none does.

    Args:
        holder: The turn or the row.
    """
    for key, value in holder.items():
        name = plain(key)
        if _says_cut(name, value):
            return key
        if name in _INSIDE and isinstance(value, dict) and (inside := cut_key(value)):
            return f"{key}.{inside}"
        if name == "choices" and isinstance(value, list):  # OpenAI's response
            for choice in value:
                if isinstance(choice, dict) and (inside := cut_key(choice)):
                    return f"{key}.{inside}"
    return None


def _says_cut(name: str, value: Any) -> bool:
    if name == "incompletedetails":
        return bool(value)
    if name.endswith(_REASONS):
        if isinstance(value, dict):
            value = value.get("type")
        return isinstance(value, str) and plain(value) in _CUT
    if name == "status":
        return isinstance(value, str) and plain(value) in _STATUS
    return name in _FLAGS and as_flag(value) is _FLAGS[name]


def cut_answer(place: str, holder: dict[str, Any]) -> list[Problem]:
    """The problem of an answer that was cut off.

    Args:
        place: Where the turn stands; empty of a row.
        holder: The turn or the row.
    """
    key = cut_key(holder)
    if key is None:
        return []
    text = (
        f"{place}.{key}" if place else key
    ) + ": the answer was cut off before its end, and the model would learn to end there; "
    text += "mark the turn weight: 0, or leave the row out." if place else "leave the row out."
    return [Problem("cut-answer", text)]
