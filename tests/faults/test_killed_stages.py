"""A recipe of stages that is killed ends, begun again, as one that was not."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from support import staged
from support.broken_runs import FULL

pytestmark = pytest.mark.slow

KILLS = 10 if FULL else 2


def test_killed_stages_end_with_the_same(tmp_path: Path) -> None:
    process = staged.begin(staged.write(tmp_path, tmp_path / "whole"))
    began = time.monotonic()
    assert process.wait() == 0, process.said
    took = time.monotonic() - began
    wanted = staged.results(tmp_path / "whole"), staged.adapters(tmp_path / "whole")
    draw = random.Random(0)
    for number in range(KILLS):
        out = tmp_path / str(number)
        recipe = staged.write(tmp_path, out)
        process = staged.begin(recipe)
        time.sleep(took * draw.uniform(0.2, 0.95))
        process.send_signal(signal.SIGKILL)
        process.wait()
        staged.run(recipe)
        assert staged.results(out) == wanted[0]
        assert staged.equal(wanted[1], staged.adapters(out))
        assert (out / "report.html").is_file()
