from __future__ import annotations

import io
import stat
import tarfile
import zipfile

import pytest
from support.documents import package

from axtune.documents.archives import (
    NO_FILE,
    Entry,
    entries_of,
    is_archive,
    is_leftover,
    meant_name,
    refuse_bomb,
)
from axtune.documents.document import Refused


def entries(data: bytes, name: str = "a.zip") -> list[Entry]:
    return list(entries_of(io.BytesIO(data), name))


def tar(files: dict[str, bytes], mode: str = "w:gz", encoding: str = "utf-8") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, encoding=encoding, format=tarfile.GNU_FORMAT) as out:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return file.getvalue()


def cp949_zip(name: str) -> bytes:
    """As Windows in Korean writes it: CP949, and no flag that says which encoding."""
    ascii_name = "x" * len(name.encode("cp949"))
    return package({ascii_name: "글"}).replace(ascii_name.encode(), name.encode("cp949"))


def test_files_of_a_zip_by_name_without_leftovers() -> None:
    data = package({"나.txt": "2", "가/다.txt": "1", "__MACOSX/가.txt": "x", "가/~$나.docx": "x"})
    assert [(e.name, e.data) for e in entries(data)] == [("가/다.txt", b"1"), ("나.txt", b"2")]


def test_names_in_cp949_are_read_as_they_were_meant() -> None:
    assert [e.name for e in entries(cp949_zip("규정집/휴가.txt"))] == ["규정집/휴가.txt"]
    data = tar({"규정집/휴가.txt": b"1"}, encoding="cp949")
    assert [e.name for e in entries(data, "a.tar.gz")] == ["규정집/휴가.txt"]
    assert meant_name("휴가".encode()) == meant_name("휴가".encode("cp949")) == "휴가"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_each_kind_of_tar(mode: str) -> None:
    data = tar({"나.txt": b"2", ".숨김/가.txt": b"1"}, mode)
    assert [(e.name, e.data) for e in entries(data, "a.tgz")] == [("나.txt", b"2")]


@pytest.mark.parametrize(
    "name", ["../밖.txt", "/밖.txt", "가/../../밖.txt", "C:\\밖.txt", "..\\밖.txt"]
)
def test_names_that_lead_out_are_refused(name: str) -> None:
    (entry,) = entries(package({name: "1"}))
    assert entry.refused is not None
    assert (entry.data, entry.refused.code) == (b"", "broken")


def test_links_are_refused_by_name() -> None:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        link = tarfile.TarInfo("가.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    packed = zipfile.ZipInfo("가.txt")
    packed.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(zipped := io.BytesIO(), "w") as archive:
        archive.writestr(packed, "/etc/passwd")
    for data, name in ((held, "a.tar"), (zipped, "a.zip")):
        (entry,) = entries(data.getvalue(), name)
        assert (entry.name, entry.data, entry.refused) == ("가.txt", b"", NO_FILE)


def test_bombs_are_refused_before_they_unfold() -> None:
    bomb = package({"a.txt": bytes(64 << 20), "b.txt": "글"})
    first, second = entries(bomb)
    assert first.refused is not None
    assert first.refused.code == "too-large"
    assert second.data == "글".encode()
    with zipfile.ZipFile(io.BytesIO(bomb)) as archive, pytest.raises(Refused) as refused:
        refuse_bomb(archive)
    assert refused.value.code == "too-large"


def test_a_header_that_lies_about_the_size_is_no_way_around() -> None:
    data = bytearray(package({"a.txt": bytes(1000)}))
    place = data.index(b"PK\x01\x02")
    data[place + 24 : place + 28] = (10).to_bytes(4, "little")
    (entry,) = entries(bytes(data))
    assert entry.refused is not None


def test_encrypted_and_damaged_files_are_refused_by_name_and_the_others_read() -> None:
    data = bytearray(package({"가.txt": "하나", "나.txt": "둘"}))
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        data[data.index(mark) + (6 if mark == b"PK\x03\x04" else 8)] |= 1
    first, second = entries(bytes(data))
    assert first.refused is not None
    assert (first.name, first.refused.code) == ("가.txt", "encrypted")
    assert second.data == "둘".encode()


def test_an_archive_that_cannot_be_opened_is_refused() -> None:
    for name in ("a.zip", "a.tar"):
        with pytest.raises(Refused) as refused:
            entries(b"PK\x03\x04 nothing", name)
        assert refused.value.code == "broken"


def test_archives_by_their_names() -> None:
    assert [n for n in ("a.ZIP", "a.tar.gz", "a.docx", "a.gz") if is_archive(n)] == [
        "a.ZIP",
        "a.tar.gz",
    ]
    assert is_leftover("가/Thumbs.db")
    assert not is_leftover("./가/나.txt")
