"""Small documents made in process: PDF by its bytes, packages by their parts."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axtune.documents.glyphs import Glyph
from axtune.documents.lines import Line, lines_of_pieces, pieces_of

PAGE_WIDTH, PAGE_HEIGHT = 595, 842
# As the PDF's font has it below: half a height for ASCII, a whole one for all else.
_NARROW = 0.5


@dataclass(slots=True)
class PdfPage:
    """What is drawn on a page.

    Attributes:
        texts: Left end, baseline, size and text of each.
        rules: Lines between two points.
        picture: Whether a picture covers it.
        rotate: Degrees that it is shown turned by.
    """

    texts: list[tuple[float, float, float, str]] = field(default_factory=list)
    rules: list[tuple[float, float, float, float]] = field(default_factory=list)
    picture: bool = False
    rotate: int = 0
    turned: list[tuple[float, float, float, str]] = field(default_factory=list)

    def write(self, x: float, y: float, text: str, size: float = 10) -> PdfPage:
        """Add a text; gives the page."""
        self.texts.append((x, y, size, text))
        return self

    def paragraph(
        self, x: float, y: float, text: str, letters: int, size: float = 10, leading: float = 16
    ) -> float:
        """Add a text with lines of at most so many wide letters, broken between words.

        Returns:
            The baseline below.
        """
        for line in wrapped(text, letters):
            self.write(x, y, line, size)
            y -= leading
        return y

    def table(
        self, x: float, y: float, widths: Sequence[float], rows: Sequence[Sequence[str]]
    ) -> None:
        """Add a table with lines around its cells, its upper left corner at a point."""
        height, right = 20, x + sum(widths)
        for index in range(len(rows) + 1):
            self.rules.append((x, y - index * height, right, y - index * height))
        edges = [x + sum(widths[:index]) for index in range(len(widths) + 1)]
        for edge in edges:
            self.rules.append((edge, y, edge, y - len(rows) * height))
        for index, row in enumerate(rows):
            for edge, cell in zip(edges, row, strict=False):
                self.write(edge + 4, y - index * height - 14, cell, 9)


def width(text: str) -> float:
    """Of a text, in heights of its font."""
    return sum(_NARROW if ord(letter) < 128 else 1 for letter in text)


def wrapped(text: str, letters: float, anywhere: bool = False) -> list[str]:
    """A text in lines of at most so many heights, broken between words or anywhere."""
    lines, line = [], ""
    for piece in text if anywhere else re.findall(r"\S+\s*", text):
        if width((line + piece).rstrip()) > letters:
            lines.append(line.strip())
            line = ""
        line += piece
    return [*lines, line.strip()]


def pdf(pages: Sequence[PdfPage], title: str = "") -> bytes:
    """A PDF with a Korean font that is not embedded."""
    parts = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "",  # the pages, when their numbers are known
        "<< /Type /Font /Subtype /Type0 /BaseFont /HYGoThic-Medium /Encoding /UniKS-UTF16-H "
        "/DescendantFonts [4 0 R] >>",
        "<< /Type /Font /Subtype /CIDFontType0 /BaseFont /HYGoThic-Medium /CIDSystemInfo "
        "<< /Registry (Adobe) /Ordering (Korea1) /Supplement 1 >> /FontDescriptor 5 0 R /DW 1000 "
        "/W [1 95 500 8094 8190 500] >>",
        "<< /Type /FontDescriptor /FontName /HYGoThic-Medium /Flags 6 /FontBBox [0 -200 1000 800] "
        "/ItalicAngle 0 /Ascent 800 /Descent -200 /CapHeight 700 /StemV 60 >>",
        "<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray "
        "/BitsPerComponent 8 /Length 1 >>\nstream\n0\nendstream",
        f"<< /Title <feff{title.encode('utf-16-be').hex()}> >>",
    ]
    numbers = []
    for page in pages:
        content = _content(page)
        parts.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
        parts.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {PAGE_WIDTH} {PAGE_HEIGHT}] "
            f"/Rotate {page.rotate} /Contents {len(parts)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> /XObject << /I 6 0 R >> >> >>"
        )
        numbers.append(len(parts))
    kids = " ".join(f"{number} 0 R" for number in numbers)
    parts[1] = f"<< /Type /Pages /Kids [{kids}] /Count {len(numbers)} >>"
    return _numbered(parts)


def _content(page: PdfPage) -> str:
    drawn = [f"{x0} {y0} m {x1} {y1} l S" for x0, y0, x1, y1 in page.rules]
    if page.picture:
        drawn.append(f"q {PAGE_WIDTH} 0 0 {PAGE_HEIGHT} 0 0 cm /I Do Q")
    for texts, matrix in ((page.texts, "1 0 0 1"), (page.turned, "0.7 0.7 -0.7 0.7")):
        for x, y, size, text in texts:
            code = text.encode("utf-16-be").hex()
            drawn.append(f"BT /F1 {size} Tf {matrix} {x} {y} Tm <{code}> Tj ET")
    return "\n".join(drawn)


def _numbered(parts: Sequence[str]) -> bytes:
    file = io.BytesIO(b"%PDF-1.7\n")
    file.seek(0, io.SEEK_END)
    places = []
    for number, part in enumerate(parts, 1):
        places.append(file.tell())
        file.write(f"{number} 0 obj\n{part}\nendobj\n".encode("latin-1"))
    start = file.tell()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    file.write(
        f"xref\n0 {len(parts) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(parts) + 1} "
        f"/Root 1 0 R /Info 7 0 R >>\nstartxref\n{start}\n%%EOF\n".encode("latin-1")
    )
    return file.getvalue()


def package(parts: Mapping[str, str | bytes]) -> bytes:
    """A ZIP file with these parts."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_LINKS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def xlsx(sheets: Mapping[str, str], hidden: Sequence[str] = ()) -> bytes:
    """A workbook of sheets, each given as the XML of its ``sheetData`` and what follows it.

    Style 1 is a date, style 2 a date with the time.
    """
    listed, links, types = "", "", ""
    parts: dict[str, str] = {}
    for number, (name, data) in enumerate(sheets.items(), 1):
        state = ' state="hidden"' if name in hidden else ""
        listed += f'<sheet name="{name}" sheetId="{number}"{state} r:id="r{number}"/>'
        links += (
            f'<Relationship Id="r{number}" Type="{_OFFICE}/worksheet" '
            f'Target="worksheets/sheet{number}.xml"/>'
        )
        kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"
        types += f'<Override PartName="/xl/worksheets/sheet{number}.xml" ContentType="{kind}"/>'
        parts[f"xl/worksheets/sheet{number}.xml"] = (
            f'<worksheet xmlns="{_SHEET}">{data}</worksheet>'
        )
    parts |= {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/'
        f'content-types"><Default Extension="xml" ContentType="application/xml"/>{types}</Types>',
        "_rels/.rels": f'<Relationships xmlns="{_LINKS}"><Relationship Id="r" '
        f'Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><sheets>{listed}'
        "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_LINKS}">{links}<Relationship '
        f'Id="s" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{_SHEET}"><cellXfs count="3"><xf numFmtId="0"/>'
        '<xf numFmtId="14"/><xf numFmtId="22"/></cellXfs></styleSheet>',
    }
    return package(parts)


def text_glyphs(text: str, x: float, y: float, size: float = 10) -> list[Glyph]:
    """The glyphs of a text on a baseline."""
    glyphs, space = [], False
    for letter in text:
        wide = size * width(letter)
        if letter == " ":
            space = True
        else:
            glyphs.append(Glyph(letter, x, x + wide, y, size, space))
            space = False
        x += wide
    return glyphs


def text_lines(texts: Sequence[str], x: float = 50, y: float = 700, size: float = 10) -> list[Line]:
    """Lines below each other."""
    glyphs = [g for i, text in enumerate(texts) for g in text_glyphs(text, x, y - 16 * i, size)]
    return lines_of_pieces(pieces_of(glyphs))


def letters(text: str) -> str:
    """A text without white space, bars between cells and the marks of Markdown."""
    return re.sub(r"[\s|#*\-`>_•]+", "", text)


def rows_of(corpus: Path) -> list[dict[str, Any]]:
    """The rows of a corpus."""
    return [json.loads(line) for line in corpus.read_text("utf-8").splitlines()]
