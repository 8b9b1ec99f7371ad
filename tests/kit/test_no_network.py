"""Processes under the bar reach their own machine and no other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from axtune.kit import no_network


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", (None, ("203.0.113.1", 443))),
        ("socket.connect", (None, ("2001:db8::1", 443, 0, 0))),
        ("socket.sendto", (None, ("203.0.113.1", 53))),
        ("socket.getaddrinfo", ("huggingface.co", 443, 0, 0, 0)),
        ("socket.getaddrinfo", (b"huggingface.co", 443, 0, 0, 0)),
    ],
)
def test_another_machine_is_refused(event: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(PermissionError, match="axtune asked the network"):
        no_network.bar(event, arguments)


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", (None, ("127.0.0.1", 8000))),
        ("socket.connect", (None, ("::1", 8000, 0, 0))),
        ("socket.connect", (None, "/tmp/a.socket")),
        ("socket.getaddrinfo", ("localhost", 80, 0, 0, 0)),
        ("socket.getaddrinfo", (None, 80, 0, 0, 0)),
        ("open", ("huggingface.co",)),
    ],
)
def test_this_machine_is_not(event: str, arguments: tuple[object, ...]) -> None:
    no_network.bar(event, arguments)


def test_every_process_with_it_on_its_path_is_barred(tmp_path: Path) -> None:
    shutil.copyfile(no_network.__file__, tmp_path / "sitecustomize.py")
    code = "import socket; socket.create_connection(('203.0.113.1', 443), 1)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert "PermissionError: axtune asked the network" in done.stderr
