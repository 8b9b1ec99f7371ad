"""What format bytes are in, and the reader of that format."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import PurePath

from axtune.documents.archives import refuse_bomb
from axtune.documents.document import Content, Document, Format, Refused, as_document
from axtune.documents.docx import read_docx
from axtune.documents.html import read_html
from axtune.documents.hwp import read_hwp
from axtune.documents.pdf import read_pdf
from axtune.documents.plain import read_plain
from axtune.documents.pptx import read_pptx
from axtune.documents.xlsx import read_xlsx

_READERS: dict[Format, Callable[[bytes], Content]] = {
    "pdf": read_pdf,
    "docx": read_docx,
    "html": read_html,
    "hwpx": read_hwp,
    "hwp": read_hwp,
    "xlsx": read_xlsx,
    "pptx": read_pptx,
    "txt": read_plain,
    "md": read_plain,
}
# Text says nothing of what it is; its name does.
_TEXT_NAMES: dict[str, Format] = {
    ".txt": "txt",
    ".text": "txt",
    ".log": "txt",
    ".md": "md",
    ".markdown": "md",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
}
_PARTS: dict[str, Format] = {"word/": "docx", "xl/": "xlsx", "ppt/": "pptx", "Contents/": "hwpx"}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# Documents that a company's own protection has wrapped: Fasoo, SoftCamp, NASCA.
_DRM = (b"\x9b DRMONE", b"SCDSA00", b"<## NASCA DRM FILE")
_LARGEST = 512 << 20


def read_document(data: bytes, source: str, sha256: str = "") -> Document:
    """A document as text.

    Args:
        data: Its bytes, all of them.
        source: Its name; what it is decides by its bytes, by the name only for text and HTML.
        sha256: Of the bytes, where it is known.

    Raises:
        Refused: When it gives no text.
        MissingPackageError: When the library of its format is not installed.
    """
    kind = format_of(data, source)
    content = _READERS[kind](data)
    return as_document(content, source, kind, sha256 or hashlib.sha256(data).hexdigest())


def format_of(data: bytes, source: str) -> Format:
    """The format of bytes.

    Raises:
        Refused: When it is none that is read, or its size or protection forbid it.
    """
    suffix = PurePath(source).suffix.lower()
    if not data:
        raise Refused("empty", "It holds no bytes.")
    if len(data) > _LARGEST:
        raise Refused("too-large", f"It has {len(data):,} bytes; at most {_LARGEST:,} are read.")
    if any(data.startswith(mark) for mark in _DRM):
        raise Refused("encrypted", "DRM wraps it; export it without in the program it is from.")
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if data.startswith(b"PK"):
        return _package_format(data)
    if data.startswith(_OLE):
        return _compound_format(data)
    if suffix in _TEXT_NAMES:
        return _TEXT_NAMES[suffix]
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    if suffix[1:] in _READERS:
        raise Refused(
            "unknown-format", f"It is named {suffix}, and its bytes are of no such document."
        )
    raise Refused(
        "unknown-format",
        f"{suffix or 'A file without a suffix'} is none of "
        "PDF, DOCX, HTML, HWPX, HWP, XLSX, PPTX, TXT, MD.",
    )


def _package_format(data: bytes) -> Format:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            names = package.namelist()
            refuse_bomb(package)
            mimetype = package.read("mimetype")[:64] if "mimetype" in names else b""
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        raise Refused("broken", "Its ZIP package cannot be opened.") from None
    if mimetype.startswith(b"application/hwp+zip"):
        return "hwpx"
    for part, kind in _PARTS.items():
        if any(name.startswith(part) for name in names):
            return kind
    raise Refused("unknown-format", "It is a ZIP package that holds no document that is read.")


def _compound_format(data: bytes) -> Format:
    """HWP 5, an XLS workbook, or what Office has encrypted, by the names of its streams.

    The directory of a compound file (MS-CFB) holds them as UTF-16.
    """

    def has(name: str) -> bool:
        return name.encode("utf-16-le") in data

    if has("EncryptedPackage") or has("EncryptionInfo"):
        raise Refused("encrypted", "A password protects it.")
    if has("FileHeader") and b"HWP Document File" in data:
        return "hwp"
    if has("Workbook"):
        return "xlsx"
    if has("WordDocument") or has("PowerPoint Document"):
        raise Refused("unknown-format", "It is of Office before 2007; save it as DOCX or PPTX.")
    raise Refused("unknown-format", "It is a compound file that holds no document that is read.")
