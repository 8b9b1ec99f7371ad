from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from typing import Any

import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from support.documents import package

from axtune.documents.document import Refused
from axtune.documents.docx import read_docx


def saved(document: Any) -> bytes:
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def element(xml: str) -> Any:
    spaces = nsdecls("w", "r", "wp", "a", "m")
    name = xml.index(">") - (xml[xml.index(">") - 1] == "/")
    return parse_xml(f"{xml[:name]} {spaces}{xml[name:]}")


def test_paragraphs_tables_and_lists_in_order_without_heads_and_feet() -> None:
    document = docx.Document()
    document.core_properties.title = "휴가 규정"
    document.sections[0].header.paragraphs[0].text = "사규집"
    document.sections[0].footer.paragraphs[0].text = "대외비"
    document.add_heading("제1장 총칙")
    document.add_paragraph("이 규정은 휴가를 정한다.")
    document.add_paragraph("반차는 네 시간이다.", style="List Bullet")
    table = document.add_table(3, 3)
    for row, cells in zip(
        table.rows,
        [("구분", "대상", ""), ("결혼", "본인", "5일"), ("", "자녀", "2일")],
        strict=True,
    ):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    table.cell(0, 1).merge(table.cell(0, 2))
    inner = table.cell(2, 2).add_table(1, 2)
    inner.cell(0, 0).text, inner.cell(0, 1).text = "안", "쪽"
    document.add_paragraph("부칙")
    content = read_docx(saved(document))
    assert content.title == "휴가 규정"
    assert content.lines == [
        "제1장 총칙",
        "이 규정은 휴가를 정한다.",
        "반차는 네 시간이다.",
        "구분 | 대상",
        "결혼 | 본인 | 5일",
        "결혼 | 자녀 | 2일",
        "안 | 쪽",
        "부칙",
    ]


def test_what_python_docx_leaves_out_is_read_and_what_was_deleted_is_not() -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("처음 ")
    for xml in (
        "<w:ins><w:r><w:t>넣은 </w:t></w:r></w:ins>",
        "<w:del><w:r><w:delText>지운 </w:delText></w:r></w:del>",
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>숨긴 </w:t></w:r>",
        "<w:hyperlink><w:r><w:t>연결</w:t><w:tab/><w:t>탭</w:t></w:r></w:hyperlink>",
        "<w:r><w:instrText>PAGE</w:instrText><w:br/><w:t>다음 줄</w:t></w:r>",
        "<m:oMath><m:r><m:t>x=1</m:t></m:r></m:oMath>",
    ):
        paragraph._p.append(element(xml))
    control = (
        "<w:sdt><w:sdtContent><w:p><w:r><w:t>단추 안의 글</w:t></w:r></w:p></w:sdtContent></w:sdt>"
    )
    document.element.body.insert(1, element(control))
    assert read_docx(saved(document)).lines == ["처음 넣은 연결\t탭\n다음 줄x=1", "단추 안의 글"]


def test_text_boxes_once_and_notes_behind_their_paragraph() -> None:
    box = "<w:txbxContent><w:p><w:r><w:t>상자 안의 글</w:t></w:r></w:p></w:txbxContent>"
    shape = (
        '<w:r><mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/'
        f'markup-compatibility/2006"><mc:Choice Requires="wps">{box}</mc:Choice><mc:Fallback>{box}'
        "</mc:Fallback></mc:AlternateContent></w:r>"
    )
    document = docx.Document()
    paragraph = document.add_paragraph("본문")
    paragraph._p.append(element(shape))
    paragraph._p.append(element('<w:r><w:footnoteReference w:id="2"/></w:r>'))
    paragraph._p.append(element("<w:r><w:t>이 이어진다.</w:t></w:r>"))
    document.add_paragraph("다음 문단")
    notes = (
        f'<w:footnotes {nsdecls("w")}><w:footnote w:id="0" w:type="separator"><w:p><w:r><w:t>선'
        '</w:t></w:r></w:p></w:footnote><w:footnote w:id="2"><w:p><w:r><w:t>각주의 글</w:t></w:r>'
        "</w:p></w:footnote></w:footnotes>"
    )
    from docx.opc.packuri import PackURI
    from docx.opc.part import Part

    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"
    part = Part(PackURI("/word/footnotes.xml"), kind, notes.encode(), document.part.package)
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
    document.part.relate_to(part, relation)
    assert read_docx(saved(document)).lines == [
        "본문이 이어진다.",
        "상자 안의 글",
        "각주의 글",
        "다음 문단",
    ]


def test_a_damaged_document_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        read_docx(package({"word/document.xml": "<w:document"}))
    assert refused.value.code == "broken"


def test_entities_of_a_document_are_not_read(tmp_path: Any) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("비밀", "utf-8")
    document = docx.Document()
    document.add_paragraph("글")
    with zipfile.ZipFile(io.BytesIO(saved(document))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    body = parts["word/document.xml"].decode()
    entity = f'<!DOCTYPE d [<!ENTITY s SYSTEM "{secret}">]>'
    body = body.replace("<w:document", f"{entity}<w:document", 1)
    parts["word/document.xml"] = body.replace("글", "글&s;").encode()
    lines: list[str] = []
    with suppress(Refused):
        lines = read_docx(package(parts)).lines
    assert "비밀" not in "".join(lines)
