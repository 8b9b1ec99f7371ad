"""A disk that fills up: a sentence, every checkpoint whole; the run goes on when there is room."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from faults.test_kills import job
from support.broken_runs import FULL, run_here

pytestmark = pytest.mark.slow

JOBS = ("packed", "dpo")
QUOTAS = 10 if FULL else 2  # of each job
LEAST = 20

_OWN_MOUNTS = ("unshare", "--map-root-user", "--mount")


def _can_mount() -> bool:
    try:
        done = subprocess.run([*_OWN_MOUNTS, "mount", "-t", "tmpfs", "none", "/mnt"], check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="no user namespaces here, so no disk of a size")
def test_a_run_on_a_disk_that_fills_up_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps({name: job(tmp_path, name) for name in JOBS}), encoding="utf-8")
    told = run_here("quotas", str(file), str(QUOTAS), within=_OWN_MOUNTS)
    assert [one["job"] for one in told] == [name for name in JOBS for _ in range(QUOTAS)]
    for one in told:
        assert (one["code"], one["traceback"], one["damaged"]) == (1, False, 0), one
        assert "No space left on device" in one["end"], one
        assert one["again"]["same"], one


def test_the_quotas_are_as_many_as_promised() -> None:
    if FULL:
        assert len(JOBS) * QUOTAS >= LEAST
