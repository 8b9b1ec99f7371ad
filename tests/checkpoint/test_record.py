"""What a folder's record tells of its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.checkpoint.record import (
    RECORD,
    Record,
    checked,
    differences,
    record_of,
    require_as_written,
    write_record,
)
from axtune.errors import CheckpointError

FILES = {"a.safetensors": bytes(range(256)) * 40, "sub/config.json": b"{}", "empty.txt": b""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "README.md").write_text("card", encoding="utf-8")
    record_of(tmp_path, facts={"step": 3}).write(tmp_path)
    return tmp_path


def test_a_folder_as_it_was_written_has_no_differences(folder: Path) -> None:
    assert differences(folder) == []
    require_as_written(folder)
    record = Record.read(folder)
    assert record is not None
    assert record.files.keys() == FILES.keys()
    assert record.facts == {"step": 3}


def test_cards_and_further_files_are_the_users(folder: Path) -> None:
    (folder / "README.md").write_text("my card", encoding="utf-8")
    (folder / "certificate.json").write_text("{}", encoding="utf-8")
    assert differences(folder) == []


def test_a_folder_without_a_record_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    assert Record.read(tmp_path) is None
    assert differences(tmp_path) == []


def test_every_difference_is_named(folder: Path) -> None:
    content = bytearray(FILES["a.safetensors"])
    content[5000] ^= 4
    (folder / "a.safetensors").write_bytes(content)
    (folder / "sub" / "config.json").unlink()
    (folder / "empty.txt").write_text("x")
    with pytest.raises(CheckpointError) as raised:
        require_as_written(folder, "Use another.")
    text = str(raised.value)
    assert "a.safetensors is not what was written" in text
    assert "sub/config.json is missing" in text
    assert "empty.txt has 1 bytes instead of 0" in text
    assert "Use another." in text
    assert RECORD in text


def test_a_digest_that_is_known_already_is_not_computed_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    write_record(tmp_path, known={"a": "0" * 64})
    assert differences(tmp_path) == ["a is not what was written (its SHA-256 differs)"]


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_record_itself_is_found(
    place: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    (folder / "a").write_text("a")
    record_of(folder, facts={"run": {"recipe": {"lora.r": 16}}}).write(folder)
    content = bytearray((folder / RECORD).read_bytes())
    before = json.loads(content)
    content[place % len(content)] ^= 1 << bit
    (folder / RECORD).write_bytes(content)
    try:
        same = json.loads(content) == before  # one space became another, or E became e
    except ValueError:
        same = False
    assert same or differences(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"files": {"a": 1}}'])
def test_a_record_that_is_none_is_damaged(folder: Path, text: str) -> None:
    (folder / RECORD).write_text(text)
    assert differences(folder) == [f"{RECORD} is damaged"]
    with pytest.raises(CheckpointError, match="is damaged"):
        Record.read(folder)


def test_a_folder_is_checked_while_it_is_read(folder: Path) -> None:
    with checked(folder):
        pass
    (folder / "empty.txt").unlink()
    with pytest.raises(CheckpointError, match=r"empty\.txt is missing"), checked(folder):
        pass
    with pytest.raises(CheckpointError, match=r"empty\.txt is missing"), checked(folder):
        raise ValueError("a library's own words")
