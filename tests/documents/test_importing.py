from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from support.commands import axtune
from support.documents import PdfPage, package, pdf, rows_of
from support.rows import ROOT

from axtune.documents import importing
from axtune.documents.importing import Report, import_documents
from axtune.documents.workers import Job, Outcome, outcome_of
from axtune.errors import AxtuneError, MissingPackageError


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[str]:
    """Read in this process, but in the tests that are marked slow; gives what was read."""
    read: list[str] = []

    def read_all(jobs: Iterable[Job], *_: float) -> Iterator[tuple[Job, Outcome]]:
        for job in jobs:
            if job.refused is not None:
                yield job, job.refused
                continue
            read.append(job.source)
            outcome = outcome_of(job)
            assert not isinstance(outcome, MissingPackageError)
            yield job, outcome

    if "slow" not in request.keywords:
        monkeypatch.setattr(importing, "read_all", read_all)
    return read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "규정집"
    (docs / "나").mkdir(parents=True)
    (docs / "다.txt").write_text("셋째 글", "utf-8")
    (docs / "가.txt").write_text("첫째 글", "utf-8")
    (docs / "나" / "가.md").write_text("# 넷째 글", "utf-8")
    (docs / "나" / "사진.png").write_bytes(b"\x89PNG")
    (docs / "나" / "~$가.docx").write_bytes(b"x")
    (docs / "나" / "스캔.pdf").write_bytes(pdf([PdfPage(picture=True)]))
    (docs / "나" / "같은.txt").write_text("첫째 글", "utf-8")
    inner = package({"안.txt": "둘째 글"})
    (docs / "나.zip").write_bytes(package({"깊은.zip": inner, "../밖.txt": "밖"}))
    return docs


def sources(corpus: Path) -> list[str]:
    return [row["meta"]["source"] for row in rows_of(corpus)]


def codes(report: Report) -> dict[str, str]:
    return {loss.source: loss.code for loss in report.refused}


def test_folders_and_archives_in_order_and_the_lost_by_name(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus.jsonl"
    report = import_documents([folder], out, 1)
    assert sources(out) == [
        "규정집/가.txt",
        "규정집/나.zip/깊은.zip/안.txt",
        "규정집/다.txt",
        "규정집/나/가.md",
    ]
    assert codes(report) == {
        "규정집/나.zip/../밖.txt": "broken",
        "규정집/나/같은.txt": "duplicate",
        "규정집/나/사진.png": "unknown-format",
        "규정집/나/스캔.pdf": "scanned-pdf",
    }
    assert report.to_json()["formats"] == {"md": 1, "txt": 3}
    assert report.to_json()["refused_by_code"]["scanned-pdf"] == 1
    assert not list(tmp_path.glob(".*"))


def test_what_the_corpus_holds_is_not_read_again(
    folder: Path, tmp_path: Path, in_process: list[str]
) -> None:
    out = tmp_path / "corpus.jsonl"
    import_documents([folder], out, 1)
    before = out.read_bytes()
    in_process.clear()
    (folder / "라.txt").write_text("다섯째 글", "utf-8")
    report = import_documents([folder], out, 1)
    assert (report.documents, report.present) == (1, 5)
    assert in_process == ["규정집/라.txt", "규정집/나/사진.png", "규정집/나/스캔.pdf"]
    assert out.read_bytes().startswith(before)
    assert sources(out)[-1] == "규정집/라.txt"


def test_interrupted_it_goes_on_behind_the_last_whole_line(
    folder: Path, tmp_path: Path, in_process: list[str]
) -> None:
    out = tmp_path / "corpus.jsonl"
    whole = tmp_path / "whole.jsonl"
    import_documents([folder], whole, 1)

    def stop(done: int, total: int, report: Report) -> None:
        if report.documents == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_documents([folder], out, 1, progress=stop)
    partial = tmp_path / ".corpus.jsonl.partial"
    assert not out.exists()
    with partial.open("ab") as stream:
        stream.write('{"text": "반만'.encode())
    in_process.clear()
    report = import_documents([folder], out, 1)
    assert (report.documents, report.present) == (2, 3)
    assert "규정집/가.txt" not in in_process
    assert out.read_bytes() == whole.read_bytes()
    assert not partial.exists()


def test_a_file_that_is_no_corpus_is_not_touched(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "chat.jsonl"
    out.write_text('{"messages": []}\n', "utf-8")
    with pytest.raises(AxtuneError, match="line 1 is none of a corpus"):
        import_documents([folder], out, 1)
    assert out.read_text("utf-8") == '{"messages": []}\n'


def test_two_imports_of_one_corpus_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    with (tmp_path / ".corpus.jsonl.partial").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AxtuneError, match="Another process"):
            import_documents([folder], tmp_path / "corpus.jsonl", 1)


def test_paths_that_cannot_be_found_or_written_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AxtuneError, match="cannot be found"):
        import_documents([tmp_path / "없음"], tmp_path / "a.jsonl", 1)
    with pytest.raises(AxtuneError, match="cannot be written"):
        import_documents([folder], folder, 1)


def test_what_is_no_plain_file_is_named(
    folder: Path, tmp_path: Path, in_process: list[str]
) -> None:
    (folder / "a.pdf").symlink_to(tmp_path / "nowhere")
    (folder / "b").symlink_to(tmp_path)
    os.mkfifo(folder / "c.txt")
    (folder / "d.txt").symlink_to(folder / "가.txt")
    report = import_documents([folder], tmp_path / "corpus.jsonl", 1)
    lost = codes(report)
    assert [lost.get(f"규정집/{name}") for name in ("a.pdf", "b", "c.txt")] == ["broken"] * 3


def test_the_corpus_in_its_own_folder_is_no_document(folder: Path) -> None:
    out = folder / "corpus.txt"
    import_documents([folder], out, 1)
    report = import_documents([folder], out, 1)
    assert report.documents == 0
    assert "규정집/corpus.txt" not in codes(report)


def test_names_in_cp949_on_the_disk_are_read_as_they_were_meant(tmp_path: Path) -> None:
    docs = tmp_path / "a"
    docs.mkdir()
    name = os.fsdecode("휴가.txt".encode("cp949"))
    (docs / name).write_text("글", "utf-8")
    out = tmp_path / "corpus.jsonl"
    import_documents([docs], out, 1)
    assert sources(out) == ["a/휴가.txt"]


@pytest.mark.slow
def test_the_command_counts_and_exits_with_1_when_there_is_nothing(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "corpus.jsonl"
    done = axtune("data", "import", str(folder), "--out", str(out), "--json", "--workers", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["documents"] == 4
    told = axtune("data", "import", str(folder), "--out", str(out))
    assert told.stdout.splitlines()[:2] == [
        f"{out}: 0 documents written, 0 characters",
        "already there: 5 documents",
    ]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.png").write_bytes(b"\x89PNG")
    none = axtune("data", "import", str(tmp_path / "b"), "--out", str(tmp_path / "b.jsonl"))
    assert none.returncode == 1
    assert "refused: unknown-format: 1" in none.stdout
    assert not (tmp_path / "b.jsonl").exists()


@pytest.mark.slow
def test_killed_the_same_command_ends_with_the_same_corpus(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(150):
        pages = [PdfPage().write(50, 700, f"{number}번째 문서의 {i}쪽이다.") for i in range(8)]
        (docs / f"{number:03}.pdf").write_bytes(pdf(pages))
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "axtune", "data", "import", str(docs), "--workers", "2"]
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True, cwd=ROOT)
    partial = tmp_path / ".out.jsonl.partial"
    with subprocess.Popen([*command, "--out", str(out)], stdout=-3, stderr=-3, cwd=ROOT) as killed:
        while killed.poll() is None and not (partial.exists() and partial.stat().st_size > 2000):
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True, cwd=ROOT)
    assert out.read_bytes() == whole.read_bytes()
