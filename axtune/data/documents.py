"""Rows that are documents: a ``text``, and ``meta`` that says where it is from.

`axtune data import` writes such rows; a file that is itself a document is read as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axtune.config.paths import DOCUMENTS
from axtune.data.cells import says
from axtune.data.key_names import names_of
from axtune.data.rows import Row, too_large
from axtune.errors import Fault, Problem

TEXT, META = "text", "meta"


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A document to be learned as it stands.

    Attributes:
        text: All of it.
    """

    text: str


def open_document(fields: dict[str, Any], problems: list[Problem]) -> DocumentRow | None:
    """A row's document.

    Args:
        fields: The row's cells that are not null.
        problems: Appended to.

    Returns:
        None when its text is none.
    """
    text = fields.get(TEXT, "")
    if not isinstance(text, str):
        message = f"{TEXT}: expected a string, the document's text; join its parts with newlines."
        problems.append(Problem("bad-content", message))
        return None
    unread = {k: v for k, v in fields.items() if k not in (TEXT, META) and says(v)}
    if unread:
        message = (
            f"not read: {names_of(unread)}; the row is read as a document, and nothing of it is "
            f"learned. Write what it says into {TEXT}, or put it into {META}."
        )
        problems.append(Problem("unread-key", message, "warning"))
    return DocumentRow(text)


def read_document_file(path: Path, limit: int) -> Iterator[Row]:
    """The one row of a file that is a document; a fault in its place where it gives no text.

    Args:
        path: A file that `axtune.config.paths.is_document` knows.
        limit: Bytes that the text may have.

    Raises:
        MissingPackageError: When the library of its format is not installed.
        OSError: When it cannot be read.
    """
    from axtune.documents.document import Refused
    from axtune.documents.plain import decoded
    from axtune.documents.reading import read_document

    name = str(path)
    try:
        data = path.read_bytes()
        if path.suffix.lower() in DOCUMENTS:
            row = read_document(data, path.name).to_row()
        else:  # code and settings mean what they say to the last space
            row = {TEXT: decoded(data).replace("\r\n", "\n"), META: {"source": path.name}}
    except Refused as refused:
        yield Row(name, 1, None, Fault(name, 1, refused.code, refused.message))
        return
    if len(row[TEXT].encode()) > limit:
        yield Row(name, 1, None, too_large(name, 1, limit))
        return
    yield Row(name, 1, row)
