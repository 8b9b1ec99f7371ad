"""What an answer is about, in a column of its own: passages, documents, background.

It is written below the question, as Alpaca's ``input`` is below its ``instruction``. Where it is
not clear what or where, the row is refused: an answer about what nobody is shown would be learned
blindly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from axtune.data.cells import parse_list, says
from axtune.data.key_names import plain
from axtune.data.prompts import CONVERSATIONS, QUESTIONS
from axtune.errors import Problem

# Columns that hold a text which the question is about.
_PASSAGES = frozenset(
    (
        *("context", "contexts", "ctx", "ctxs", "contexttext", "questioncontext", "background"),
        *("backgroundknowledge", "backgroundinfo", "knowledge", "knowledges", "externalknowledge"),
        *("passage", "passages", "passagetext", "document", "documents", "docs", "documenttext"),
        *("paragraph", "paragraphs", "article", "articles", "articletext", "evidence"),
        *("evidences", "retrieved", "retrieval", "retrievals", "retrievedcontext"),
        *("retrievedcontexts", "retrieveddocuments", "retrieveddocs", "retrievedpassages"),
        *("retrievedtexts", "searchresults", "searchresult", "snippets", "facts", "story"),
        *("inputtext", "inputcontext", "additionalcontext", "inputs", "sourcetext"),
        *("입력", "지문", "본문", "문맥", "맥락", "배경", "배경지식", "참고", "참고자료", "자료"),
        *("컨텍스트", "기사", "문서", "단락", "문단", "근거", "보기지문", "제시문"),
    )
)
# Columns that say what the answer depends on, in a form or a place that is not known.
_UNCLEAR = frozenset(
    (
        *("reference", "references", "referencetext", "referencedocuments", "table", "tables"),
        *("tabletext", "schema", "dbschema", "tableschema", "databaseschema", "sqlcontext"),
        *("createtable", "persona", "personas", "profile", "userprofile", "character"),
        *("characterprofile", "memory", "memories", "scenario", "situation", "premise"),
        *("previousresponseid", "표", "페르소나", "참조", "상황"),
    )
)
# Addresses, names of files, numbers and ids: where something is from.
_ADDRESS = re.compile(r"\s*\w+://\S+\s*")
_ID = re.compile(r"\s*(?:\d+|[\w./\\-]+\.[a-z]{2,5}|(?=\S*\d)\w+(?:[-_/:]\w+)+)\s*", re.ASCII)


# A question that stands beside another text, which is what it is about.
_ASKED = ("input", "query", "question")


def is_context(key: str) -> bool:
    """Whether a column holds what an answer depends on."""
    name = plain(key)
    return name in _PASSAGES or name in _UNCLEAR


def question_key(fields: dict[str, Any]) -> str | None:
    """The column of the question, where it is a text and no conversation asks; else None.

    Args:
        fields: The row's cells that are not null.
    """
    if any(says(fields.get(key)) for key in ("messages", *CONVERSATIONS)):
        return None
    key = next((key for key in QUESTIONS if says(fields.get(key))), None)
    if says(fields.get("instruction")) and key != "prompt":
        key = "input" if says(fields.get("input")) else "instruction"
    return key if key and isinstance(fields[key], str) else None


def take_context(fields: dict[str, Any], problems: list[Problem]) -> None:
    """Write the column that a question is about below it.

    Args:
        fields: The row's cells that are not null; the column is taken out and the question's cell
            changed. Columns that cannot be read stay, for `axtune.data.unread_columns`.
        problems: Appended to.
    """
    perhaps = [key for key in fields if plain(key) in _PASSAGES or plain(key) in _ASKED]
    asked = question_key(fields) if perhaps else None
    if asked is None:
        return
    found = {
        key: text
        for key in perhaps
        if _is_passage(key, asked)
        and (text := _text(fields[key]))
        and text not in fields[asked]
        and not _is_provenance(key, text)
    }
    if not found:
        return
    (key, text), *others = found.items()
    below = ["input"] if asked == "input" and says(fields.get("instruction")) else []
    if others or below:
        columns = (*below, *found)
        message = (
            f"{' and '.join(columns)}: the question is about more than one column, and in which "
            "order they are shown is not known; write them into the question."
        )
        problems.append(Problem("unread-context", message))
        for key in found:
            del fields[key]
        return
    fields[asked] = f"{fields[asked]}\n{text}"
    del fields[key]


def _is_passage(key: str, asked: str) -> bool:
    if key == asked:
        return False
    return plain(key) in _PASSAGES or plain(key) == "input" or asked == "instruction"


def _text(value: Any) -> str:
    """The text of a column, or its texts with empty lines between; empty where it is none."""
    texts = value if isinstance(value, list) else []
    if isinstance(value, str):
        try:
            texts = parse_list(value)
        except ValueError:
            return value.strip()
    whole = all(isinstance(item, str) for item in texts)
    return "\n\n".join(texts).strip() if whole else ""


def _is_provenance(key: str, value: Any) -> bool:
    """Whether a column says where a text is from, rather than what it says."""
    if not isinstance(value, str):
        return isinstance(value, (bool, int, float))
    named = plain(key) in _PASSAGES or plain(key).startswith("reference")
    return _ADDRESS.fullmatch(value) is not None or (named and _ID.fullmatch(value) is not None)


def unseen_context(columns: dict[str, Any]) -> Iterator[tuple[str, Problem]]:
    """The columns that say what an answer depends on, and are not shown.

    Args:
        columns: The row's that are not read and say something else than what is read.

    Yields:
        The column, and why the row is refused.
    """
    for key, value in columns.items():
        if not is_context(key) or _is_provenance(key, value):
            continue
        message = (
            f"{key}: what the answer depends on is not shown, and the model would learn to answer "
            "without it; write it into the question or the turns, or remove the key."
        )
        yield key, Problem("unread-context", message)
