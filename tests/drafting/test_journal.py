"""What was drafted is found again, and nothing that was drafted otherwise."""

from __future__ import annotations

import stat
from collections import Counter
from pathlib import Path

import pytest

from axtune.drafting.journal import Outcome, opened
from axtune.errors import AxtuneError

FACTS = {"model": "mine", "prompt_version": "1", "questions": 2, "seed": 42}
OUTCOME = Outcome(
    2, [{"question": "가?", "answer": "나", "checked": "나", "overlap": 1.0}], Counter({"empty": 1})
)


def test_outcomes_are_found_again(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.jsonl"
    with opened(out, FACTS) as journal:
        journal.add("a", OUTCOME)
        journal.add("b", Outcome(failed="too-long"))
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    with opened(out, FACTS) as journal:
        assert journal.outcomes == {"a": OUTCOME, "b": Outcome(failed="too-long")}


@pytest.mark.parametrize("tail", [b'{"passage": "c"', b'{"passage": "c"}\n', b"\xff\n", b"3\n"])
def test_what_a_kill_cut_off_goes(tmp_path: Path, tail: bytes) -> None:
    out = tmp_path / "out.jsonl"
    with opened(out, FACTS) as journal:
        journal.add("a", OUTCOME)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + tail)
    with opened(out, FACTS) as journal:
        assert list(journal.outcomes) == ["a"]
    assert journal.path.read_bytes() == whole


def test_every_place_of_a_cut_is_survived(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with opened(out, FACTS) as journal:
        journal.add("a", OUTCOME)
    whole = journal.path.read_bytes()
    for size in range(len(whole)):
        journal.path.write_bytes(whole[:size])
        with opened(out, FACTS) as journal:
            assert not journal.outcomes
            journal.add("a", OUTCOME)
        assert journal.path.read_bytes() == whole


def test_other_options_are_refused_with_the_difference(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with opened(out, FACTS):
        pass
    other = {**FACTS, "seed": 7, "model": "other", "prompt_version": "2"}
    with pytest.raises(AxtuneError, match="made otherwise") as caught, opened(out, other):
        pass
    for said in ("--seed was 42, now 7", "--model was mine, now other", "prompt version was 1"):
        assert said in caught.value.found
    with opened(out, FACTS):
        pass


def test_one_process_writes(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with (
        opened(out, FACTS),
        pytest.raises(AxtuneError, match="Another process"),
        opened(out, FACTS),
    ):
        pass


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out, said in (
        (tmp_path / "file", "exists already"),
        (tmp_path, "exists already"),
        (tmp_path / "file" / "out.jsonl", "is a file"),
        (Path("/proc/out.jsonl"), "cannot be written"),
        (tmp_path / ("가" * 300), "cannot be"),
    ):
        with pytest.raises(AxtuneError, match=said), opened(out, FACTS):
            pass
