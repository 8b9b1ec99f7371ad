"""From a corpus to drafts: what is kept, what is refused and why; nothing is done twice."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import ENVIRONMENT
from support.drafting import NAMES, Drafter, corpus, document, pairs, passage_of, question_of, says
from support.openai_server import Server, running
from support.rows import ROOT, check_rows, read_jsonl, write_jsonl

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.drafting import draft as drafting
from axtune.drafting.draft import Options, Report, draft
from axtune.drafting.journal import Journal
from axtune.drafting.server import find_server
from axtune.errors import AxtuneError
from axtune.privacy.scrub import Scrubber

Replies = Callable[[dict[str, Any]], tuple[int, Any]]


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as made:
        made.reply = Drafter()
        yield made


def ask(server: Server, file: Path, out: Path, **options: Any) -> Report:
    served = find_server(server.url, None, allow_remote=False)
    return draft([file], served, out, Options(**options), Scrubber())


def replies(drafted: Any, checked: Any = None, finish: str = "stop") -> Replies:
    """Always the same reply, to a passage and to a question."""
    return lambda request: says(drafted if question_of(request) is None else checked, finish)


def test_each_row_can_be_trained_on_and_says_that_it_is_a_draft(
    server: Server, tmp_path: Path, tiny: AxTokenizer
) -> None:
    out = tmp_path / "drafts.jsonl"
    report = ask(server, corpus(tmp_path, 5), out)
    assert (report.documents, report.passages, report.drafted, report.kept) == (5, 5, 5, 5)
    rows = read_jsonl(out)
    assert [row["meta"]["source"] for row in rows] == [f"{name}.pdf" for name in NAMES[:5]]
    for row, number in zip(rows, range(3, 8), strict=True):
        user, assistant = row["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert f"{number}일 안에 총무팀" in assistant["content"]
        assert f"{number}일" in row["meta"]["passage"]
        assert row["meta"]["sha256"] == f"{number:064}"
        assert (row["meta"]["model"], row["meta"]["draft"]) == ("mine", True)
    checked = check_rows(tiny, rows)
    assert [[fault.code for fault in one.faults] for one in checked] == [["draft"]] * 5
    assert not any(one.refused for one in checked)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "drafts.jsonl"]


def test_how_many_at_once_changes_nothing(server: Server, tmp_path: Path) -> None:
    file = corpus(tmp_path, 12)
    for number in (1, 12):
        server.reply = Drafter(0.005)
        ask(server, file, tmp_path / f"{number}.jsonl", at_once=number)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "12.jsonl").read_bytes()


GOOD = ("연차휴가 신청은 언제까지 내야 하나요?", "3일 안에 총무팀에 냅니다.")
SAME = {"answerable": True, "answer": "3일 안에 총무팀에 냅니다."}


@pytest.mark.parametrize(
    ("drafted", "checked", "reason"),
    [
        (pairs(GOOD), {"answerable": False, "answer": ""}, "unanswerable"),
        (pairs(GOOD), {"answerable": True, "answer": "부서장이 확인합니다."}, "answers-differ"),
        (pairs(GOOD), "3일입니다.", "check-unreadable"),
        (pairs(("이 문서의 제출 기한은 언제인가요?", GOOD[1])), SAME, "needs-context"),
        (pairs((GOOD[0], "9일 안에 총무팀에 냅니다.")), SAME, "not-in-passage"),
        (pairs((GOOD[0], "010-8842-1177로 전화합니다.")), SAME, "personal-data"),
        (pairs(("", "")), SAME, "empty"),
        ({"pairs": [{"question": GOOD[0]}]}, SAME, "malformed"),
    ],
)
def test_a_pair_that_is_refused_is_counted(
    server: Server, tmp_path: Path, drafted: Any, checked: Any, reason: str
) -> None:
    server.reply = replies(drafted, checked)
    report = ask(server, corpus(tmp_path, 1), tmp_path / "out.jsonl")
    assert (report.drafted, report.kept, report.refused) == (1, 0, {reason: 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl"]


def test_more_pairs_than_asked_for_and_the_same_twice(server: Server, tmp_path: Path) -> None:
    again = ("연차휴가 신청은, 언제까지 내야하나요", GOOD[1])
    server.reply = replies(pairs(GOOD, again, GOOD), SAME)
    report = ask(server, corpus(tmp_path, 1), tmp_path / "out.jsonl")
    assert (report.drafted, report.kept) == (3, 1)
    assert report.refused == {"surplus": 1, "near-duplicate": 1}
    (row,) = read_jsonl(tmp_path / "out.jsonl")
    assert row["messages"][0]["content"] == GOOD[0]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (says("질문을 만들 수 없습니다."), "unreadable"),
        (says({"pairs": []}), "nothing-to-ask"),
        (says('{"pairs": [', "length"), "cut-off"),
        ((400, {"message": "maximum context length is 16"}), "too-long"),
        ((400, {"message": "no"}), "server-refused"),
    ],
)
def test_a_passage_without_pairs_is_named(
    server: Server, tmp_path: Path, reply: tuple[int, Any], reason: str
) -> None:
    good = Drafter()
    server.reply = lambda request: reply if NAMES[1] in passage_of(request) else good(request)
    report = ask(server, corpus(tmp_path, 3), tmp_path / "out.jsonl")
    (places,) = report.failed.values()
    assert list(report.failed) == [reason]
    assert [place.split(" ")[0] for place in places] == [f"{NAMES[1]}.pdf"]
    assert report.kept == 2


def test_a_first_passage_that_is_too_long_says_nothing_of_schemas(
    server: Server, tmp_path: Path
) -> None:
    good = Drafter()

    def reply(request: dict[str, Any]) -> tuple[int, Any]:
        if NAMES[0] in passage_of(request):
            return 400, {"message": "This model's maximum context length is 16 tokens."}
        return good(request)

    server.reply = reply
    assert ask(server, corpus(tmp_path, 3), tmp_path / "out.jsonl").kept == 2
    assert all("response_format" in request for _, request in server.asked)


def test_a_server_that_refuses_everything_stops_it(server: Server, tmp_path: Path) -> None:
    server.reply = lambda request: (400, {"message": passage_of(request)})
    with pytest.raises(AxtuneError, match="status 400") as caught:
        ask(server, corpus(tmp_path, 3), tmp_path / "out.jsonl")
    assert NAMES[0] not in str(caught.value)
    assert len(server.asked) == 2


def test_masks_go_to_the_server_and_personal_data_does_not(server: Server, tmp_path: Path) -> None:
    row = document("연차휴가", 3)
    row["text"] += " 담당자 전화번호는 010-8842-1177이다."
    ask(server, write_jsonl(tmp_path / "c.jsonl", [row]), tmp_path / "out.jsonl")
    sent = json.dumps(server.asked, ensure_ascii=False)
    assert "8842" not in sent
    assert "<|telephone|>" in sent
    assert "8842" not in (tmp_path / "out.jsonl").read_text("utf-8")


def test_what_was_drafted_is_kept_when_the_server_fails(server: Server, tmp_path: Path) -> None:
    file, out, good = corpus(tmp_path, 6), tmp_path / "out.jsonl", Drafter()
    server.reply = lambda request: (401, {}) if NAMES[4] in passage_of(request) else good(request)
    with pytest.raises(AxtuneError, match="its key is wrong") as caught:
        ask(server, file, out, at_once=1)
    assert "goes on" in caught.value.remedy
    assert not out.exists()
    (partial,) = tmp_path.glob(".*")
    assert stat.S_IMODE(partial.stat().st_mode) == 0o600
    server.reply = again = Drafter()
    with pytest.raises(AxtuneError, match="--seed was 42, now 1"):
        ask(server, file, out, seed=1)
    report = ask(server, file, out)
    assert (report.present, report.kept, len(again.drafted)) == (4, 6, 2)
    server.reply = Drafter()
    ask(server, file, tmp_path / "whole.jsonl")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    with pytest.raises(AxtuneError, match="exists already"):
        ask(server, file, out)


def test_documents_that_came_later_are_asked_of(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    served = find_server(server.url, None, allow_remote=False)
    with pytest.raises(KeyboardInterrupt):
        draft([corpus(tmp_path, 2)], served, out, Options(), Scrubber(), stop)
    report = ask(server, corpus(tmp_path, 4), out)
    assert (report.passages, report.present, report.kept) == (4, 1, 4)


def test_a_full_disk_is_said(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "add", full)
    with pytest.raises(AxtuneError, match="No space left") as caught:
        ask(server, corpus(tmp_path, 2), tmp_path / "out.jsonl")
    assert "goes on" in caught.value.remedy
    monkeypatch.undo()
    monkeypatch.setattr(drafting, "_write", full)
    with pytest.raises(AxtuneError, match="No space left"):
        ask(server, corpus(tmp_path, 2), tmp_path / "out.jsonl")
    monkeypatch.undo()
    assert ask(server, corpus(tmp_path, 2), tmp_path / "out.jsonl").present == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_stopped_and_gone_on(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    file, out, whole = corpus(tmp_path, 20), tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    ask(server, file, whole)
    server.reply = slow = Drafter(0.15)
    command = [sys.executable, "-m", "axtune", "data", "ask", str(file), "--url", server.url]
    command += ["--out", str(out), "--at-once", "2"]
    partial = tmp_path / ".out.jsonl.partial"
    with subprocess.Popen(command, stdout=-3, stderr=-1, cwd=ROOT, env=ENVIRONMENT) as stopped:
        while stopped.poll() is None and not (partial.exists() and partial.stat().st_size > 900):
            time.sleep(0.01)
        stopped.send_signal(number)
        _, said = stopped.communicate()
    assert stopped.returncode == {2: 130, 9: -9, 15: 143}[number]
    assert b"Traceback" not in said
    assert b"goes on" in said or number == signal.SIGKILL
    assert not out.exists()
    begun = len(slow.drafted)
    server.reply = again = Drafter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=ENVIRONMENT)
    assert 0 < len(again.drafted) < 20
    assert begun + len(again.drafted) <= 20 + 3  # what was on its way
    assert out.read_bytes() == whole.read_bytes()
