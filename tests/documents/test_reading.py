from __future__ import annotations

import hashlib
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.documents import PdfPage, letters, package, pdf, xlsx

from axtune.documents.document import Refused
from axtune.documents.reading import format_of, read_document

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)


def stream(name: str) -> bytes:
    return OLE + name.encode("utf-16-le")


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (pdf([PdfPage()]), "a.txt", "pdf"),
        (xlsx({"a": "<sheetData/>"}), "a.bin", "xlsx"),
        (package({"word/document.xml": ""}), "a", "docx"),
        (package({"ppt/presentation.xml": ""}), "a", "pptx"),
        (package({"mimetype": "application/hwp+zip", "Contents/a.xml": ""}), "a.zip", "hwpx"),
        (stream("FileHeader") + b"HWP Document File", "a.doc", "hwp"),
        (stream("Workbook"), "a.xls", "xlsx"),
        ("글".encode(), "a.MD", "md"),
        ("글".encode(), "a.log", "txt"),
        (b"\xef\xbb\xbf<!DOCTYPE html><p>", "a", "html"),
        (b"<p>", "a.htm", "html"),
    ],
)
def test_formats_are_told_by_their_bytes(data: bytes, name: str, kind: str) -> None:
    assert format_of(data, name) == kind


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (b"", "a.txt", "empty"),
        (b"\x89PNG", "a.png", "unknown-format"),
        (b"text", "a.docx", "unknown-format"),
        (package({"a.txt": ""}), "a.docx", "unknown-format"),
        (b"PK\x03\x04", "a.docx", "broken"),
        (package({"word/document.xml": bytes(64 << 20)}), "a.docx", "too-large"),
        (stream("EncryptedPackage"), "a.xlsx", "encrypted"),
        (stream("WordDocument"), "a.doc", "unknown-format"),
        (b"\x9b DRMONE  This Document is encrypted", "a.hwp", "encrypted"),
        (b"SCDSA004", "a.docx", "encrypted"),
    ],
)
def test_what_is_not_read_is_refused_by_name(data: bytes, name: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        format_of(data, name)
    assert refused.value.code == code


@given(st.binary(max_size=300), st.sampled_from([b"", b"%PDF-1.7\n", b"PK\x03\x04", OLE]))
def test_any_bytes_are_a_document_or_refused(data: bytes, start: bytes) -> None:
    for name in ("a.txt", "a.html", "a.pdf"):
        with suppress(Refused):
            assert read_document(start + data, name).text


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a document asked for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_samples_of_all_formats_come_whole_with_no_network(shared: Path, no_sockets: None) -> None:
    folder = shared / "domain" / "documents"
    if not folder.is_dir():
        pytest.skip("there are no sample documents")
    absent = json.loads((folder / "expected" / "absent.json").read_text("utf-8"))
    for name in absent:
        data = (folder / name).read_bytes()
        if name == "scan.pdf":
            with pytest.raises(Refused):
                read_document(data, name)
            continue
        document = read_document(data, name)
        expected = (folder / "expected" / f"{name}.txt").read_text("utf-8").splitlines()
        assert document.sha256 == hashlib.sha256(data).hexdigest()
        text = letters(document.text)
        assert [block for block in expected if letters(block) not in text] == [], name
        assert not [words for words in absent[name] if words in document.text], name
        if not name.endswith((".pdf", ".md")):
            lines = document.text.splitlines()
            assert [row for row in expected if " | " in row and row not in lines] == [], name


def test_a_page_with_pictures_and_styles_elsewhere_asks_for_none_of_them(no_sockets: None) -> None:
    html = (
        '<!DOCTYPE html SYSTEM "http://example.invalid/a.dtd"><html><head>'
        '<link rel=stylesheet href="http://example.invalid/a.css"></head><body>'
        '<img src="http://example.invalid/a.png"><p>공지의 글이다.</p></body></html>'
    )
    assert read_document(html.encode(), "a.html").text == "공지의 글이다."
