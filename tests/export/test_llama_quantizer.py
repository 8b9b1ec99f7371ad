"""llama.cpp's quantiser as a program of its own: what it says, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from export.test_gguf import gguf_of
from safetensors.numpy import save_file
from support.tiny import LIBRARY_WARNINGS, checkpoint

from axtune.export import llama_quantizer

pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed; scripts/setup_llama_cpp.sh builds it"
)
pytestmark = LIBRARY_WARNINGS


def started(*words: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", llama_quantizer.__file__, *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_file_that_is_none_fails_with_what_llama_cpp_says(tmp_path: Path) -> None:
    (tmp_path / "in.gguf").write_bytes(b"no GGUF")
    with started(tmp_path / "in.gguf", tmp_path / "out.gguf", "Q4_K_M", "1", "") as process:
        assert process.stderr
        said = process.stderr.read().decode()
    assert process.returncode == 1
    assert "failed to quantize" in said


def test_a_matrix_of_another_size_fails(tmp_path: Path) -> None:
    """So the names that are ours are llama.cpp's, too."""
    base = checkpoint(tmp_path / "base")
    gguf_of(base.folder, tmp_path / "in")
    source = tmp_path / "in/in.gguf"
    for name, width, status in (
        ("blk.1.attn_q.weight", 64, 0),
        ("blk.1.attn_q.weight", 65, 1),
        ("blk.1.self_attn.q_proj.weight", 65, 0),
    ):
        save_file({name: np.ones(width, np.float32)}, tmp_path / "matrix")
        words = (source, tmp_path / "out.gguf", "Q6_K", "1", tmp_path / "matrix")
        with started(*words) as process:
            assert process.stderr
            said = process.stderr.read().decode()
        assert process.returncode == status, said
        assert "have importance matrix data with 1 entries" in said


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    fifo = tmp_path / "never written"
    os.mkfifo(fifo)
    process = started(fifo, tmp_path / "out.gguf", "Q4_K_M", "1", "")
    assert process.stdin
    assert process.stderr
    with process.stderr:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=3)
        process.stdin.close()
        assert process.wait(timeout=20) == 1
