"""`axtune data scrub`: what is not masked stays byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.data.scrub_file import _lines, scrub_file
from axtune.errors import AxtuneError

PHONE, ACCOUNT = "<|telephone|>", "<|bank_account|>"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.jsonl", '{"a":  "010-1234-5678"}\r\n\n{"b": 1}\n',
         f'{{"a":  "{PHONE}"}}\r\n\n{{"b": 1}}\n'),
        ("a.jsonl", '{"010-1234-5678": "010-1234-5678"}', f'{{"010-1234-5678": "{PHONE}"}}'),
        ("a.jsonl",
         '{"010-1234-5678":[1.50, "\\ud800 010-1234-5678"],\t"tel" :1012345678}\r\n{"b":1}\n',
         f'{{"010-1234-5678":[1.50, "\\ud800 {PHONE}"],\t"tel" :"{PHONE}"}}\r\n{{"b":1}}\n'),
        ("a.json", '[\n {"tel": 1012345678}\n]', f'[\n {{"tel": "{PHONE}"}}\n]'),
        ("a.csv", "이름,계좌\n김,110-123-456789\n", f"이름,계좌\n김,{ACCOUNT}\n"),
        ("a.tsv", "계좌\t이름\n110123456789\t김", f"계좌\t이름\n{ACCOUNT}\t김"),
        ("a.txt", "\ufeff연락처 010-1234-5678\r\n", f"\ufeff연락처 {PHONE}\r\n"),
        ("a.md", "| 이름 | 계좌 |\n|--|--|\n| 김 | 110-123-456789 |",
         f"| 이름 | 계좌 |\n|--|--|\n| 김 | {ACCOUNT} |"),
        ("a.jsonl", "010-1234-5678 {\n", f"{PHONE} {{\n"),
        ("a.txt", "", ""),
    ],
)  # fmt: skip
def test_formats(tmp_path: Path, name: str, text: str, expected: str) -> None:
    source, out, again = (tmp_path / prefix / name for prefix in ("in", "out", "again"))
    for file in (source, out, again):
        file.parent.mkdir()
    source.write_bytes(text.encode())
    counts = scrub_file(str(source), out)
    assert out.read_bytes().decode() == expected
    assert bool(counts) == (text != expected)
    assert not scrub_file(str(out), again)
    assert again.read_bytes() == out.read_bytes()


def test_the_header_of_a_long_table_counts_to_its_end(tmp_path: Path) -> None:
    rows = "".join(f"김예시,{110123000000 + n}\n" for n in range(1700))
    (tmp_path / "a.csv").write_text("이름,계좌번호\n" + rows, encoding="utf-8")
    counts = scrub_file(str(tmp_path / "a.csv"), tmp_path / "b.csv")
    assert counts == {"bank_account": 1700}


def test_standard_input_is_what_the_other_end_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b'{"tel": 1012345678}\n')))
    scrub_file("-", tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"tel": PHONE}


def cp949(folder: Path) -> tuple[str, Path]:
    (folder / "a.txt").write_bytes("한글".encode("cp949"))
    return str(folder / "a.txt"), folder / "b.txt"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (lambda folder: (str(folder / "absent.txt"), folder / "b.txt"), "cannot be read"),
        (lambda folder: (str(folder), folder / "b.txt"), "cannot be read"),
        (lambda folder: (str(folder / "a.parquet"), folder / "b.parquet"), "no JSONL"),
        (cp949, "not UTF-8"),
        (lambda folder: (str(folder / "x.txt"), folder / "x.txt"), "the file to read"),
        (lambda folder: (str(folder / "x.txt"), folder), "no plain file"),
        (lambda folder: (__file__[:-3] + ".md", folder / "b" / "c.md"), "cannot be"),
    ],
)
def test_what_cannot_be_done_leaves_nothing(
    tmp_path: Path, words: Callable[[Path], tuple[str, Path]], said: str
) -> None:
    source, out = words(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(AxtuneError, match=said):
        scrub_file(source, out)
    assert sorted(tmp_path.iterdir()) == before


@given(st.text(alphabet="a\n\r\u2028\x0b", max_size=20))
def test_lines_are_the_text(text: str) -> None:
    assert "".join(_lines(text)) == text
