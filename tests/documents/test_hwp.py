from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import hwpx
import pytest
from support.documents import letters, package

from axtune.documents.document import Refused
from axtune.documents.hwp import read_hwp


def saved(document: Any) -> bytes:
    file = io.BytesIO()
    document.save_to_stream(file)
    return file.getvalue()


def changed(data: bytes, old: str, new: str) -> bytes:
    """A package in whose section a piece of XML is another."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    section = parts["Contents/section0.xml"].decode()
    assert old in section
    return package(parts | {"Contents/section0.xml": section.replace(old, new).encode()})


def test_paragraphs_and_tables_in_order_without_heads() -> None:
    document = hwpx.HwpxDocument.new()
    document.page.set_header(text="사규집")
    document.add_paragraph("정보보호 지침")
    table = document.add_table(3, 2)
    for row, cells in enumerate([("등급", "보관"), ("극비", "금고"), ("", "서버")]):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    document.add_paragraph("제1조\t목적")
    assert read_hwp(saved(document)).lines == [
        "정보보호 지침",
        "등급 | 보관",
        "극비 | 금고",
        " | 서버",
        "제1조\t목적",
    ]


def test_merged_cells_nested_tables_notes_and_deleted_text() -> None:
    document = hwpx.HwpxDocument.new()
    document.add_paragraph("머리")
    table = document.add_table(2, 2)
    for row, cells in enumerate([("결혼", "본인"), ("", "자녀")]):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    table.merge_cells(0, 0, 1, 0)
    document.add_paragraph("꼬리말자리")
    cell = "<hp:tc><hp:subList><hp:p><hp:run><hp:t>{}</hp:t></hp:run></hp:p></hp:subList></hp:tc>"
    inner = f"<hp:tbl><hp:tr>{cell.format('안')}{cell.format('쪽')}</hp:tr></hp:tbl>"
    paragraph = "<hp:p><hp:run><hp:t>각주</hp:t></hp:run></hp:p>"
    note = f"<hp:footNote><hp:subList>{paragraph}</hp:subList></hp:footNote>"
    data = changed(
        saved(document),
        "꼬리말자리</hp:t>",
        f"글의 앞<hp:deleteBegin/>지운<hp:deleteEnd/></hp:t><hp:ctrl>{note}</hp:ctrl>"
        f"<hp:t> 글의 뒤<hp:lineBreak/>다음</hp:t>{inner}",
    )
    assert read_hwp(data).lines == [
        "머리",
        "결혼 | 본인",
        "결혼 | 자녀",
        "글의 앞 글의 뒤\n다음",
        "각주",
        "안 | 쪽",
    ]


def test_an_encrypted_package_and_a_damaged_one_are_refused() -> None:
    with zipfile.ZipFile(io.BytesIO(saved(hwpx.HwpxDocument.new()))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    locked = "<odf:manifest><odf:file-entry><odf:encryption-data/></odf:file-entry></odf:manifest>"
    for data, code in (
        (package(parts | {"META-INF/manifest.xml": locked}), "encrypted"),
        (package({"mimetype": "application/hwp+zip"}), "broken"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"HWP Document File" + bytes(600), "broken"),
    ):
        with pytest.raises(Refused) as refused:
            read_hwp(data)
        assert refused.value.code == code


def test_hwp_5_is_read_whole(shared: Path) -> None:
    file = shared / "domain" / "documents" / "minutes.hwp"
    if not file.is_file():
        pytest.skip("there is no sample of HWP 5")
    expected = (file.parent / "expected" / "minutes.hwp.txt").read_text("utf-8")
    content = read_hwp(file.read_bytes())
    assert letters("\n".join(content.lines)) == letters(expected)
    assert content.lost == {}


def test_a_distribution_document_is_refused_by_name(shared: Path) -> None:
    file = shared / "domain" / "documents" / "minutes.hwp"
    if not file.is_file():
        pytest.skip("there is no sample of HWP 5")
    data = bytearray(file.read_bytes())
    place = data.rindex(b"HWP Document File") + 36  # the flags: bit 2 is for distribution
    data[place] |= 4
    with pytest.raises(Refused) as refused:
        read_hwp(bytes(data))
    assert refused.value.code == "encrypted"
