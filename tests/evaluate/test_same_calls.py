"""Calls in 4 bit are held against those in 16 bit by the rules that judge every call."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.adapters import adapter_for, run_with, sharded_checkpoint
from support.rows import write_jsonl
from support.tiny import LIBRARY_WARNINGS

from axtune.checkpoint import locate
from axtune.checkpoint.locate import Checkpoint
from axtune.data.native_calls import Answer
from axtune.evaluate import same_calls as module
from axtune.evaluate.questions import Question
from axtune.evaluate.same_calls import _is_same, same_calls
from axtune.evaluate.score import Rules, Wanted
from axtune.export.export import export
from axtune.export.four_bit import FourBitOptions

pytestmark = LIBRARY_WARNINGS


def answer(*calls: tuple[str, str], content: str = "") -> Answer:
    made = [
        {"type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in calls
    ]
    return Answer(content, made)


QUESTION = Question("1", "call", [], [], Wanted("text"), Rules())
BOOK = ("book", '{"room": "1층", "hour": 9}')


@pytest.mark.parametrize(
    ("given", "other", "same"),
    [
        (answer(BOOK), answer(("book", '{"hour": 9.0, "room": "1층"}')), True),
        (answer(BOOK), answer(("book", '{"hour": "9", "room": "1층"}')), False),
        (answer(BOOK), answer(("look", '{"room": "1층", "hour": 9}')), False),
        (answer(BOOK, ("look", "{}")), answer(("look", "{}"), BOOK), True),
        (answer(BOOK), answer(BOOK, BOOK), False),
        (answer(content="네"), answer(content="아니요"), True),  # neither calls
        (answer(content="네"), answer(BOOK), False),
        (answer(BOOK), answer(content="네"), False),
        (answer(("book", "{broken")), answer(("book", "{broken")), True),
        (answer(BOOK), answer(("book", "{broken")), False),
    ],
)
def test_the_same_calls(given: Answer, other: Answer, same: bool) -> None:
    assert _is_same(given, other, QUESTION) is same


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = [
        {
            "messages": [
                {"role": "user", "content": f"{number}번 주문은?"},
                {"role": "assistant", "content": "모레 도착합니다."},
            ]
        }
        for number in range(6)
    ]
    return str(write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", made))


def test_both_are_asked_and_counted(base: Checkpoint, rows: str, tmp_path: Path) -> None:
    run = run_with(adapter_for(base, tmp_path / "adapter"), base, tmp_path / "run")
    options = FourBitOptions(fast=True)
    export(run, tmp_path / "out", to="vllm", four_bit=options)
    checkpoint = locate.find(str(tmp_path / "out"))
    (check,) = same_calls(checkpoint, base, tmp_path / "adapter", None, [rows])
    assert check.status == "pass"
    assert check.figures["questions"] == 6
    assert check.figures["same"] == 1  # random models call nothing
    assert "6 of 6 questions" in check.found
    (check,) = same_calls(checkpoint, base, tmp_path / "adapter", None, [rows], least=1.01)
    assert check.status == "fail"


def test_without_questions_it_says_so(base: Checkpoint) -> None:
    (check,) = same_calls(base, base, None, None, [])
    assert check.status == "skip"
    assert "no rows of its own" in check.found


def test_documents_ask_nothing(base: Checkpoint, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "documents.jsonl", [{"text": "한 문서의 본문이다."}])
    (check,) = same_calls(base, base, None, None, [str(file)])
    assert check.status == "skip"
    assert "ask nothing; give --data FILE" in check.found


def test_what_does_not_fit_in_memory_is_left_out(
    base: Checkpoint, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: 1000.0)
    (check,) = same_calls(base, base, None, None, [rows])
    assert check.status == "skip"
    assert "axtune eval DIR --against RUN" in check.found
