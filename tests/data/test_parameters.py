"""Parameters of every form become a JSON Schema, or are refused; a schema stays as it is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import chat, check_rows, codes
from support.strategies import json_values

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.parameters import is_optional, object_schema, properties_schema, retyped
from axtune.data.tools import read_tools
from axtune.errors import Problem

CITY = {"city": {"type": "string"}}
SCHEMA = {"type": "object", "properties": CITY}


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ({"city": "string"}, SCHEMA),
        ({"city": "str"}, SCHEMA),
        (
            {"title": "string", "description": "string"},
            {
                "type": "object",
                "properties": {"title": {"type": "string"}, "description": {"type": "string"}},
            },
        ),
        (CITY, SCHEMA),
        ([{"name": "city", "type": "string"}], SCHEMA),
        ({"type": "dict", "properties": {"city": {"type": "str"}}}, SCHEMA),
        ({"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}, SCHEMA),
        ({"city": {"type": "string", "required": True}}, SCHEMA | {"required": ["city"]}),
        ({"city": {"type": "string", "required": False}}, SCHEMA | {"required": []}),
        ({"city": {"type": "string", "optional": True}}, SCHEMA | {"required": []}),
        ({"city": "str, optional"}, SCHEMA | {"required": []}),
        ({**CITY, "required": ["city"]}, SCHEMA | {"required": ["city"]}),
        (
            {"type": {"type": "string"}, "properties": {"type": "array"}},
            {
                "type": "object",
                "properties": {"type": {"type": "string"}, "properties": {"type": "array"}},
            },
        ),
        (
            {"unit": {"enum": ["C", "F"]}, "n": {"description": "며칠"}},
            {
                "type": "object",
                "properties": {"unit": {"enum": ["C", "F"]}, "n": {"description": "며칠"}},
            },
        ),
    ],
)
def test_parameters_one_by_one_become_a_schema(written: Any, wanted: Any) -> None:
    assert object_schema(written) == wanted


@pytest.mark.parametrize(
    "schema",
    [
        {},
        SCHEMA,
        {"type": "object"},
        {"properties": CITY},
        {"properties": CITY, "required": ["city"]},
        {"type": ["object", "null"], "properties": CITY},
        {"type": "object", "properties": {"x": {"type": "odd", "required": True}}},
        {"$ref": "#/$defs/a", "$defs": {"a": SCHEMA}},
        {"anyOf": [SCHEMA]},
        {"title": "F", "description": "설명"},
        {"additionalProperties": False},
    ],
)
def test_a_schema_stays_as_it_is(schema: Any) -> None:
    assert object_schema(schema) is schema


@pytest.mark.parametrize(
    "written",
    [
        {"city": "도시 이름"},
        {"city": 3},
        {"city": {"서울": 1}},
        {"city": {}},
        {"type": "string"},
        {"type": "string", "city": "string"},
        ["city"],
        [{"type": "string"}],
        "city",
        3,
    ],
)
def test_what_is_neither_is_refused_in_a_sentence(written: Any) -> None:
    with pytest.raises(ValueError, match="neither a JSON Schema of an object nor a type for each"):
        object_schema(written)


def test_who_must_be_given() -> None:
    assert properties_schema(CITY, None) == SCHEMA
    assert properties_schema(CITY, ["city"])["required"] == ["city"]
    assert object_schema(CITY, ["city"])["required"] == ["city"]
    assert [is_optional(v) for v in ("str", "str, optional", {"default": 1}, {"type": "str"})] == [
        False,
        True,
        True,
        False,
    ]
    assert retyped({"type": "List[int]"}) == {"type": "array", "items": {"type": "integer"}}


@given(
    st.recursive(
        json_values,
        lambda inner: st.dictionaries(
            st.sampled_from(["type", "properties", "required", "name", "city", "default"]), inner
        ),
    )
)
def test_any_value_is_read_or_refused(value: Any) -> None:
    with suppress(ValueError):
        assert isinstance(object_schema(value), dict)


@pytest.mark.parametrize(
    "written",
    [
        {"parameters": {"city": "string"}},
        {"properties": CITY},
        {"args": CITY},
        {"parameter_definitions": {"city": {"type": "str"}}},
        {"arguments": [{"name": "city", "type": "string"}]},
    ],
)
def test_a_tool_of_a_chat_row_shows_a_schema(tiny: AxTokenizer, written: Any) -> None:
    problems: list[Problem] = []
    tool = {"name": "w", "description": "날씨", **written}
    (read,) = read_tools([{"type": "function", "function": tool}], problems) or []
    assert (read["function"]["parameters"], problems) == (SCHEMA, [])
    (checked,) = check_rows(tiny, [chat("서울", "네", tools=[tool])])
    assert not checked.faults


def test_required_beside_the_properties_is_kept() -> None:
    problems: list[Problem] = []
    (read,) = read_tools([{"name": "w", "properties": CITY, "required": ["city"]}], problems) or []
    assert read["function"]["parameters"] == SCHEMA | {"required": ["city"]}
    assert problems == []


def test_a_tool_whose_parameters_are_unclear_refuses_the_row(tiny: AxTokenizer) -> None:
    tool = {"name": "w", "parameters": {"city": "도시 이름"}}
    for tools in ([tool], [{"type": "function", "function": tool}]):
        (checked,) = check_rows(tiny, [chat("서울", "네", tools=tools)])
        assert codes(checked) == ["bad-tools"]
        assert "도시" not in str(checked.faults[0])
