from __future__ import annotations

import pytest

from axtune.progress_bar import ProgressBar


def test_a_log_file_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("reading") as bar:
        bar.show(10, 100, "a")
        bar._last -= 60
        bar._begun -= 60
        bar.show(40, 100, "b")
        bar.show(50, 100, "c")
        bar._last -= 60
        bar.show(100, 100, "d")
    assert capsys.readouterr().err == "40%: b, 2m 00s left\n100%: d\n"
