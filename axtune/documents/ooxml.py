"""What Word and PowerPoint files share: properties, text boxes, faults."""

from __future__ import annotations

from typing import Any

from axtune.documents.document import Refused

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
DGM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"
MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"


def broken(error: Exception) -> Refused:
    """The refusal of a package that its library could not read."""
    return Refused("broken", f"It is damaged: {type(error).__name__} while it was read.")


def diagram_lines(part: Any, frame: Any) -> list[str]:
    """The text of a SmartArt diagram, whose points lie in a part of their own.

    Args:
        part: The part that the diagram stands in.
        frame: The element around ``dgm:relIds``.
    """
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    lines: list[str] = []
    for ids in frame.iter(f"{DGM}relIds"):
        data = part.rels.get(ids.get(f"{R}dm"))
        if data is None or data.is_external:
            continue
        root = etree.fromstring(data.target_part.blob, parser)
        for paragraph in root.iterfind(f".//{DGM}pt/{DGM}t/{A}p"):
            lines.append("".join(text.text or "" for text in paragraph.iter(f"{A}t")))
    return lines
