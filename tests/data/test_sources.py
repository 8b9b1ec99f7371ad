"""Where rows come from: files, folders, globs, Hub data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from axtune.config.recipe import Data, Source
from axtune.data import sources
from axtune.data.readers import read_rows
from axtune.data.sources import digest, files_of, source_names, unread_files
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


@pytest.mark.parametrize(
    ("names", "split", "wanted"),
    [
        ("data/train.jsonl data/test.jsonl", "train", "train.jsonl"),
        ("constraint/train.jsonl constraint/test.jsonl", "train", "train.jsonl"),
        ("training/part1.jsonl training/validation.jsonl", "train", "part1.jsonl"),
        ("latest.jsonl", "train", "latest.jsonl"),
        ("device_support.jsonl", "train", "device_support.jsonl"),
        ("train.jsonl.gz .ipynb_checkpoints/train.jsonl", "train", "train.jsonl.gz"),
        ("dev.jsonl train.jsonl", "validation", "dev.jsonl"),
        (
            "data/train_sft-00000-of-00001.parquet data/train_gen-00000-of-00001.parquet",
            "train_sft",
            "train_sft-00000-of-00001.parquet",
        ),
        ("en/train.jsonl ko/train.jsonl", "train", "several subsets: en, ko"),
        ("data/train_sft-00000-of-00001.parquet", "train", "no split train"),
    ],
)
def test_splits_stand_between_delimiters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, split: str, wanted: str
) -> None:
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(sources, "_download", lambda source: tmp_path)
    source = Source(path="hf:owner/name", split=split)
    if " " not in wanted:
        assert [file.name for file in files_of(source)] == [wanted]
    else:
        with pytest.raises(AxtuneError, match=wanted):
            files_of(source)


def test_what_a_folder_leaves_out_is_named(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.xlsx", "README.md", "._a.jsonl"):
        (tmp_path / name).touch()
    (fault,) = unread_files(Source(path=str(tmp_path)))
    assert (fault.file, fault.code) == (str(tmp_path / "b.xlsx"), "left-out")
    assert unread_files(Source(path=str(tmp_path / "a.jsonl"))) == []


def test_splits_that_are_left_out_are_said(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl", "eval-1.jsonl"):
        (tmp_path / name).touch()
    (fault,) = unread_files(Source(path=str(tmp_path)))
    assert (fault.file, fault.code, fault.severity) == (str(tmp_path), "left-out", "warning")
    assert fault.message.startswith("2 files are left out, of the split test; train is read.")
    (fault,) = unread_files(Source(path=str(tmp_path), split="test"))
    assert "of the split train; test is read" in fault.message
    card = "---\nconfigs: [{data_files: train.jsonl}]\n---\n"
    (tmp_path / "README.md").write_text(card)
    (fault,) = unread_files(Source(path=str(tmp_path)))
    assert "2 files are left out: the card maps them to no split." in fault.message


def test_splits_of_a_saved_data_set_are_said(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "data-00000-of-00001.arrow").touch()
        state = '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}'
        (tmp_path / split / "state.json").write_text(state)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (fault,) = unread_files(Source(path=str(tmp_path)))
    assert "of the split test; train is read" in fault.message
    assert [file.parent.name for file in files_of(Source(path=str(tmp_path), split="test"))] == [
        "test"
    ]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("train.jsonl validation.jsonl test.jsonl", "validation.jsonl"),
        ("train.jsonl dev.jsonl", "dev.jsonl"),
        ("train.jsonl test.jsonl", "test.jsonl"),
        ("train/a.jsonl eval/a.jsonl", "eval/a.jsonl"),
        ("a.jsonl b.jsonl", "a.jsonl b.jsonl"),
        ("train.jsonl", "train.jsonl"),
    ],
)
@pytest.mark.parametrize("on_the_hub", [False, True])
def test_a_folder_is_evaluated_on_by_its_held_out_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, wanted: str, on_the_hub: bool
) -> None:
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(ROW)
    monkeypatch.setattr(sources, "_download", lambda source: tmp_path)
    path = "hf:owner/name" if on_the_hub else str(tmp_path)
    given = Data.model_validate({"train": path, "eval": path}).eval
    assert isinstance(given, list)
    assert files_of(given[0]) == [tmp_path / name for name in wanted.split()]
    said = [fault.message for fault in unread_files(given[0])]
    chosen = not on_the_hub and wanted not in (names, "train.jsonl")
    assert [("is evaluated on, and" in message) for message in said] == [True] * chosen


def test_files_and_a_split_that_is_named_are_evaluated_on_as_they_are(tmp_path: Path) -> None:
    for name in ("train", "test", "validation"):
        (tmp_path / f"{name}.jsonl").write_text(ROW)
    for item, wanted in (
        (str(tmp_path / "train.jsonl"), "train.jsonl"),
        (str(tmp_path / "t*n.jsonl"), "train.jsonl"),
        ({"path": str(tmp_path), "split": "test"}, "test.jsonl"),
        ({"path": str(tmp_path), "split": "train"}, "train.jsonl"),
    ):
        given = Data.model_validate({"train": str(tmp_path), "eval": item}).eval
        assert isinstance(given, list)
        assert files_of(given[0]) == [tmp_path / wanted]
    assert not unread_files(Source(path=str(tmp_path / "train.jsonl"), split="auto"))


def test_a_saved_data_set_is_evaluated_on_by_its_held_out_split(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    for name in ("train", "validation"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(ROW)
    found = files_of(Source(path=str(tmp_path), split="auto"))
    assert found == [tmp_path / "validation" / "rows.jsonl"]


def test_sources_are_called_by_what_trackers_take() -> None:
    given = ["runs/규정 집/*.jsonl", "a/chat.jsonl", "b/chat.jsonl", "hf:acme/faq", "문서/"]
    names = ["_.jsonl", "chat.jsonl", "chat.jsonl-2", "faq", "문서"]
    assert source_names([Source(path=path) for path in given]) == names
