"""An export in 4 bit that is killed before a write goes on, and ends as if it were not."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.adapters import sharded_checkpoint
from support.broken_runs import FULL
from support.killed import states_when_killed
from support.tiny import LIBRARY_WARNINGS, write_rows

from axtune.export.export import export
from axtune.export.four_bit import FourBitOptions

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]

IMPORTS = """
import torch
from axtune.export.export import export
from axtune.export.four_bit import FourBitOptions
torch.set_num_threads(1)
"""
CALL = 'export(words[0], out, to="vllm", four_bit=FourBitOptions(calibrate=(words[1],)))'


@pytest.mark.parametrize("began", ["anew", "in what was left"])
def test_a_killed_export_goes_on(
    began: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = sharded_checkpoint(tmp_path / "base")
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    for name in ("whole", "killed"):  # SERVING.md says the folder as it was given
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    options = FourBitOptions(calibrate=(str(rows),))
    export(str(base.folder), "out", to="vllm", four_bit=options)
    monkeypatch.chdir(tmp_path / "killed")
    call = CALL
    if began == "anew":
        call = f"shutil.rmtree('.out.partial', ignore_errors=True); {CALL}"
    states = states_when_killed(
        IMPORTS,
        call,
        Path("out"),
        tmp_path / "whole/out",
        str(base.folder),
        str(rows),
        every=1 if FULL else 4,
    )
    assert len(states) >= (8 if began == "anew" else 2)
    assert set(states) <= {"absent", "whole"}
