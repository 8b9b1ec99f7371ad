from __future__ import annotations

from types import SimpleNamespace

from lxml import etree

from axtune.documents.ooxml import broken, diagram_lines

DIAGRAM = "http://schemas.openxmlformats.org/drawingml/2006/diagram"
DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def test_the_points_of_a_diagram_are_lines() -> None:
    points = "".join(
        f"<d:pt><d:t><a:p><a:r><a:t>{text}</a:t></a:r></a:p></d:t></d:pt>"
        for text in ("접수", "처리")
    )
    blob = f'<d:dataModel xmlns:d="{DIAGRAM}" xmlns:a="{DRAWING}">{points}</d:dataModel>'.encode()
    data = SimpleNamespace(is_external=False, target_part=SimpleNamespace(blob=blob))
    frame = etree.fromstring(
        f'<x xmlns:d="{DIAGRAM}" xmlns:r="{LINKS}"><d:relIds r:dm="r1"/><d:relIds r:dm="r9"/></x>'
    )
    assert diagram_lines(SimpleNamespace(rels={"r1": data}), frame) == ["접수", "처리"]


def test_a_damaged_package_is_named_by_the_kind_of_error_only() -> None:
    refused = broken(KeyError("비밀"))
    assert (refused.code, "비밀" in refused.message) == ("broken", False)
