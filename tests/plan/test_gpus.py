"""Cards by name and by size."""

from __future__ import annotations

import pytest

from axtune.errors import AxtuneError
from axtune.plan.gpus import CARDS, find_card


@pytest.mark.parametrize(
    ("text", "name", "size"),
    [
        ("RTX 3060 12GB", "RTX 3060 12GB", 12),
        ("rtx3060", "RTX 3060 12GB", 12),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", 24),
        ("4060 ti 16gb", "RTX 4060 Ti 16GB", 16),
        ("a100-80gb", "A100 80GB", 80),
        ("Tesla T4", "T4", 16),
        ("12GB", "12GB", 12),
        ("7.5 gb", "7.5GB", 7.5),
    ],
)
def test_cards_by_name_and_by_size(text: str, name: str, size: float) -> None:
    card = find_card(text)
    assert (card.name, card.gigabytes) == (name, size)
    assert 0.85 < card.usable / (size * 2**30) < 0.95


@pytest.mark.parametrize("text", ["8GB WSL2", "8 gb, wsl", "RTX 4060 WSL2"])
def test_under_wsl_a_run_gets_less(text: str) -> None:
    card = find_card(text)
    assert card.name.endswith(" WSL2")
    assert card.usable == pytest.approx(6.9e9, rel=0.01)
    assert find_card(card.name) == card


def test_an_unknown_card_says_the_nearest() -> None:
    with pytest.raises(AxtuneError, match=r"did you mean RTX 4090\?"):
        find_card("RTX 4099")
    with pytest.raises(AxtuneError, match="1 to 1024 GB"):
        find_card("0GB")
    assert all(find_card(card.name) == card for card in CARDS)
