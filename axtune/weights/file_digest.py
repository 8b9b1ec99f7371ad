"""SHA-256 of a file while several threads write it, so that nothing is read back for it."""

from __future__ import annotations

import hashlib
import threading

_ZEROS = bytes(1 << 16)


class DigestInOrder:
    """SHA-256 of a file whose blocks are written by several threads, each when its turn comes.

    Blocks are handed out in the order of the file, so that a thread waits only for those that other
    threads are at; meanwhile they read, compute and write.

    Args:
        header: The file's first bytes.
    """

    def __init__(self, header: bytes) -> None:
        self._sha = hashlib.sha256(header)
        self._end = len(header)
        self._turn = 0
        self._abandoned = False
        self._changed = threading.Condition()

    def add(self, turn: int, position: int, block: memoryview) -> None:
        """Add a block, after all that have an earlier turn; zeros lie before it.

        Args:
            turn: Of the block, from 0 on.
            position: In the file.
            block: Its bytes.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._turn >= turn or self._abandoned)
        self._zeros(position)
        self._sha.update(block)
        self._end = position + len(block)

    def passed(self, turn: int) -> None:
        """Let the next block have its turn, whether this one came to be written or not."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn >= turn or self._abandoned)
            self._turn = turn + 1
            self._changed.notify_all()

    def abandon(self) -> None:
        """Let nobody wait any more: of blocks that are cancelled, the turn never comes."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def result(self, size: int) -> str:
        """The file's digest, once all blocks are added.

        Args:
            size: Of the file, which ends with zeros where nothing was written.
        """
        self._zeros(size)
        return self._sha.hexdigest()

    def _zeros(self, position: int) -> None:
        while self._end < position:
            count = min(position - self._end, len(_ZEROS))
            self._sha.update(_ZEROS[:count])
            self._end += count
