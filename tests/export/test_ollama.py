"""Modelfiles: what Ollama needs besides the file."""

from __future__ import annotations

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.export.ollama import modelfile


def test_a_modelfile_says_what_ollama_cannot_guess(either_tiny: AxTokenizer) -> None:
    assert modelfile(either_tiny, "mine.gguf").splitlines() == [
        "FROM ./mine.gguf",
        "REQUIRES 0.30.0",  # renders with the template in the file, and would not prefer ours
        'PARAMETER stop "<|im_end|>"',
        f"PARAMETER num_ctx {either_tiny.context}",
        "PARAMETER repeat_penalty 1",  # Ollama's own default is above 1
    ]
