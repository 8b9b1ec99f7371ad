"""A call of any tool is the same call, and its arguments are never lost."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import arguments, json_values

from axtune.data.calls import ArgumentsError, python_calls, read_call, read_written_calls

A = {"sku": "HB-100"}
CALL = {"name": "f", "arguments": A}


@pytest.mark.parametrize(
    "call",
    [
        {"type": "function", "function": CALL},
        {"id": "a", "type": "function", "index": 0, "function": CALL},
        {"function": CALL},
        CALL,
        {"name": "f", "args": A, "id": "a", "type": "tool_call"},
        {"type": "tool_use", "id": "a", "name": "f", "input": A},
        {"type": "function_call", "id": "fc", "call_id": "a", "name": "f", "arguments": A},
        {"type": "tool-call", "toolCallId": "a", "toolName": "f", "args": A},
        {"toolUse": {"toolUseId": "a", "name": "f", "input": A}},
        {"functionCall": {"name": "f", "args": A}},
        {"name": "f", "parameters": A},
        {"tool_name": "f", "parameters": A},
        {"function": "f", "arguments": A},
        {"tool": "f", "tool_input": A},
        {"type": "function", "function": {"name": "f", "parameters": A}},
        {"type": "function", "function": {"name": "f"}, "arguments": A},
        {"type": "function", "function": {"name": "f", "arguments": None}, "args": A},
        {"name": "f", "arguments": {}, "parameters": A},
        {"name": "f", "arguments": A, "args": A},
    ],
)
def test_every_form_of_a_call(call: dict[str, Any]) -> None:
    item, unread = read_call(call)
    assert item["function"] == CALL
    assert item["type"] == "function"
    assert item.get("id", "a") == "a"
    assert unread == []


@pytest.mark.parametrize("call", [{"name": "f"}, {"name": "f", "id": "a", "arguments": None}])
def test_a_call_without_arguments_has_none(call: dict[str, Any]) -> None:
    assert read_call(call).item["function"] == {"name": "f", "arguments": {}}


@pytest.mark.parametrize(
    "call",
    [
        {"name": "f", "argument": A},
        {"name": "f", "arguments": {}, "fields": A},
        {"type": "function", "function": {"name": "f", "argz": "{}"}},
        {"name": "f", "arguments": A, "parameters": {"sku": "HB-200"}},
    ],
)
def test_arguments_that_cannot_be_told_are_refused(call: dict[str, Any]) -> None:
    with pytest.raises(ArgumentsError):
        read_call(call)


@pytest.mark.parametrize(
    "call", [None, 3, "f", [], {}, {"arguments": A}, {"type": "web_search", "name": "f"}]
)
def test_what_is_no_call(call: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        read_call(call)


def test_a_result_within_a_call_is_named() -> None:
    assert read_call({**CALL, "result": 3, "thought": "", "note": 1}).unread == ["result"]


@given(
    json_values, st.dictionaries(st.sampled_from(["name", "args", "function", "x"]), json_values)
)
def test_a_call_is_read_or_refused(value: Any, fields: dict[str, Any]) -> None:
    for call in (value, fields):
        try:
            item, _ = read_call(call)
        except ValueError:
            continue
        assert item["function"].keys() == {"name", "arguments"}


# --- calls written as Python ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[f(a=1)]", [("f", {"a": 1})]),
        ("f(a=1)", [("f", {"a": 1})]),
        ("[f()]", [("f", {})]),
        ("[f(a=1), g.h(b='x')]", [("f", {"a": 1}), ("g.h", {"b": "x"})]),
        ("f(a=1)\ng(b=2)", [("f", {"a": 1}), ("g", {"b": 2})]),
        ('[Market Trends API(t="a)], b(")]', [("Market Trends API", {"t": "a)], b("})]),
        (
            "[f(a=[1, {'b': None}], c=true, d=-1.5)]",
            [("f", {"a": [1, {"b": None}], "c": True, "d": -1.5})],
        ),
        (r"[f(a='it\'s')]", [("f", {"a": "it's"})]),
        ("[날씨(지역='창원')]", [("날씨", {"지역": "창원"})]),
    ],
)
def test_calls_as_python(text: str, wanted: list[tuple[str, Any]]) -> None:
    assert [(call["name"], call["arguments"]) for call in python_calls(text)] == wanted


@pytest.mark.parametrize(
    "text",
    ["", "[]", "f", "[f(1)]", "[f(a=b)]", "[f(a=1]", "f(a=1) 확인", "f(**{})", "[f(a=b'x')]"],
)
def test_what_is_no_python_call(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        python_calls(text)


_names = st.text("abc가_. ", min_size=1).filter(lambda name: name.strip() == name)


@given(
    st.lists(st.tuples(_names, st.dictionaries(st.sampled_from("abc"), json_values)), min_size=1)
)
def test_python_calls_are_read_as_they_were_written(named: list[tuple[str, Any]]) -> None:
    written = ", ".join(
        f"{name}({', '.join(f'{key}={value!r}' for key, value in values.items())})"
        for name, values in named
    )
    assert [(c["name"], c["arguments"]) for c in python_calls(f"[{written}]")] == named


@given(st.lists(st.fixed_dictionaries({"name": st.just("f"), "arguments": arguments}), min_size=1))
def test_written_calls(calls: list[dict[str, Any]]) -> None:
    assert read_written_calls(json.dumps(calls)) == calls
    assert read_written_calls("\n".join(map(json.dumps, calls))) == calls


@given(st.text("f(a=1)[],'\" {}:", max_size=30))
def test_no_text_breaks_the_parser(text: str) -> None:
    with suppress(ValueError):
        assert python_calls(text)
