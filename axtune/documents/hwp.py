"""HWPX and HWP 5: paragraphs, tables, text boxes and notes, without the heads and feet of pages.

python-hwpx opens both and turns HWP 5 into the model of HWPX; the model is walked here, because
its own plain text parts cells with the tabs that paragraphs have too, and breaks rows at the
paragraphs of a cell.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

from axtune.documents.blocks import Block, Table, lines_of
from axtune.documents.document import Content, Refused, missing_package

# By the element's name without its namespace, which differs between versions of the format.
_UNSHOWN = frozenset(
    (
        "header", "footer", "secPr", "hiddenComment", "fieldEnd", "deleteText", "memo",
        "masterPage", "shapeComment", "parameters", "pageHiding", "indexmark", "subText",
        "linesegarray",
    )
)  # fmt: skip
_WRITTEN = {"tab": "\t", "lineBreak": "\n", "nbSpace": " ", "fwSpace": " ", "hyphen": "-"}
_BOXES = frozenset(("drawText", "caption", "footNote", "endNote"))
_PROTECTED = frozenset(("hwp5-password", "hwp5-distribution", "hwp5-drm"))


def read_hwp(data: bytes) -> Content:
    """The text of an HWPX or HWP 5 document.

    Notes and text boxes follow the paragraph that they belong to. What HWP 5 holds and the library
    does not convert is counted as lost.

    Raises:
        Refused: When it is protected (a password, DRM, a distribution document) or damaged.
    """
    try:
        import hwpx
        from hwpx.errors import Hwp5Error
    except ImportError as error:
        raise missing_package(error) from None

    if data.startswith(b"PK"):
        _refuse_encrypted_package(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is lost is in the conversion's report
            document = hwpx.HwpxDocument.open(data)
        blocks = [block for section in document.sections for block in _blocks(section.element)]
    except Hwp5Error as error:
        if error.code in _PROTECTED:
            raise Refused(
                "encrypted",
                f"It is protected ({error.code}); save it without that in Hancom Office.",
            ) from None
        raise Refused("broken", f"It is damaged, or of another version: {error.code}.") from None
    except Exception as error:  # what the library meets in a damaged package is anything
        raise Refused(
            "broken", f"It is damaged: {type(error).__name__} while it was read."
        ) from None
    report = document.conversion_report
    lost: dict[str, int] = {}
    if report is not None:
        for kind, count in [*report.unconverted.items(), *report.dropped.items()]:
            lost[str(kind)] = lost.get(str(kind), 0) + int(count)
    return Content(list(lines_of(blocks)), _title(document), lost=lost)


def _refuse_encrypted_package(data: bytes) -> None:
    """Refuse HWPX whose parts the manifest says are encrypted."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            manifest = package.read("META-INF/manifest.xml")
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return
    if b"encryption-data" in manifest:
        raise Refused("encrypted", "A password protects it; save it without one in Hancom Office.")


def _title(document: Any) -> str:
    """The title of the package's metadata."""
    for name in document.package.part_names():
        if name.endswith("content.hpf"):
            for element in document.package.get_xml(name).iter():
                if _name(element) == "title":
                    return element.text or ""
    return ""


def _name(element: Any) -> str:
    return element.tag.rsplit("}", 1)[-1] if isinstance(element.tag, str) else ""


def _blocks(element: Any) -> Iterator[Block]:
    """The blocks of a section, a cell, a box or a note."""
    for child in element:
        name = _name(child)
        if name == "p":
            yield from _paragraph(child)
        elif name == "subList":
            yield from _blocks(child)


def _paragraph(paragraph: Any) -> Iterator[Block]:
    """A paragraph's text, then the tables, boxes and notes in it.

    A table behind the paragraph's first text stands there where it is set as a letter, and
    otherwise, as it floats, behind the paragraph.
    """
    pieces: list[str] = []
    aside: list[Block] = []
    for part in _parts(paragraph):
        if isinstance(part, str):
            pieces.append(part)
        elif _name(part) == "tbl":
            table = [_table(part), *_captions(part)]
            if "".join(pieces).strip() and not _is_set_as_letter(part):
                aside += table
            else:
                yield "".join(pieces)
                pieces = []
                yield from table
        else:
            aside += list(_blocks(part))
    yield "".join(pieces)
    yield from aside


def _captions(table: Any) -> Iterator[Block]:
    for child in table:
        if _name(child) == "caption":
            yield from _blocks(child)


def _is_set_as_letter(table: Any) -> bool:
    return any(_name(child) == "pos" and child.get("treatAsChar") == "1" for child in table)


def _parts(element: Any) -> Iterator[str | Any]:
    """Pieces of text, and elements that hold paragraphs of their own."""
    for child in element:
        name = _name(child)
        if name in _UNSHOWN or not name:
            pass
        elif name == "t":
            yield from _text(child)
        elif name == "tbl" or name in _BOXES:
            yield child
        elif name in _WRITTEN:
            yield _WRITTEN[name]
        elif name == "script":  # of an equation, in Hancom's notation
            yield child.text or ""
        elif name == "switch":  # the same for newer and for older programs
            yield from _parts(next(iter(child)) if len(child) else child)
        else:
            yield from _parts(child)


def _text(element: Any) -> Iterator[str]:
    """Mixed text; what change tracking has deleted is left out."""
    deleted = False
    yield element.text or ""
    for child in element:
        name = _name(child)
        if name in ("deleteBegin", "deleteEnd"):
            deleted = name == "deleteBegin"
        elif not deleted:
            yield _WRITTEN.get(name, "")
        if not deleted:
            yield child.tail or ""


def _table(table: Any) -> Table:
    """Cells merged downwards stand in each row, those merged across once."""
    covered: dict[tuple[int, int], list[Block]] = {}
    rows: list[list[list[Block]]] = []
    found = [child for child in table if _name(child) == "tr"]
    for index, row in enumerate(found):
        placed: dict[int, list[Block]] = {}
        for position, cell in enumerate(child for child in row if _name(child) == "tc"):
            inner = {_name(child): child for child in cell}
            column = _number(inner.get("cellAddr"), "colAddr", position)
            placed[column] = list(_blocks(cell))
            down = _number(inner.get("cellSpan"), "rowSpan", 1)
            for below in range(index + 1, min(index + down, len(found))):
                covered[below, column] = placed[column]
        merged = {column: cell for (at, column), cell in covered.items() if at == index}
        rows.append([cell for _, cell in sorted((merged | placed).items())])
    return Table(rows)


def _number(element: Any, name: str, default: int) -> int:
    value = "" if element is None else element.get(name) or ""
    return int(value) if value.isdecimal() else default
