"""The local data files of a recipe: what a path, a folder and a glob stand for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from axtune.config.paths import (
    expanded,
    item_files,
    left_out,
    local_files,
    missing_paths,
    require_writable,
    why_unread,
)
from axtune.errors import AxtuneError


def test_files_folders_and_globs_are_sorted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.jsonl", "a.CSV", "notes.txt", "in/c.parquet"):
        (tmp_path / name).touch()

    def names(given: str) -> list[str]:
        return [file.name for file in local_files(str(tmp_path / given))]

    assert names("b.jsonl") == ["b.jsonl"]
    assert names("") == ["a.CSV", "b.jsonl", "c.parquet"]
    assert names("*.jsonl") == ["b.jsonl"]
    assert names("**/*.parquet") == ["c.parquet"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("none.jsonl", "is no file, folder or pattern of data files"),
        ("none/*.jsonl", "is no file, folder or pattern of data files"),
        ("empty", "holds no data files"),
        ("notes.xyz", "it is of no format that axtune reads"),
        ("rows.parquet.gz", r"\.parquet is compressed within; unpack it"),
        ("rows.jsonl.zip", "it is an archive; unpack it"),
        ("~nobody-of-this-name/a.jsonl", "there is no such user"),
        ("a" * 300, "cannot be looked up"),
    ],
)
def test_what_is_not_there_is_said_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("notes.xyz", "rows.parquet.gz", "rows.jsonl.zip"):
        (tmp_path / name).touch()
    with pytest.raises(AxtuneError, match=found) as caught:
        local_files(given)
    assert caught.value.remedy
    ((place, code, message),) = missing_paths({"data": {"train": [{"path": given}]}})
    assert (place, code) == (("data", "train", 0, "path"), "bad-path")
    assert message == f"{caught.value.found} {caught.value.remedy}"


def test_a_home_folder_is_looked_up_and_nothing_else_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a//b") == str(tmp_path / "a/b")
    assert expanded("~") == str(tmp_path)
    for path in ("a/~/b", "./~", "hf:owner/name", "./a//b", "skt/A.X-4.0-Light", ""):
        assert expanded(path) == path
    with pytest.raises(AxtuneError, match="there is no such user") as caught:
        expanded("~nobody-of-this-name/a")
    assert "./~nobody-of-this-name/a" in caught.value.remedy


def test_a_name_that_is_not_utf8_is_refused_wherever_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/\xb0\xa1"))
    place.mkdir(parents=True)
    (place / "a.jsonl").touch()
    for look in (local_files, left_out, item_files):
        for given in (tmp_path, place, place / "a.jsonl", tmp_path / "**/*.jsonl"):
            with pytest.raises(AxtuneError, match=r"\\xb0\\xa1.* is no name that can be written"):
                look(str(given))
    ((where, _, message),) = missing_paths({"data": {"train": str(tmp_path)}})
    assert where == ("data", "train")
    message.encode()
    monkeypatch.setenv("HOME", str(place))
    with pytest.raises(AxtuneError, match="is no name"):
        expanded("~/a")


def test_documents_are_read_by_name_and_of_a_folder_without_rows(tmp_path: Path) -> None:
    for name in ("b.txt", "test/a.PDF", "main.py", "pic.png", "zip.zip", "~$b.docx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(given: str, split: str = "train") -> list[str]:
        return [file.name for file in local_files(str(tmp_path / given), split)]

    assert names("b.txt") == names("*.txt") == ["b.txt"]
    # A name that would say a split of rows says what a document is about.
    assert names("") == names("", "auto") == ["b.txt", "main.py", "a.PDF"]
    with pytest.raises(AxtuneError, match="holds no data files"):
        names("", "test")
    assert left_out(str(tmp_path)) == [tmp_path / "zip.zip"]
    (tmp_path / "rows.jsonl").touch()
    assert names("") == ["rows.jsonl"]
    assert left_out(str(tmp_path)) == [tmp_path / one for one in ("b.txt", "test/a.PDF", "zip.zip")]
    assert "beside files of rows" in why_unread(tmp_path / "b.txt")


def test_files_of_items_may_be_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("exam.txt", "a.jsonl", "split/test.jsonl", "split/val.jsonl", "split/b.jsonl"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert item_files("exam.txt") == [Path("exam.txt")]
    assert item_files("*a*") == [Path("a.jsonl"), Path("exam.txt")]
    assert item_files("split") == [Path("split/test.jsonl"), Path("split/val.jsonl")]
    given = {"data": {"not_in": ["exam.txt", "hf:a/b", 3, "none.txt"]}}
    ((place, code, _),) = missing_paths(given)
    assert (place, code) == (("data", "not_in"), "bad-path")
    assert list(missing_paths({"data": {"not_in": "a.jsonl"}})) == []


def test_only_paths_are_looked_up(tmp_path: Path) -> None:
    values = {
        "model": "owner/name",
        "data": {"train": ["hf:owner/name", 3, None], "eval": 0.1},
        "start_from": str(tmp_path),
    }
    assert list(missing_paths(values)) == []
    assert list(missing_paths({"data": [], "preference": "x", "model": 4})) == []


def test_leftovers_of_other_programs_are_no_data(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl.gz", "._a.jsonl", "__MACOSX/a.jsonl", ".cache/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for given in ("", "**/*", "*"):
        found = [file.name for file in local_files(str(tmp_path / given))]
        assert found == ["a.jsonl", "b.jsonl.gz"]


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    for split in ("train", "test"):
        folder = tmp_path / split
        folder.mkdir()
        for name in ("data-00000-of-00001.arrow", "cache-1.arrow", "dataset_info.json"):
            (folder / name).touch()
        state = '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}'
        (folder / "state.json").write_text(state)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (file,) = local_files(str(tmp_path))
    assert file == tmp_path / "train" / "data-00000-of-00001.arrow"
    with pytest.raises(AxtuneError, match="it has test, train"):
        local_files(str(tmp_path), "dev")
    file.unlink()
    with pytest.raises(AxtuneError, match="lacks 1 of the 1 files"):
        local_files(str(tmp_path))


def test_a_folder_that_cannot_be_made_is_known_at_once(tmp_path: Path) -> None:
    require_writable(str(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "deep" / "run"):
        with pytest.raises(AxtuneError, match=r"(?s)file is a file|it is a file.*Set another"):
            require_writable(str(place))
    for place in ("/proc/run", "a" * 300, "a\0b"):
        with pytest.raises(AxtuneError, match=r"output_dir .* cannot be written: .*\nSet another"):
            require_writable(place if place[0] == "/" else f"{tmp_path}/{place}")


@pytest.mark.parametrize(
    ("make", "what"),
    [(lambda place: place.symlink_to("gone.jsonl"), "a link to nothing"), (os.mkfifo, "no file")],
    ids=["link", "pipe"],
)
def test_what_cannot_be_read_is_not_left_out_of_a_folder(
    tmp_path: Path, make: Callable[[Path], object], what: str
) -> None:
    (tmp_path / "a.jsonl").touch()
    make(tmp_path / "notes.md.lock")  # of no format
    assert local_files(str(tmp_path)) == [tmp_path / "a.jsonl"]
    make(tmp_path / "b.jsonl")
    with pytest.raises(AxtuneError, match=rf"b\.jsonl is {what}"):
        local_files(str(tmp_path))


def test_runs_among_the_data_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    run = tmp_path / "runs/x"
    for name in ("manifest.json", "recipe.yaml", "metrics.jsonl", "evaluation/answers.jsonl"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    (tmp_path / "runs/stages.json").touch()
    for given in (tmp_path, tmp_path / "**/*.jsonl"):
        assert local_files(str(given)) == [tmp_path / "a.jsonl"]
        assert left_out(str(given)) == [run]
    assert "the folder of a run" in why_unread(run)
    # Its files are read where they are meant.
    answers = run / "evaluation/answers.jsonl"
    assert local_files(str(answers)) == local_files(str(answers.parent)) == [answers]
    assert local_files(str(run / "*.jsonl")) == [run / "metrics.jsonl"]
    with pytest.raises(AxtuneError, match="is the folder of a run"):
        local_files(str(run))
    with pytest.raises(AxtuneError, match="holds no data files"):
        local_files(str(run.parent))


def test_links_that_lead_nowhere_are_told_for_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, to in (("gone", "nowhere"), ("one", "two"), ("two", "one"), ("here", ".")):
        Path(name).symlink_to(to)
    require_writable("here/run")
    for name, said in (
        ("gone", "it is a link to nowhere, which is not there"),
        ("gone/run", "gone is a link to nowhere, which is not there"),
        ("one", "it is a link to two that leads in a circle"),
        ("two/run", "two is a link to one that leads in a circle"),
    ):
        with pytest.raises(AxtuneError, match=rf"output_dir {name} cannot be a folder: {said}\."):
            require_writable(name)
