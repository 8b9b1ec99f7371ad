"""Checksums take every valid number, and no other last digit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import personal

from axtune.privacy import checksums

seeds = st.integers(0, 2**32).map(random.Random)


@given(seeds, st.sampled_from("12345678"))
def test_resident_and_foreigner_numbers(rng: random.Random, sex: str) -> None:
    number = personal.resident(rng, sexes=sex)
    assert checksums.resident(number)
    assert checksums.born(number)
    others = [number[:-1] + digit for digit in "0123456789" if digit != number[-1]]
    assert not any(map(checksums.resident, others))


@given(seeds)
def test_business_numbers(rng: random.Random) -> None:
    assert checksums.business(personal.business(rng))
    assert not checksums.business(personal.business(rng, valid=False))


@given(seeds, st.booleans())
def test_card_numbers(rng: random.Random, amex: bool) -> None:
    assert checksums.luhn(personal.card(rng, amex=amex))
    assert not checksums.luhn(personal.card(rng, amex=amex, valid=False))


@pytest.mark.parametrize(
    ("digits", "birth"),
    [
        ("9002281000000", (1990, 2, 28)),
        ("0002294000000", (2000, 2, 29)),
        ("9002291000000", None),
        ("9013011000000", None),
        ("8801123000000", None),  # a child of the year 2088
        ("9901019000000", (1899, 1, 1)),
    ],
)
def test_births_are_days(digits: str, birth: tuple[int, int, int] | None) -> None:
    assert checksums.born(digits) == birth


def test_networks_of_cards() -> None:
    good = ("4" * 16, f"{51:<016}", f"{2221:<016}", f"{37:<015}", f"{36:<014}")
    bad = ("9" * 16, f"{2721:<016}", f"{35:<015}", f"{40:<014}")
    assert all(map(checksums.issued, good))
    assert not any(map(checksums.issued, bad))
