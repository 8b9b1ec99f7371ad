"""Files become rows with their line; what cannot be read is a fault that says what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.files import GOOD, ROW, read

from axtune.config.recipe import Source
from axtune.data.sources import files_of
from axtune.errors import AxtuneError


def test_a_line_too_large_is_not_kept(tmp_path: Path) -> None:
    long = json.dumps({"a": "가" * 100}, ensure_ascii=False)
    lines = f"{ROW}\n{long}\n{ROW}\n{long}"
    wanted = [(1, GOOD), (2, "!line-too-large"), (3, GOOD), (4, "!line-too-large")]
    assert read(tmp_path, "a.jsonl", lines, 200) == wanted
    exact = len(long.encode())
    assert [value for _, value in read(tmp_path, "a.jsonl", lines, exact)] == [
        GOOD,
        json.loads(long),
        GOOD,
        json.loads(long),
    ]
    assert read(tmp_path, "a.json", f"[{ROW},\n{long},\n{ROW}]", 200) == wanted[:3]
    assert read(tmp_path, "a.csv", "a\nx\n" + "가" * 300 + "\ny\n", 200) == [
        (2, {"a": "x"}),
        (3, "!line-too-large"),
        (4, {"a": "y"}),
    ]


def names(path: str) -> list[str]:
    return [file.name for file in files_of(Source(path=path))]


def test_files_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.jsonl", "a.csv", "deep/c.parquet", "deep/er/d.JSON", "notes.txt", "[x].jsonl"):
        (tmp_path / name).touch()
    assert names(str(tmp_path)) == ["[x].jsonl", "a.csv", "b.jsonl", "c.parquet", "d.JSON"]
    assert names(str(tmp_path / "*.jsonl")) == ["[x].jsonl", "b.jsonl"]
    assert names(str(tmp_path / "**" / "*")) == names(str(tmp_path))
    assert names(str(tmp_path / "[x].jsonl")) == ["[x].jsonl"]  # a file before a pattern
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names("~/b.jsonl") == names("~/b*.jsonl") == ["b.jsonl"]


@pytest.mark.parametrize("path", ["none.jsonl", "*.none", "", "a" * 5000 + ".jsonl", "a\0.jsonl"])
def test_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AxtuneError):
        names(path)


def test_a_file_of_another_form_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").touch()
    with pytest.raises(AxtuneError, match=r"of no format that axtune reads\.\nIt reads \.jsonl"):
        names(str(tmp_path / "a.xyz"))


def test_hub_data_set_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("hf:owner/name", "hf:not a name"):
        with pytest.raises(AxtuneError, match="neither in the cache"):
            names(name)
