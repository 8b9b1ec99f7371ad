"""The real models' architectures, for the tests of the plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from axtune.checkpoint import locate
from axtune.plan.architecture import Architecture, read_architecture


@pytest.fixture(scope="session", params=["4.0", "3.1"])
def real_one(
    request: pytest.FixtureRequest, real_checkpoint: Callable[[str], Path]
) -> tuple[str, Architecture]:
    config = locate.read_json(real_checkpoint(request.param) / "config.json")
    return request.param, read_architecture(config, request.param)


@pytest.fixture(scope="session")
def light(real_checkpoint: Callable[[str], Path]) -> Architecture:
    """A.X 4.0 Light's."""
    return read_architecture(locate.read_json(real_checkpoint("4.0") / "config.json"), "4.0")
