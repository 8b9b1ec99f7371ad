"""ZIP and TAR archives: their files, bounded; names in Korean as they were meant."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from axtune.documents.document import Refused

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

LARGEST_FILE = 512 << 20
_LARGEST_ARCHIVE = 16 << 30  # bytes of all its files together
_MOST_FILES = 200_000
# Text of XML shrinks to a hundredth; more than this beyond a few megabytes is made to fill memory.
_RATIO = 200
_SMALL = 16 << 20
_CHUNK = 1 << 20
NO_FILE = Refused("broken", "It is no plain file, but a link or a device.")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an archive.

    Attributes:
        name: Its path in the archive.
        data: Its bytes; empty where it is refused.
        refused: Why it is not read, or None.
    """

    name: str
    data: bytes
    refused: Refused | None = None


def is_archive(name: str) -> bool:
    """Whether a name is that of an archive that is read."""
    return name.lower().endswith(SUFFIXES)


def entries_of(file: IO[bytes], name: str) -> Iterator[Entry]:
    """The files of an archive in the order of their names (ZIP) or of the archive (TAR).

    Nothing is written to the disk, so that no name leads anywhere; one that would lead out of the
    archive's folder is refused all the same, and so are links and devices.

    Args:
        file: The archive, seekable.
        name: Its name, which decides how it is read.

    Raises:
        Refused: When it cannot be opened, or holds more than is read of any archive.
    """
    reader = _zip_entries if name.lower().endswith(".zip") else _tar_entries
    total = 0
    try:
        for count, entry in enumerate(reader(file)):
            total += len(entry.data)
            if total > _LARGEST_ARCHIVE or count >= _MOST_FILES:
                raise Refused("too-large", "Its files together are more than is read of one.")
            yield entry
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise Refused("broken", f"The archive cannot be read: {type(error).__name__}.") from None


def refuse_bomb(package: zipfile.ZipFile) -> None:
    """Refuse a package whose parts grow beyond what a document holds.

    Raises:
        Refused: When they do.
    """
    infos = package.infolist()
    size = sum(info.file_size for info in infos)
    packed = sum(info.compress_size for info in infos)
    if (
        size > LARGEST_FILE
        or (size > _SMALL and size > packed * _RATIO)
        or len(infos) > _MOST_FILES
    ):
        raise Refused("too-large", f"Its parts unpack to {size:,} bytes of {packed:,}.")


def _zip_entries(file: IO[bytes]) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        named = [(_zip_name(info), info) for info in archive.infolist() if not info.is_dir()]
        for name, info in sorted(named, key=lambda pair: pair[0]):
            if is_leftover(name):
                continue
            yield _zip_entry(archive, info, name)


def _zip_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Entry:
    if refused := _refused(name, info.file_size, info.compress_size):
        return Entry(name, b"", refused)
    if stat.S_ISLNK(info.external_attr >> 16):
        return Entry(name, b"", NO_FILE)
    if info.flag_bits & 1:
        return Entry(name, b"", Refused("encrypted", "A password protects it in its archive."))
    try:
        with archive.open(info) as stream:
            return Entry(name, _bounded(stream, info.file_size))
    except Refused as refused:
        return Entry(name, b"", refused)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        what = "a compression that is not read" if isinstance(error, NotImplementedError) else ""
        message = f"It cannot be unpacked: {what or type(error).__name__}."
        return Entry(name, b"", Refused("broken", message))
    except Exception as error:  # zlib and lzma have errors of their own
        return Entry(
            name, b"", Refused("broken", f"It cannot be unpacked: {type(error).__name__}.")
        )


def _zip_name(info: zipfile.ZipInfo) -> str:
    """A name as it was meant: Windows in Korean writes CP949 where ZIP means CP437.

    With the flag of UTF-8, zipfile has read it so; some programs write UTF-8 without the flag.
    """
    if info.flag_bits & 0x800 or info.filename.isascii():
        return info.filename
    try:
        return meant_name(info.filename.encode("cp437"))
    except UnicodeEncodeError:
        return info.filename


def meant_name(written: bytes) -> str:
    """The bytes of a name as text: UTF-8, or else CP949."""
    try:
        return written.decode("utf-8")
    except UnicodeDecodeError:
        return written.decode("cp949", "replace")


def _tar_entries(file: IO[bytes]) -> Iterator[Entry]:
    with tarfile.open(fileobj=file, mode="r:*", encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            name = meant_name(member.name.encode("utf-8", "surrogateescape"))
            if member.isdir() or is_leftover(name):
                continue
            if refused := _refused(name, member.size, None) if member.isfile() else NO_FILE:
                yield Entry(name, b"", refused)
                continue
            stream = tar.extractfile(member)
            if stream is not None:
                yield Entry(name, _bounded(stream, member.size))


def _refused(name: str, size: int, packed: int | None) -> Refused | None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts[:1] and ":" in path.parts[0]):
        return Refused("broken", "Its name leads out of the archive.")
    if size > LARGEST_FILE or (packed is not None and size > max(_SMALL, packed * _RATIO)):
        return Refused("too-large", f"It unpacks to {size:,} bytes.")
    return None


def is_leftover(name: str) -> bool:
    """What systems and programs leave beside files, and nobody means."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    hidden = any(part.startswith((".", "~$")) and part not in (".", "..") for part in parts)
    return hidden or "__MACOSX" in parts or parts[-1:] in (("Thumbs.db",), ("desktop.ini",))


def _bounded(stream: IO[bytes], size: int) -> bytes:
    """All of a stream; a header that says less than comes is no way around the bound."""
    held = io.BytesIO()
    while chunk := stream.read(_CHUNK):
        held.write(chunk)
        if held.tell() > min(size, LARGEST_FILE):
            raise Refused("too-large", "It holds more than its header says.")
    return held.getvalue()
