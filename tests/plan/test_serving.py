"""Which export serves where: the arithmetic of weights and cache, by hand and by the files."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from axtune.plan.architecture import read_architecture
from axtune.plan.gpus import find_card
from axtune.plan.serving import FORMS, LIGHTS, cache_bytes, served, show, to_json, weight_bytes

AX31, AX40 = "skt/A.X-3.1-Light", "skt/A.X-4.0-Light"


@pytest.mark.parametrize(
    ("name", "form", "gb"),
    [
        (AX40, "bf16", 14.52),
        (AX40, "fp8", 7.99),
        (AX40, "w4a16", 4.83),
        (AX40, "q4_k_m", 4.43),
        (AX31, "bf16", 14.53),
        (AX31, "fp8", 8.10),
        (AX31, "w4a16", 4.99),
        (AX31, "q4_k_m", 4.71),  # all 32 down projections fall back
    ],
)
def test_weights_of_both_lights(name: str, form: str, gb: float) -> None:
    size = weight_bytes(form, read_architecture(LIGHTS[name], name))
    assert size / 1e9 == pytest.approx(gb, abs=0.005)


def test_a_token_of_the_cache() -> None:
    of = {name: cache_bytes(read_architecture(LIGHTS[name], name)) for name in LIGHTS}
    assert of == {AX40: 2 * 28 * 4 * 128 * 2, AX31: 2 * 32 * 32 * 128 * 2}


@pytest.mark.parametrize(
    ("name", "form", "gb", "thousands"),
    [
        (AX40, "w4a16", 8, 34.8),
        (AX40, "fp8", 12, 47.1),
        (AX40, "bf16", 24, 135.5),
        (AX31, "w4a16", 8, 3.5),
        (AX31, "fp8", 16, 12.3),
        (AX31, "bf16", 24, 14.8),
    ],
)
def test_tokens_that_fit(name: str, form: str, gb: int, thousands: float) -> None:
    found = served(form, LIGHTS[name], name, find_card(f"{gb}GB"))
    assert found.tokens / 1000 == pytest.approx(thousands, abs=0.06)
    assert found.context == min(found.tokens, LIGHTS[name]["max_position_embeddings"])


def test_a_context_is_of_blocks_that_are_there() -> None:
    found = served("w4a16", LIGHTS[AX31], AX31, find_card("8GB"))
    left = 0.9 * 8 * 2**30 - 0.9e9 - found.weights
    block = 16 * cache_bytes(read_architecture(LIGHTS[AX31], AX31))
    assert found.context % 16 == 0
    assert found.context // 16 + 1 == left // block  # the one that vLLM keeps


def test_what_does_not_fit_serves_nobody() -> None:
    found = served("bf16", LIGHTS[AX40], AX40, find_card("8GB"))
    assert (found.tokens, found.context, found.users(1000)) == (0, 0, 0)


def test_users_share_the_cache_and_none_has_more_than_fits() -> None:
    found = served("w4a16", LIGHTS[AX31], AX31, find_card("12GB"))
    assert found.users(4096) == found.tokens // 4096 == 2
    assert found.users(found.context + 1) == 0


def test_smaller_groups_cost_more() -> None:
    model = read_architecture(LIGHTS[AX40], AX40)
    sizes = [weight_bytes("w4a16", model, group) for group in (128, 64, 32)]
    assert sizes == sorted(sizes)
    assert sizes[1] - sizes[0] == pytest.approx(model.linear_parameters / 64)


def test_the_table_and_its_json_say_the_same() -> None:
    cards = [find_card("8GB"), find_card("RTX 4090")]
    out = io.StringIO()
    show(Console(file=out, width=100), LIGHTS, cards, 4096)
    text = out.getvalue()
    assert "RTX 4090" in text
    assert all(title in text for title in FORMS.values())
    assert "conversations of 4,096 tokens" in text
    rows = json.loads(json.dumps(to_json(LIGHTS, cards, 4096)))
    assert len(rows) == 2 * 2 * len(FORMS)
    (one,) = [row for row in rows if (row["model"], row["card"], row["form"])
              == (AX40, "8GB", "w4a16")]  # fmt: skip
    assert (one["context"], one["users"]) == (16384, 8)
    line = next(line for line in text.splitlines() if line.startswith("vLLM, 4 bit"))
    assert line.split()[5:7] == ["16k", "×8"]
    (finer,) = [row for row in to_json({AX40: LIGHTS[AX40]}, cards[:1], 4096, group=32)
                if row["form"] == "w4a16"]  # fmt: skip
    assert finer["weight_bytes"] > one["weight_bytes"]
    assert finer["cache_tokens"] < one["cache_tokens"]
