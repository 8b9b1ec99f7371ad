"""SERVING.md for vLLM: a line that fits each card, and what makes more fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from axtune.checkpoint.families import relative_of_a_x
from axtune.export.serving import room, serving, verify_command, vllm_command
from axtune.plan.serving import LIGHTS

FAMILY = relative_of_a_x("llama")
AX31, AX40 = LIGHTS["skt/A.X-3.1-Light"], LIGHTS["skt/A.X-4.0-Light"]


def test_the_line_is_complete() -> None:
    line = vllm_command(Path("models/내 모델"), 4096, FAMILY)
    assert line == (
        "vllm serve 'models/내 모델' --served-model-name '내 모델' --max-model-len 4096 "
        "--enable-auto-tool-choice --tool-call-parser hermes"
    )
    assert "--served-model-name" not in vllm_command(Path("BASE"), None, FAMILY)


def test_each_card_has_the_context_that_fits() -> None:
    text = serving("vllm serve x", Path("x"), FAMILY, AX31, "w4a16")
    assert "4.99 GB of weights" in text
    assert "| 8 GB | `--max-model-len 3488` | 3,488 |" in text
    assert "| 24 GB | `--max-model-len 32768` | 32,976 |" in text
    assert "--kv-cache-dtype fp8" in text
    assert "--bits 4" not in text  # it is that already
    assert "8.10 GB of weights, rounded when they are" in text
    assert "vllm serve BASE --quantization fp8_per_tensor" in text


def test_16_bit_says_what_is_smaller() -> None:
    text = serving("vllm serve x", Path("x"), FAMILY, AX40, "bf16")
    assert "| 8 GB | does not fit | |" in text
    assert "--quantization fp8_per_tensor" in text
    assert "axtune export --bits 4" in text


def test_the_line_that_certifies_is_quoted() -> None:
    run, checkpoint = "runs/내 실행", "skt/A.X-4.0-Light"
    made = verify_command(Path("my models/x"), run, None, adapted=True)
    assert made == "axtune verify 'my models/x' --adapter 'runs/내 실행'"
    assert verify_command(Path("x"), "a", "b c", adapted=True).endswith("--against 'b c'")
    made = verify_command(Path("x"), checkpoint, None, adapted=False)
    assert made == "axtune verify x --against skt/A.X-4.0-Light"


def test_without_weights_nothing_is_said_of_memory() -> None:
    assert "Memory" not in serving("vllm serve BASE", Path("mine"), FAMILY)


@pytest.mark.parametrize(
    ("config", "form", "expected"),
    [
        (AX40, "w4a16", "8 GB 16,384 tokens, by"),
        (AX31, "w4a16", "8 GB 3,488 tokens, 12 GB 10,864 tokens, 16 GB 18,224 tokens, 24 GB"),
        (AX40, "bf16", "16 GB 720 tokens, 24 GB 16,384 tokens, by"),
    ],
)
def test_the_room_in_a_line(config: dict, form: str, expected: str) -> None:
    assert room(config, "x", form).startswith(expected)


def test_what_no_card_serves_is_said() -> None:
    huge = {**AX40, "num_hidden_layers": 2000}
    assert room(huge, "x", "bf16").startswith("more than 80 GB")
