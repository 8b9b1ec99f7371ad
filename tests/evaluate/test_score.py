"""What is right, and what is equal."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import arguments, json_values

from axtune.data.native_calls import HERMES, Answer
from axtune.evaluate.score import (
    Argument,
    Fields,
    Rules,
    Verdict,
    Wanted,
    WantedCall,
    score,
    wanted_of,
)

Calls = list[tuple[str, Any]]


def called(*calls: tuple[str, Any]) -> dict[str, Any]:
    """A message that calls; arguments that are no object stand for themselves."""
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": given if isinstance(given, str) else json.dumps(given),
                },
            }
            for name, given in calls
        ],
    }


def tool(name: str = "f", **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def judged(
    said: Calls,
    wanted: Calls | Wanted,
    *tools: dict[str, Any],
    content: str = "",
    rules: Rules | None = None,
) -> Verdict:
    if not isinstance(wanted, Wanted):
        wanted = wanted_of(called(*wanted))
    answer = Answer(content, called(*said)["tool_calls"])
    return score(answer, wanted, tools or (tool("f"), tool("g")), rules)


def is_equal(value: Any, wanted: Any, schema: Any = None, rules: Rules | None = None) -> bool:
    tools = tool("f", type="object", properties={"a": schema or {}})
    return judged([("f", {"a": value})], [("f", {"a": wanted})], tools, rules=rules).right


# --- Decisions, tools, reasons --------------------------------------------------------------------

RIGHT = [("f", {"a": 1})]


@pytest.mark.parametrize(
    ("said", "wanted", "expected"),
    [
        # decision, tool, arguments, valid JSON, valid by the schema, reason
        (RIGHT, RIGHT, (True, True, True, True, True, None)),
        ([], RIGHT, (False, False, False, True, True, "no-call")),
        ([("g", {"a": 1})], RIGHT, (True, False, False, True, True, "wrong-tool")),
        ([("h", {"a": 1})], RIGHT, (True, False, False, True, False, "wrong-tool")),
        ([("f", {"a": 2})], RIGHT, (True, True, False, True, True, "wrong-value")),
        ([("f", {"a": "1"})], RIGHT, (True, True, False, True, True, "wrong-type")),
        ([("f", {})], RIGHT, (True, True, False, True, True, "missing-argument")),
        ([("f", {"a": 1, "b": 1})], RIGHT, (True, True, False, True, True, "unexpected-argument")),
        ([("f", "{")], RIGHT, (True, True, False, False, False, "invalid-json")),
        ([("f", "[]")], RIGHT, (True, True, False, False, False, "invalid-json")),
        ([("f", '{"a": NaN}')], RIGHT, (True, True, False, False, False, "invalid-json")),
        (RIGHT * 2, RIGHT, (True, False, False, True, True, "number-of-calls")),
        (RIGHT, Wanted("no-call"), (False, False, False, True, True, "unwanted-call")),
        ([], Wanted("no-call"), (True, True, True, True, True, None)),
        ([], Wanted("text"), (False, False, False, True, True, "no-text")),
        (RIGHT, Wanted("text"), (False, False, False, True, True, "unwanted-call")),
        (RIGHT, Wanted("any-call"), (True, True, True, True, True, None)),
        ([("f", "{")], Wanted("any-call"), (True, True, False, False, False, "invalid-json")),
        ([], Wanted("any-call"), (False, False, False, True, True, "no-call")),
    ],
)
def test_verdicts(said: Calls, wanted: Calls | Wanted, expected: tuple[object, ...]) -> None:
    found = judged(said, wanted)
    assert (
        found.decision,
        found.tool,
        found.arguments,
        found.valid_json,
        found.schema_valid,
        found.reason,
    ) == expected
    assert found.right == (found.reason is None)


def test_a_call_that_the_server_left_in_the_text() -> None:
    answer = HERMES.parse('<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>')
    assert not answer.tool_calls
    found = judged([], RIGHT, content=answer.content)
    assert (found.decision, found.valid_json, found.reason) == (False, False, "unread-call")
    found = judged([], Wanted("no-call"), content=answer.content)  # the client got no call
    assert (found.right, found.valid_json) == (True, False)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("어느 도시인가요?", "not-judged"),
        (" \n", "no-text"),
        ('<tool_call>\n{"name": "f", "argum', "unread-call"),
        ('네. <tool_call>{"name": "f"', "unread-call"),
    ],
)
def test_where_a_text_is_wanted_something_is_said_and_nothing_called(
    content: str, reason: str
) -> None:
    found = judged([], Wanted("text"), content=content)
    assert (found.decision, found.reason) == (reason == "not-judged", reason)
    assert judged([], Wanted("no-call"), content=content).decision  # as benchmarks have it


def test_the_schema_is_told_apart_from_rightness() -> None:
    strict = tool(type="object", properties={"a": {"type": "string"}}, required=["a"])
    found = judged(RIGHT, RIGHT, strict)  # as recorded, which breaks its own schema
    assert (found.right, found.schema_valid) == (True, False)
    broken = tool(type="object", properties={"a": {"type": "텍스트"}})
    assert judged(RIGHT, RIGHT, broken).schema_valid
    far = tool(type="object", properties={"a": {"$ref": "http://localhost/x"}})
    assert judged(RIGHT, RIGHT, far).schema_valid
    bare = {"type": "function", "function": {"name": "f"}}
    assert judged(RIGHT, RIGHT, bare).schema_valid


def test_what_was_recorded_is_wanted() -> None:
    assert wanted_of({"role": "assistant", "content": "네"}) == Wanted("text")
    expected = Wanted("calls", (WantedCall("f", Fields({"a": Argument((1,))})),))
    assert wanted_of(called(("f", {"a": 1}))) == expected
    assert (
        wanted_of({"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}) == expected
    )
    with pytest.raises(ValueError, match="no JSON object"):
        wanted_of(called(("f", "[]")))


# --- Several calls --------------------------------------------------------------------------------


def test_calls_are_a_set() -> None:
    both = [("f", {"a": 1}), ("g", {"a": 2})]
    assert judged(both[::-1], both).right
    assert judged([both[0]] * 2, both).reason == "wrong-tool"
    assert judged(both[:1], both).reason == "number-of-calls"
    twice = [("f", {"a": 1}), ("f", {"a": 2})]
    assert judged([twice[0]] * 2, twice).reason == "wrong-value"
    assert judged([("f", {"a": 2}), ("f", {"a": "1"})], twice).reason == "wrong-type"


def one_of(*values: Any) -> WantedCall:
    return WantedCall("f", Fields({"a": Argument(values)}))


def test_calls_are_matched_and_not_taken_first_come() -> None:
    wanted = Wanted("calls", (one_of(1, 2, 3), one_of(1, 2), one_of(1)))
    for order in ([1, 2, 3], [3, 2, 1], [2, 1, 3], [2, 3, 1]):
        assert judged([("f", {"a": value}) for value in order], wanted).right
    assert not judged([("f", {"a": value}) for value in (3, 3, 1)], wanted).right


@given(st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=4), st.data())
def test_a_matching_is_found_where_there_is_one(
    allowed: list[set[int]], data: st.DataObject
) -> None:
    wanted = Wanted("calls", tuple(one_of(*values) for values in allowed))
    chosen = [data.draw(st.sampled_from(sorted(values))) for values in allowed]
    said = [("f", {"a": value}) for value in data.draw(st.permutations(chosen))]
    assert judged(said, wanted).right


# --- Values ---------------------------------------------------------------------------------------


@given(json_values)
def test_every_value_equals_itself(value: Any) -> None:
    assert is_equal(value, value)
    assert is_equal(value, value, rules=Rules(integral_floats=False, defaults=False))


@given(json_values, json_values)
def test_equality_goes_both_ways(one: Any, other: Any) -> None:
    assert is_equal(one, other) == is_equal(other, one)


@given(arguments)
def test_keys_have_no_order(given_arguments: dict[str, Any]) -> None:
    turned = dict(reversed(given_arguments.items()))
    assert judged([("f", turned)], [("f", given_arguments)]).right
    assert is_equal(turned, given_arguments)


@given(json_values)
def test_a_value_is_never_its_own_text(value: Any) -> None:
    if not isinstance(value, str):
        assert not is_equal(json.dumps(value), value)
        assert not is_equal(value, json.dumps(value))


@given(st.integers(-(2**53), 2**53))
def test_whole_numbers_are_their_floats(number: int) -> None:
    assert is_equal(float(number), number)
    assert is_equal(number, float(number), {"type": "integer"})
    strict = Rules(integral_floats=False)
    assert not is_equal(float(number), number, {"type": "integer"}, strict)
    for schema in (
        {"type": "number"},
        {"type": ["number", "null"]},
        {"anyOf": [{"type": "number"}]},
    ):
        assert is_equal(float(number), number, schema, strict)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (57600, 57600.0, True),
        ("57600", 57600, False),
        (True, 1, False),
        (False, 0, False),
        (None, False, False),
        (None, "", False),
        (None, 0, False),
        ([], {}, False),
        ([1, 2], [2, 1], False),
        ([1, 2], [1, 2, 3], False),
        ([1.0], [1], True),
        ([True], [1], False),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1.0}}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"A": 1}, False),
        (10**30, 10**30 + 1, False),
        (0.1, 0.1000001, False),
        (1e2, 100, True),
        (unicodedata.normalize("NFD", "서울 카페"), "서울 카페", True),
        (" 서울\n", "서울", True),
        ("서 울", "서울", False),
        ("Seoul", "seoul", False),
    ],
)
def test_equal_values(one: Any, other: Any, same: bool) -> None:
    assert is_equal(one, other) == is_equal(other, one) == same


def test_a_benchmarks_own_rule_for_strings() -> None:
    assert is_equal("SEOUL", "seoul", rules=Rules(text=str.lower))
    assert is_equal([{"a": "SEOUL"}], [{"a": "seoul"}], rules=Rules(text=str.lower))
    assert not is_equal("seoul ", "seoul", rules=Rules(text=str.lower))


def test_several_right_values_and_what_may_be_left_out() -> None:
    properties = Fields({"x": Argument((1, "하나")), "y": Argument(("둘",), optional=True)})
    wanted = Wanted("calls", (WantedCall("f", Fields({"a": Argument(([properties], None))})),))

    def right(value: Any) -> bool:
        return judged([("f", {"a": value})], wanted).right

    assert right(None)
    assert right([{"x": 1}])
    assert right([{"x": "하나", "y": "둘"}])
    assert not right([{"y": "둘"}])
    assert not right([{"x": 1, "y": None}])
    assert not right([])
    never = Wanted("calls", (WantedCall("f", Fields({"a": Argument(())})),))
    assert not judged([("f", {"a": None})], never).right
    assert not judged([("f", {})], never).right


@pytest.mark.parametrize("depth", [150, 600, 100_000])
def test_answers_of_any_depth_are_survived(depth: int) -> None:
    text = f'{{"a": {"[" * depth}{"]" * depth}}}'
    assert not judged([("f", text)], RIGHT).right
    if depth == 150:
        assert judged([("f", text)], [("f", text)]).right
    if depth == 600:  # as deep as JSON is read, and deeper than values are compared
        assert judged([("f", text)], [("f", text)]).reason == "wrong-value"


# --- Defaults -------------------------------------------------------------------------------------

UNIT = {"type": "string", "default": "celsius"}
PLACE = {"type": "string"}
WEATHER = {"type": "object", "properties": {"city": PLACE, "unit": UNIT}, "required": ["city"]}
BARE, FULL = {"city": "서울"}, {"city": "서울", "unit": "celsius"}


@pytest.mark.parametrize(
    "parameters",
    [
        WEATHER,
        {"$ref": "#/$defs/weather", "$defs": {"weather": WEATHER}},
        {"allOf": [WEATHER]},
        {**WEATHER, "properties": {"unit": {"$ref": "#/$defs/a~1b"}}, "$defs": {"a/b": UNIT}},
    ],
)
def test_an_absent_argument_equals_its_default(parameters: dict[str, Any]) -> None:
    weather = tool(**parameters)
    for said, wanted in ((BARE, FULL), (FULL, BARE)):
        assert judged([("f", said)], [("f", wanted)], weather).right
        exact = judged([("f", said)], [("f", wanted)], weather, rules=Rules(defaults=False))
        assert not exact.right
    other = {**BARE, "unit": "kelvin"}
    assert judged([("f", other)], [("f", BARE)], weather).reason == "unexpected-argument"
    assert judged([("f", BARE)], [("f", other)], weather).reason == "missing-argument"


def test_defaults_inside_of_values() -> None:
    schema = {"type": "array", "prefixItems": [{}], "items": WEATHER}
    assert is_equal([0, BARE], [0, FULL], schema)
    assert not is_equal([BARE, 0], [FULL, 0], schema)
    assert is_equal([BARE], [FULL], {"type": "array", "items": WEATHER})
    assert is_equal([FULL], [BARE], {"type": "array", "prefixItems": [WEATHER]})
    assert is_equal({"in": BARE}, {"in": FULL}, {"properties": {"in": WEATHER}})


def test_a_required_argument_has_no_default() -> None:
    required = tool(**{**WEATHER, "required": ["city", "unit"]})
    assert judged([("f", BARE)], [("f", FULL)], required).reason == "missing-argument"


@given(json_values)
def test_schemas_of_any_form_are_survived(schema: Any) -> None:
    nested = {
        "allOf": schema,
        "properties": schema,
        "required": schema,
        "$ref": schema,
        "type": schema,
    }
    for parameters in (schema, nested, {"properties": {"a": nested}}, {"$ref": "#"}):
        function = {"type": "function", "function": {"name": "f", "parameters": parameters}}
        assert judged([("f", {"a": [1]})], [("f", {"a": [1]})], function).right
        judged([("f", {"a": [1]})], [("f", {"b": [1]})], function)
