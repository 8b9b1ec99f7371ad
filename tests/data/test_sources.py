"""Where rows come from: files, folders, globs, Hub data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from axtune.config.recipe import Source
from axtune.data import sources
from axtune.data.readers import read_rows
from axtune.data.sources import digest, files_of
from axtune.errors import AxtuneError

ROW = '{"messages": [{"role": "user", "content": "안녕"}]}'
LIMIT = 16_000_000


def test_an_unreadable_file_is_a_fault(tmp_path: Path) -> None:
    link = tmp_path / "a.jsonl"
    link.symlink_to("/proc/self/mem")  # root may open it, and nobody may read its beginning
    if not link.is_file():
        pytest.skip("there is no /proc here")
    ((line, code),) = [
        (row.line, row.fault and row.fault.code) for row in read_rows(link, max_line_bytes=LIMIT)
    ]
    assert (line, code) == (0, "unreadable")
    with pytest.raises(AxtuneError, match="cannot be read"):
        digest(link)
    gone = list(read_rows(tmp_path / "gone.jsonl", max_line_bytes=LIMIT))
    assert [row.fault and row.fault.code for row in gone] == ["unreadable"]


def test_files_of_a_hub_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    for name in ("data/train-00000.parquet", "data/test-00000.parquet", "dataset_infos.json"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sources, "_download", lambda source: tmp_path)

    def split(name: str) -> list[str]:
        return [file.name for file in files_of(Source(path="hf:owner/name", split=name))]

    assert split("train") == ["train-00000.parquet"]
    assert split("test") == ["test-00000.parquet"]
    with pytest.raises(AxtuneError, match="no split validation"):
        split("validation")
