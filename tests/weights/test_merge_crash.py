"""A merge that is killed, or runs out of disk, leaves the whole folder or none."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.adapters import adapter_for, sharded_checkpoint
from support.killed import files_of_at_most, fill_the_disk, states_when_killed
from support.tiny import LIBRARY_WARNINGS

from axtune.checkpoint.locate import Checkpoint
from axtune.errors import AxtuneError
from axtune.weights.merge import merge

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


def test_a_disk_that_fills_up_leaves_nothing(
    base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    fill_the_disk(monkeypatch)
    with pytest.raises(AxtuneError, match="filled up; nothing was left behind"):
        merge([adapter], str(base.folder), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_file_that_may_not_become_so_large_leaves_nothing(
    base: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    limited = files_of_at_most(100_000)
    with limited, pytest.raises(AxtuneError, match="would be larger than files may be here"):
        merge([adapter], str(base.folder), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.slow
def test_killed_before_any_write_the_target_is_absent_or_whole(
    base: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    merge([adapter], str(base.folder), tmp_path / "whole")
    states = states_when_killed(
        "from axtune.weights.merge import merge",
        "merge([words[0]], words[1], out)",
        tmp_path / "out",
        tmp_path / "whole",
        str(adapter),
        str(base.folder),
    )
    assert len(states) > 50
    # Only the very last flush comes after the folder has its name.
    assert states == ["absent"] * (len(states) - 1) + ["whole"]
