"""PDF: text in reading order, without running heads and feet; pdfium reads the pages."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from axtune.documents.blocks import row_line
from axtune.documents.document import Content, Refused, missing_package
from axtune.documents.glyphs import Glyph, Page, read_page
from axtune.documents.joints import Breaks
from axtune.documents.layout import AlignedTable, Item, Paragraph, goes_on, items_of
from axtune.documents.lines import Line, lines_of_pieces, pieces_of
from axtune.documents.ruled import RuledTable, ruled_tables
from axtune.documents.running import body_size, without_running, without_running_tables

_NOTE_MARK = re.compile(r"(\d{1,3}\)?|[*†‡]+|\[\d+\]|주\s?\d*\)|[¹²³⁴-⁹])\s*\S")
_NOTHING_MORE = 4  # letters on a page with a picture that are no text: a number, a stamp


def read_pdf(data: bytes) -> Content:
    """The text of a PDF.

    Pages that are pictures are counted as lost.

    Raises:
        Refused: When a password protects it, it is damaged, or every page is a picture.
    """
    try:
        import pypdfium2
    except ImportError as error:
        raise missing_package(error) from None
    import pypdfium2.raw as raw

    try:
        file = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == raw.FPDF_ERR_PASSWORD:
            raise Refused("encrypted", "A password protects it.") from None
        raise Refused("broken", f"It cannot be opened as a PDF: {error}") from None
    try:
        title = file.get_metadata_value("Title")
        pages, broken = _pages(file)
    finally:
        file.close()
    scanned = [page.pictures and len(page.glyphs) <= _NOTHING_MORE for page in pages]
    if pages and all(scanned):
        raise Refused(
            "scanned-pdf", "Its pages are pictures without text; recognise it (OCR) first."
        )
    if not any(page.glyphs for page in pages):
        raise Refused("empty" if pages else "broken", "There is no text on its pages.")
    lost = {"scanned-pages": sum(scanned), "broken-pages": broken}
    lines = list(_lines(pages))
    return Content(lines, title, len(pages) + broken, {k: n for k, n in lost.items() if n})


def _pages(file: Any) -> tuple[list[Page], int]:
    """Pages that can be read, and how many cannot."""
    import pypdfium2

    pages: list[Page] = []
    broken = 0
    for index in range(len(file)):
        try:
            page = file[index]
        except pypdfium2.PdfiumError:
            broken += 1
            continue
        pages.append(read_page(page))
        page.close()
    return pages, broken


def _lines(pages: list[Page]) -> Iterator[str]:
    """Paragraphs and rows of all pages; what goes on in the next column or page is one."""
    split = [ruled_tables(page) for page in pages]
    pieces = without_running(pages, [pieces_of(rest) for _, rest in split])
    tables = without_running_tables(pages, [found for found, _ in split])
    items = [items_of(*page) for page in zip(pieces, tables, strict=True)]
    writer = _Writer(
        Breaks.of(
            (item.lines, item.right)
            for page in items
            for item in page
            if isinstance(item, Paragraph)
        )
    )
    placed: list[tuple[int, Item]] = []
    notes: dict[int, list[Paragraph]] = {}
    for number, page in enumerate(items):
        body, notes[number] = _feet_apart(page)
        placed += ((number, item) for item in body)
    for index, (number, item) in enumerate(placed):
        if _interrupts(placed, index):
            writer.aside.append(item)
        else:
            yield from writer.lines_before(item)
        if index + 1 == len(placed) or placed[index + 1][0] != number:
            writer.aside += notes[number]
    yield from writer.rest()


def _interrupts(placed: list[tuple[int, Item]], index: int) -> bool:
    """Whether a table stands at the end of a page in a paragraph that goes on on the next.

    One line before a table is its title, however full: nothing else may show the column's width.
    """
    if isinstance(placed[index][1], Paragraph):
        return False
    before = next((one for one in placed[index::-1] if isinstance(one[1], Paragraph)), None)
    after = next((one for one in placed[index:] if isinstance(one[1], Paragraph)), None)
    if before is None or after is None or after[0] - before[0] != 1:
        return False
    assert isinstance(before[1], Paragraph)
    assert isinstance(after[1], Paragraph)
    return len(before[1].lines) > 1 and goes_on(before[1], after[1])


class _Writer:
    """Writes items as lines, a paragraph only when it is known to have ended.

    Args:
        breaks: How the document breaks its lines.
    """

    def __init__(self, breaks: Breaks) -> None:
        self.aside: list[Item] = []  # notes and tables that come behind the paragraph
        self._breaks = breaks
        self._going: list[Paragraph] = []  # the parts of a paragraph that may go on
        self._header: list[str] = []  # of a table that was just written

    def lines_before(self, item: Item) -> Iterator[str]:
        """What is known to be whole once an item follows.

        Args:
            item: The next one.
        """
        if isinstance(item, Paragraph):
            if not (self._going and goes_on(self._going[-1], item)):
                yield from self.rest()
            self._going.append(item)
            self._header = []
            return
        yield from self.rest()
        yield from self._table_lines(item)

    def rest(self) -> Iterator[str]:
        """The paragraph that was going on, and what comes behind it."""
        parts, self._going = self._going, []
        aside, self.aside = self.aside, []
        text = ""
        for index, part in enumerate(parts):
            if index:
                before = parts[index - 1]
                text = self._join(text, before.lines[-1], part.lines[0], before.right)
            text += self._text(part.lines, part.right)
        if text:
            yield text
        for item in aside:
            if isinstance(item, Paragraph):
                yield self._text(item.lines, item.right)
            else:
                yield from self._table_lines(item)

    def _table_lines(self, table: AlignedTable | RuledTable) -> Iterator[str]:
        rows = self._rows(table)
        if rows and rows[0] == self._header:
            rows = rows[1:]  # a table that goes on in the next column or page repeats its head
        elif rows:
            self._header = rows[0]
        yield from filter(None, map(row_line, rows))

    def _text(self, lines: list[Line], right: float) -> str:
        text = lines[0].text
        for above, line in itertools.pairwise(lines):
            text = self._join(text, above, line, right) + line.text
        return text

    def _join(self, text: str, above: Line, below: Line, right: float) -> str:
        """Text with what stands between its last line and the next."""
        joint = self._breaks.between(above, below, right)
        return text[:-1] if joint == "-" else text + joint

    def _rows(self, table: AlignedTable | RuledTable) -> list[list[str]]:
        if isinstance(table, AlignedTable):
            return [[piece.text for piece in line.pieces] for line in table.rows]
        texts: dict[int, str] = {}  # by cell: one that is merged downwards is written once
        rows = []
        for row in table.cells:
            cells = []
            for cell, (left, right) in zip(row, table.edges, strict=True):
                if cell is None:
                    continue
                if id(cell) not in texts:
                    texts[id(cell)] = self._cell(cell, left, right)
                cells.append(texts[id(cell)])
            rows.append(cells)
        return rows

    def _cell(self, glyphs: list[Glyph], left: float, right: float) -> str:
        lines = lines_of_pieces(pieces_of(glyphs))
        if not lines:
            return ""
        # What is free at its left is so at its right, unless it is merged or centred.
        margin = min(line.x0 for line in lines) - left
        inner = right - margin if margin < lines[0].size else right
        return self._text(lines, max(inner, *(line.x1 for line in lines)))


def _feet_apart(items: list[Item]) -> tuple[list[Item], list[Paragraph]]:
    """The notes at the foot of a page apart from its text: smaller, and marked by a number."""
    pieces = [
        piece
        for item in items
        if isinstance(item, Paragraph)
        for line in item.lines
        for piece in line.pieces
    ]
    body = body_size([pieces])
    notes: list[Paragraph] = []
    rest = list(items)
    while len(rest) > 1:
        last = rest[-1]
        if not isinstance(last, Paragraph) or last.size > body * 0.92:
            break
        notes.insert(0, last)
        rest.pop()
    if notes and not _NOTE_MARK.match(notes[0].lines[0].text):
        return items, []
    return rest, notes
