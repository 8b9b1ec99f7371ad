"""An evaluation that is killed goes on, and gives the figures of one that was not."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.broken_runs import FULL
from support.forked import Forked
from support.rows import ROOT

from axtune.evaluate.answers import ANSWERS
from axtune.evaluate.results import RESULT

pytestmark = pytest.mark.slow

ROWS = ROOT / "data_templates" / "chat.jsonl"
KILLS = 12 if FULL else 3


def begin(out: Path) -> Forked:
    words = [
        "eval", "tiny-ax-4.0", "--against", "tiny-ax-3.1", "--data", str(ROWS), "--limit", "12",
        "--max-new-tokens", "12", "--batch-size", "2", "--out", str(out),
    ]  # fmt: skip
    return Forked("axtune.cli:main", words, output=out.with_suffix(".said"), cwd=ROOT)


def kept(out: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The result without its times, and the answers by their keys."""
    result = json.loads((out / RESULT).read_text())
    for name in ("seconds", "created"):
        del result[name]
    lines = [json.loads(line) for line in (out / ANSWERS).read_text().splitlines()]
    assert len(lines) == len({line["key"] for line in lines})
    return result, {line["key"]: line["content"] for line in lines}


def lines_of(out: Path) -> int:
    file = out / ANSWERS
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def test_a_killed_evaluation_gives_the_same_figures(tmp_path: Path) -> None:
    assert begin(tmp_path / "whole").wait() == 0
    whole = kept(tmp_path / "whole")
    draw = random.Random(0)
    for number in range(KILLS):
        out = tmp_path / str(number)
        process = begin(out)
        wanted = draw.randrange(24)  # answers that are there when it is killed
        while lines_of(out) < wanted and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert begin(out).wait() == 0
        assert kept(out) == whole
