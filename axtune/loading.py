"""Heavy libraries, loaded in less time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """What is imported within loads without the garbage collector, which leaves it alone after.

    It would look through the libraries again and again as they grow, a quarter of the time that
    they take, and finds nothing: modules are no garbage.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
