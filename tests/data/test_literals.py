"""Values written as text are read whole or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import json_values

from axtune.data.literals import (
    parse_json,
    parse_json_at,
    parse_literal,
    parse_sequence,
    watching_keys,
)


@given(json_values)
def test_literals_and_json_read_alike(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_literal(json.dumps(value)) == value
    assert parse_literal(repr(value)) == value


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "9" * 5000, "[" * 5000, ""])
def test_strict_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(text)


@given(st.lists(st.dictionaries(st.text(max_size=3), json_values, max_size=2), min_size=1))
def test_values_stand_in_a_list_or_one_behind_the_other(values: list[Any]) -> None:
    assert parse_sequence(json.dumps(values)) == values
    for between in ("", " ", "\n"):
        assert parse_sequence(between.join(map(json.dumps, values))) == values
    assert parse_sequence("\n".join(map(repr, values))) == values


@pytest.mark.parametrize("text", ["", "oops", '{"a": 1} oops', '{"a": NaN}'])
def test_no_value_is_left_out(text: str) -> None:
    if text:
        with pytest.raises(ValueError, match=r"\w"):
            parse_sequence(text)
    else:
        assert parse_sequence(text) == []


def test_a_value_ends_where_it_ends() -> None:
    assert parse_json_at('a {"b": 1} c', 2) == ({"b": 1}, 10)
    with pytest.raises(ValueError, match=r"\w"):
        parse_json_at("[" * 100_000, 0)


def test_keys_that_stand_twice_are_seen_while_somebody_watches() -> None:
    parse_json('{"a": 1, "a": 2}')
    with watching_keys() as keys:
        assert parse_json('{"a": 1, "a": 1}') == {"a": 1}
        assert not keys.found
        with watching_keys() as inner:
            assert parse_json('[{"a": 1, "a": 2}]') == [{"a": 2}]
        assert (keys.found, inner.found) == (False, True)
        parse_json_at('{"a": 1, "a": 2}', 0)
        assert keys.found
