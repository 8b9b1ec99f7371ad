"""A file's digest, whichever thread writes which of its blocks."""

from __future__ import annotations

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from axtune.weights.file_digest import DigestInOrder


def test_a_files_digest_is_taken_in_order_whoever_writes_it() -> None:
    content = bytes(range(256)) * 5000
    header, places = b"header..", [8, 100_008, 700_008, 1_000_008]  # zeros lie between
    blocks = [content[:100_000], content[:300_000], content[:1], content[9:]]
    size = 3_000_000
    whole = bytearray(size)
    whole[:8] = header
    for place, block in zip(places, blocks, strict=True):
        whole[place : place + len(block)] = block
    digest = DigestInOrder(header)

    def work(turn: int) -> None:
        time.sleep(0.02 * (3 - turn))  # the last is ready first
        digest.add(turn, places[turn], memoryview(blocks[turn]))
        digest.passed(turn)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert digest.result(size) == hashlib.sha256(whole).hexdigest()


def test_a_block_that_fails_does_not_hold_up_the_others() -> None:
    digest = DigestInOrder(b"")
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(digest.add, 1, 0, memoryview(b"x"))
        digest.passed(0)
        waiting.result(timeout=10)


def test_nobody_waits_for_a_block_that_was_cancelled() -> None:
    digest = DigestInOrder(b"")
    waiting = threading.Thread(target=digest.passed, args=(3,), daemon=True)
    waiting.start()
    waiting.join(timeout=0.05)
    assert waiting.is_alive()
    digest.abandon()
    waiting.join(timeout=10)
    assert not waiting.is_alive()
