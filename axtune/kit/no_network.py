"""Bars a Python process, as its ``sitecustomize``, from every address but its own machine's."""

from __future__ import annotations

import sys
from typing import Any

_OWN = ("127.", "::1", "localhost")


def bar(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse a connection to another machine, and a question about one's address.

    Args:
        event: Of Python's audit, such as ``socket.connect``.
        arguments: Of the event.

    Raises:
        PermissionError: When it would leave the machine.
    """
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[-1]
        host = address[0] if isinstance(address, tuple) and address else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if isinstance(host, str) and host and not host.startswith(_OWN):
        raise PermissionError(f"axtune asked the network: {event} {host}")


if __name__ == "sitecustomize":
    sys.addaudithook(bar)
