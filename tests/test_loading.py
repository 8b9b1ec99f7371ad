"""Libraries are loaded while the collector rests, and it collects again afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from axtune.loading import loading


@pytest.fixture(autouse=True)
def _it_collects() -> Iterator[None]:
    yield
    gc.enable()


def test_the_collector_rests_and_leaves_what_was_loaded_alone() -> None:
    frozen = gc.get_freeze_count()
    with loading():
        assert not gc.isenabled()
        loaded = [[] for _ in range(10_000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(loaded)


def test_it_collects_again_when_a_library_is_lacking() -> None:
    with pytest.raises(ModuleNotFoundError), loading():
        import no_such_library  # noqa: F401
    assert gc.isenabled()


def test_a_user_who_switched_it_off_has_it_off() -> None:
    gc.disable()
    with loading():
        pass
    assert not gc.isenabled()
