"""Own kinds: every fault of a file is named, and a pattern that backtracks is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import regex

from axtune.errors import AxtuneError
from axtune.privacy.own_kinds import OwnKind, read_own_kinds

GOOD = """
kinds:
  - name: employee_no
    pattern: 'SK\\d{6}'
    labels: [사번]
    mask: '[사번]'
  - {name: line, pattern: 'L-\\d+', mask: '<|telephone|>'}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "kinds.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_kinds_are_read(tmp_path: Path) -> None:
    first, second = read_own_kinds(write(tmp_path, GOOD))
    assert (first.name, first.labels, first.mask) == ("employee_no", ("사번",), "[사번]")
    assert list(first.find("사번 SK123456")) == [(3, 11)]
    assert not list(first.find("모델 SK123456"))
    rows = "".join(f"김예시,SK{n:06}\n" for n in range(50))
    assert len(list(first.find("이름,사번\n" + rows))) == 50
    assert list(second.find("L-12")) == [(0, 4)]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("{name: a, pattern: '(a+)+$', mask: x}", "backtracks"),
        ("{name: a, pattern: '(\\d+\\d+)+x', mask: '[y]'}", "backtracks"),
        ("{name: a, pattern: '(', mask: x}", "no regular expression"),
        ("{name: a, pattern: 'b*', mask: x}", "everything"),
        ("{name: a, pattern: '\\w', mask: '[x]'}", "its own mask"),
        ("{name: a, pattern: b, mask: 'x\"'}", "quotes"),
        ("{name: a, pattern: b, mask: '<|im_end|>'}", "control tokens"),
        ("{name: telephone, pattern: b, mask: x}", "there already"),
        ("{name: a, patern: b, mask: x}", "unknown key patern"),
        ("{name: a, pattern: b, mask: x, labels: 사번}", "a list of words"),
        ("{name: '', pattern: b, mask: x}", ".name"),
        ("7", "expected name"),
    ],
)
def test_faults_are_named(tmp_path: Path, kind: str, said: str) -> None:
    file = write(tmp_path, f"kinds:\n  - {kind}\n")
    with pytest.raises(AxtuneError, match=r"kinds\[0\]") as caught:
        read_own_kinds(file)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "kinds: []", "kinds: {", "a: b", "- a"])
def test_files_of_something_else(tmp_path: Path, text: str) -> None:
    with pytest.raises(AxtuneError):
        read_own_kinds(write(tmp_path, text))
    with pytest.raises(AxtuneError, match="cannot be read"):
        read_own_kinds(tmp_path / "absent.yaml")


def test_a_slow_pattern_stops_the_job_and_passes_nothing() -> None:
    kind = OwnKind("slow", regex.compile(r"(x+x+)+y"), (), "[z]")
    with pytest.raises(AxtuneError, match="slow takes too long"):
        list(kind.find("x" * 5000))
