"""DOCX: body, tables, text boxes, notes; not the heads and feet of pages, nor what was deleted.

python-docx opens the package and finds its parts; the body is walked here, because its paragraphs
leave out insertions, content controls, text boxes and notes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from axtune.documents.blocks import Block, Table, lines_of
from axtune.documents.document import Content, missing_package
from axtune.documents.ooxml import DGM, MC, A, M, W, broken, diagram_lines

# Elements whose content is text of their own, and those that hold no text that is shown.
_WRITTEN = {
    f"{W}tab": "\t",
    f"{W}ptab": "\t",
    f"{W}br": "\n",
    f"{W}cr": "\n",
    f"{W}noBreakHyphen": "-",
}
_UNSHOWN = frozenset(
    (
        *(f"{W}{name}" for name in ("del", "moveFrom", "instrText", "delText", "rPr", "pPr")),
        *(f"{W}{name}" for name in ("sdtPr", "sdtEndPr", "tblPr", "trPr", "tcPr", "sectPr", "rt")),
        f"{MC}Fallback",  # the same once more, for older programs
    )
)
_NOTES = {"footnotes": f"{W}footnoteReference", "endnotes": f"{W}endnoteReference"}


def read_docx(data: bytes) -> Content:
    """The paragraphs, tables, text boxes and notes of a Word document.

    Notes and text boxes follow the paragraph that they belong to, or the table around it.

    Raises:
        Refused: When it cannot be read.
    """
    try:
        import docx
    except ImportError as error:
        raise missing_package(error) from None

    try:
        document = docx.Document(io.BytesIO(data))
        reader = _Reader(document.part)
        lines = list(lines_of(reader.blocks(document.element.body)))
        title = document.core_properties.title
    except Exception as error:  # what the library meets in a damaged package is anything
        raise broken(error) from None
    return Content(lines, title)


class _Reader:
    """Walks a part's elements.

    Args:
        part: The main part of the document.
    """

    def __init__(self, part: Any) -> None:
        self._part = part
        self._notes = {reference: self._note_elements(name) for name, reference in _NOTES.items()}
        self._aside: list[Block] = []  # of the block that is being read

    def _note_elements(self, name: str) -> dict[str, Any]:
        """Notes by their numbers, without the lines that separate them from a page's text."""
        from lxml import etree

        parser = etree.XMLParser(resolve_entities=False, no_network=True)
        for relation in self._part.rels.values():
            if relation.reltype.endswith(f"/{name}") and not relation.is_external:
                root = etree.fromstring(relation.target_part.blob, parser)
                return {note.get(f"{W}id"): note for note in root if note.get(f"{W}type") is None}
        return {}

    def blocks(self, element: Any) -> Iterator[Block]:
        """The blocks of a body, a cell, a note or a text box, each with what stands aside of it."""
        for block in self._own_blocks(element):
            yield block
            aside, self._aside = self._aside, []
            yield from aside

    def _own_blocks(self, element: Any) -> Iterator[Block]:
        for child in element:
            if child.tag == f"{W}p":
                yield self._text(child)
            elif child.tag == f"{W}tbl":
                yield self._table(child)
            elif child.tag not in _UNSHOWN and isinstance(child.tag, str):
                yield from self._own_blocks(child)  # content controls, insertions, custom XML

    def _text(self, element: Any) -> str:
        """The text of a paragraph or of a piece of one."""
        pieces: list[str] = []
        for child in element:
            tag = child.tag
            if tag in _UNSHOWN or not isinstance(tag, str) or _is_hidden(child):
                continue
            if tag in (f"{W}t", f"{M}t"):
                pieces.append(child.text or "")
            elif tag in _WRITTEN:
                page = child.get(f"{W}type") in ("page", "column")
                pieces.append("" if page else _WRITTEN[tag])
            elif tag == f"{W}sym":
                pieces.append(_symbol(child))
            elif tag in self._notes:
                note = self._notes[tag].get(child.get(f"{W}id"))
                if note is not None:
                    self._put_aside(note)
            elif tag == f"{W}txbxContent":
                self._put_aside(child)
            elif tag == f"{DGM}relIds":
                self._aside += diagram_lines(self._part, child.getparent())
            elif tag == f"{A}t":  # in a drawing that is neither a text box nor a diagram
                self._aside.append(child.text or "")
            else:
                pieces.append(self._text(child))
        return "".join(pieces)

    def _put_aside(self, element: Any) -> None:
        before, self._aside = self._aside, []
        self._aside = before + list(self.blocks(element))

    def _table(self, element: Any) -> Table:
        above: dict[int, list[Block]] = {}  # by column: the cell that may go on downwards
        rows = []
        for row in _children(element, f"{W}tr"):
            cells, column = [], 0
            for cell in _children(row, f"{W}tc"):
                merged = cell.find(f"{W}tcPr/{W}vMerge")
                if merged is not None and merged.get(f"{W}val") != "restart" and column in above:
                    content = above[column]
                else:
                    content = list(self._own_blocks(cell))
                    above[column] = content
                cells.append(content)
                span = cell.find(f"{W}tcPr/{W}gridSpan")
                column += int(span.get(f"{W}val") or 1) if span is not None else 1
            rows.append(cells)
        return Table(rows)


def _children(element: Any, tag: str) -> Iterator[Any]:
    """Rows or cells, those inside of content controls and insertions too."""
    for child in element:
        if child.tag == tag:
            yield child
        elif child.tag in (f"{W}sdt", f"{W}sdtContent", f"{W}ins", f"{W}customXml"):
            yield from _children(child, tag)


def _is_hidden(run: Any) -> bool:
    """Whether a run is set as hidden text, as fields and indexes leave it behind."""
    vanish = run.find(f"{W}rPr/{W}vanish") if run.tag == f"{W}r" else None
    return vanish is not None and vanish.get(f"{W}val") not in ("0", "false")


def _symbol(element: Any) -> str:
    """A character of a symbol font; its own numbers (F0xx) say nothing outside of the font."""
    code = int(element.get(f"{W}char") or "0", 16)
    return "" if 0xE000 <= code <= 0xF8FF or not code else chr(code)
