"""What libraries refuse, as faults of the recipe's own keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.config.faults import bad_value, first_line, key_named, key_of, refused, type_faults

VALUES = {"optim": "x", "lr_scheduler_type": "y", "r": 1}


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ("no such optim: x", "training.optim"),
        ("'y' is not a valid LR scheduler type", "training.lr_scheduler_type"),  # said in words
        ("lr_scheduler_type is wrong", "training.lr_scheduler_type"),
        ("optimizers are out of stock", "training"),  # a word's beginning is not the word
        ("rank must be positive", "training"),
        ("`r` must be positive", "training.r"),
    ],
)
def test_the_key_that_a_message_names(message: str, key: str) -> None:
    assert key_named(ValueError(message), "training", VALUES) == key


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("too large", "too large."),
        ("Too large!", "Too large!"),
        ("\n  Too large.\n  in file 3\n", "Too large."),
        ("2 errors:\n  a is wrong\n  b is wrong", "a is wrong."),
        ("Only a heading:", "Only a heading:."),
        ("", "KeyError."),
    ],
)
def test_the_line_of_a_message_that_is_shown(message: str, line: str) -> None:
    error = KeyError() if not message else ValueError(message)
    assert first_line(error) == line


@given(st.text())
def test_whatever_a_library_says_becomes_one_sentence(message: str) -> None:
    line = first_line(ValueError(message))
    assert len(line.splitlines()) == 1
    assert line.endswith((".", "!", "?"))


@dataclass
class Options:
    """As a library declares them: with types, and without checking any."""

    size: int = 1
    rate: float | None = None
    kind: Literal["a", "b"] = "a"
    names: list[str] | str | None = None
    strange: Any = None


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"size": 8, "rate": 1, "names": "all"},
        {"size": None, "rate": None, "names": ["a", "b"]},
        {"kind": "c"},  # the libraries' own lists of names are not complete
        {"strange": object()},
    ],
    ids=["none", "right", "null", "name", "any"],
)
def test_values_of_the_declared_types(values: dict[str, Any]) -> None:
    assert type_faults("lora", Options, values) == []


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({"size": "large"}, ["lora.size"]),
        ({"size": 1.5, "rate": "fast"}, ["lora.size", "lora.rate"]),
        ({"names": 3}, ["lora.names"]),
        ({"sise": 3}, ["lora.sise"]),
    ],
    ids=str,
)
def test_every_value_of_another_type_is_named(values: dict[str, Any], keys: list[str]) -> None:
    faults = type_faults("lora", Options, values)
    assert [fault.message.partition(":")[0] for fault in faults] == keys
    assert {(fault.line, fault.code) for fault in faults} == {(0, "bad-value")}


def test_the_error_says_every_fault() -> None:
    error = refused([bad_value("lora.r", "expected 1."), bad_value("seed", "expected 2.")])
    assert "lora.r: expected 1." in str(error)
    assert "seed: expected 2." in str(error)


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ("training.optim: no such thing: x.", "training.optim"),
        ("precision: fp16 needs a GPU.", "precision"),
        ("lora.r: 0", "lora.r"),
        ("The key is wrong: r.", None),
        ("no key at all", None),
    ],
)
def test_the_key_that_a_fault_begins_with(message: str, key: str | None) -> None:
    assert key_of(message) == key
