"""Shapes: what looks like what, and how much the look alone says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import personal

from axtune.privacy.shapes import Strength, candidates


def seen(text: str) -> dict[tuple[str, str], Strength]:
    strongest: dict[tuple[str, str], Strength] = {}
    for one in candidates(text):
        key = text[one.begin : one.end], one.kind
        strongest[key] = min(one.strength, strongest.get(key, Strength.BESIDE))
    return strongest


@pytest.mark.parametrize(
    ("text", "kind", "strength"),
    [
        ("010-1234-5678", "telephone", Strength.SURE),
        ("010)1234-5678", "telephone", Strength.SURE),
        ("01012345678", "telephone", Strength.LIKELY),
        ("+82 (0)10-1234-5678", "telephone", Strength.SURE),
        ("(02) 1347-5444", "telephone", Strength.LIKELY),
        ("0507-1234-5678", "telephone", Strength.LIKELY),
        ("1588-1234", "telephone", Strength.LIKELY),
        ("1833-1897", "telephone", Strength.BESIDE),
        ("0212345678", "telephone", Strength.LABELLED),
        ("11-24-123456-78", "driver_license", Strength.LIKELY),
        ("서울 04-123456-12", "driver_license", Strength.LIKELY),
        ("112412345678", "driver_license", Strength.LABELLED),
        ("2-0390424861", "health_insurance", Strength.LABELLED),
        ("302-1234-5678-91", "bank_account", Strength.LABELLED),
    ],
)
def test_shapes(text: str, kind: str, strength: Strength) -> None:
    assert seen(text)[text, kind] == strength


@pytest.mark.parametrize(
    "text", ["2024-07-02", "1234567", "09:00-18:00", "10.20.30.40", "29-24-123456-78"]
)
def test_what_has_no_shape(text: str) -> None:
    assert not {kind for _, kind in seen(text)} - {"bank_account"}


def test_passports_are_sought_where_one_is_named() -> None:
    assert seen("여권 m12345678")["m12345678", "passport"] == Strength.LABELLED
    assert seen("여권 m123a4567")["m123a4567", "passport"] == Strength.LABELLED
    assert not seen("품목 m12345678")


@given(st.integers(0, 2**32).map(random.Random))
def test_checksums_make_a_shape_stronger(rng: random.Random) -> None:
    number = personal.resident(rng, sexes="12")
    text = f"{number[:6]}-{number[6:]}"
    assert seen(text)[text, "resident_reg"] == Strength.SURE
    wrong = f"{text[:-1]}{(int(text[-1]) + 1) % 10}"
    assert seen(wrong)[wrong, "resident_reg"] == Strength.LABELLED
    card = personal.card(rng, valid=False)
    assert "credit_card" not in {kind for _, kind in seen(card)}
    shop = personal.business(rng, valid=False)
    assert "business_reg" not in {kind for _, kind in seen(shop)}
