"""The ways in which files of tensors are read."""

from __future__ import annotations

import os
from typing import Any

import pytest

from axtune.weights import direct_io


@pytest.fixture(params=["cached", "direct", "unsupported"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How files are read: from the cache, from the disk, or on a file system without the latter."""
    monkeypatch.setattr(direct_io, "_is_cached", lambda file: request.param == "cached")
    if request.param == "unsupported":
        real = os.open

        def refuse(path: Any, flags: int, mode: int = 0o777) -> int:
            if flags & os.O_DIRECT:
                raise OSError(22, "Invalid argument")
            return real(path, flags, mode)

        monkeypatch.setattr(os, "open", refuse)
    return request.param
