"""Files with masks in the place of personal data: `axtune data scrub`.

What is not masked stays byte for byte: white space, the order of keys, quotes, ends of lines.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from axtune.checkpoint.atomic import reason_of, written_whole
from axtune.errors import AxtuneError
from axtune.privacy.own_kinds import OwnKind
from axtune.privacy.scrub import Scrubbed, Scrubber

STDIN = "-"
_LINES = (".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv")
_TEXTS = (".txt", ".md", ".log", ".html", ".xml", ".yaml", ".yml", "")
_BLOCK = 500  # lines of a table that are read together, below its header


def scrub_file(source: str, out: Path, own: Iterable[OwnKind] = ()) -> Counter[str]:
    """Write a file again with its personal data masked.

    Args:
        source: JSONL, JSON, CSV, TSV or text in UTF-8, by its ending; ``-`` is standard input, of
            what the ending of `out` says.
        out: The file to write; it appears whole or not at all.
        own: Kinds of the user's own.

    Returns:
        How much of each kind was masked.

    Raises:
        AxtuneError: When a file cannot be read or written, or is of another format.
    """
    suffix = (out if source == STDIN else Path(source)).suffix.lower()
    if suffix not in (*_LINES, *_TABLES, *_TEXTS, ".json"):
        raise AxtuneError(
            f"{source} cannot be scrubbed: it is no JSONL, JSON, CSV, TSV or text.",
            "Convert it, or mask its rows as they are read: data.privacy: mask.",
        )
    if source != STDIN and out.resolve() == Path(source).expanduser().resolve():
        raise AxtuneError(f"{out} is the file to read.", "Give --out another name.")
    if out.exists() and not out.is_file():
        raise AxtuneError(
            f"{out} cannot be written: it is no plain file.", "Give the name of a new file."
        )
    counts: Counter[str] = Counter()
    text = _read(source)
    try:
        with written_whole(out) as part, part.open("w", encoding="utf-8", newline="") as stream:
            for scrubbed in _scrubbed(text, suffix, Scrubber(tuple(own))):
                counts.update(scrubbed.counts)
                stream.write(scrubbed.text)
    except OSError as error:
        raise AxtuneError(
            f"{out} cannot be written: {reason_of(error)}.", "Give a file that you may write to."
        ) from None
    return counts


def _read(source: str) -> str:
    try:
        data = (
            sys.stdin.buffer.read() if source == STDIN else Path(source).expanduser().read_bytes()
        )
        return data.decode("utf-8")
    except OSError as error:
        raise AxtuneError(
            f"{source} cannot be read: {reason_of(error)}.", "Give a file that you may read."
        ) from None
    except UnicodeDecodeError:
        raise AxtuneError(
            f"{source} is not UTF-8.", "Convert it: iconv -f CP949 -t UTF-8."
        ) from None


def _scrubbed(text: str, suffix: str, scrubber: Scrubber) -> Iterator[Scrubbed]:
    """The parts of a file, one after another."""
    if suffix == ".json":
        yield scrubber.scrub_json(text)
    elif suffix in _LINES:
        for line in _lines(text):
            yield scrubber.scrub_json(line)
    elif suffix in _TABLES:
        lines = iter(_lines(text))
        header = next(lines, "")
        yield scrubber.scrub(header)
        while block := "".join(islice(lines, _BLOCK)):
            yield scrubber.scrub(block, header.rstrip("\r\n"))
    else:
        yield scrubber.scrub(text)


def _lines(text: str) -> list[str]:
    """Lines with their ends; a line ends with a line feed alone."""
    return [f"{line}\n" for line in text.split("\n")[:-1]] + [text[text.rfind("\n") + 1 :]]
