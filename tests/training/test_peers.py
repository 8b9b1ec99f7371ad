"""What processes of a run tell each other, at a real meeting place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from axtune.training import peers
from axtune.training.peers import Place, has_failed_peer, is_first_to_say, note_failure, of_peers

Become = Callable[[int], None]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Iterator[Become]:
    """Take the place of one process of three."""
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("WORLD_SIZE", "3")
    yield lambda rank: monkeypatch.setenv("RANK", str(rank))
    del store


def test_the_first_one_says_it(become: Become) -> None:
    become(0)
    assert is_first_to_say("No room.")
    become(1)
    assert not is_first_to_say("No room.")
    assert is_first_to_say("Something else.")


def test_who_is_behind_is_named(become: Become) -> None:
    waited = RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 4000ms")
    said = of_peers(waited)
    assert said
    assert said.found.startswith("Another process of this run did not answer")
    for rank, steps in ((0, 3), (1, 2), (2, 3)):
        become(rank)
        place = Place()
        for _ in range(steps):
            place.passed()
    said = of_peers(waited)
    assert said
    assert said.found.startswith("Process 1 of this run did not answer")
    become(2)
    Place().passed()  # a new one, of a process that began again
    said = of_peers(waited)
    assert said
    assert said.found.startswith("Processes 1 and 2 of this run")


def test_who_has_gone(become: Become) -> None:
    for words in ("Connection closed by peer [127.0.0.1]:9", "Broken pipe"):
        said = of_peers(RuntimeError(words))
        assert said
        assert said.found.startswith("Another process of this run has ended")
    assert of_peers(RuntimeError("shapes differ")) is None
    assert of_peers(ValueError("Broken pipe")) is None
    assert of_peers(None) is None


def test_a_failure_is_known_to_the_others(become: Become) -> None:
    become(0)
    assert not has_failed_peer()
    note_failure()
    become(1)
    assert has_failed_peer()


def test_where_nobody_is_to_be_asked(become: Become, monkeypatch: pytest.MonkeyPatch) -> None:
    become(0)
    monkeypatch.setattr(peers, "_ASKING", peers.timedelta(milliseconds=200))
    monkeypatch.setenv("MASTER_PORT", "1")
    assert is_first_to_say("No room.")
    assert has_failed_peer()
    note_failure()
    said = of_peers(RuntimeError("Timed out waiting 4000ms"))
    assert said
    assert said.found.startswith("Another process")


def test_one_process_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(peers, "_meeting_place", lambda: pytest.fail("there is none"))
    Place().passed()
    note_failure()
    assert not has_failed_peer()
    assert is_first_to_say("No room.")
