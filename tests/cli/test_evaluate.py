"""`axtune eval`: options that need another are refused, and --at-least makes the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import axtune_in_process
from support.rows import chat, write_jsonl
from support.tiny import LIBRARY_WARNINGS

pytestmark = LIBRARY_WARNINGS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "There is no model to ask."),
        (["m", "--held-out", "0.3"], "--held-out needs --convert."),
        (["--convert", "{out}"], "--convert needs a benchmark's files."),
        (["--convert", "{out}", "--limit", "3"], "--convert asks nothing, and --limit is of"),
        (["--convert", "{out}", "--out", "a"], "--convert asks nothing, and --out is of"),
        (["--convert", "{out}", "--at-least", "x=1"], "--convert asks nothing, and --at-least is"),
        (["m", "--examples", "3"], "Name the other: --against base."),
        (["m", "--chat"], "are of tasks, and there are none."),
        (["m", "--num-fewshot", "0"], "are of tasks, and there are none."),
        (["m", "--task-folder", "."], "are of tasks, and there are none."),
        (["m", "--stream"], "--stream asks a server"),
        (["m", "--stream", "--against", "base"], "--stream asks a server"),
        (["m", "--samples", "2"], "Set --temperature"),
        (["m", "--at-least", "accuracy"], "accuracy"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_misuse_is_said_in_a_sentence(words: list[str], said: str, tmp_path: Path) -> None:
    done = axtune_in_process("eval", *(word.format(out=tmp_path / "out") for word in words))
    assert (done.status, done.out) == (1, "")
    assert said in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_figure_below_the_least_exits_1(tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [chat("1 더하기 1은?", "2")])
    words = ["eval", "tiny-ax-4.0", "--data", str(rows), "--max-new-tokens", "2"]
    words += ["--out", str(tmp_path / "out"), "--json"]
    done = axtune_in_process(*words, "--at-least", "exact=0")
    assert done.status == 0
    assert json.loads(done.out) == json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
    below = axtune_in_process(*words, "--at-least", "exact=1")
    assert below.status == 1
    assert "exact is 0, and was to be at least 1." in below.err
