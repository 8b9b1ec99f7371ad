"""Tools of every form are the same tools, and their parameters are never lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import chat, tool
from support.strategies import json_values

from axtune.data.conversation import Conversation
from axtune.data.parse import read_row
from axtune.data.tools import as_json_schema, in_json_schema, read_tools, take_tools
from axtune.errors import Problem

SCHEMA = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
FUNCTION = {"name": "f", "description": "설명", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
BARE = {"name": "f", "description": "설명"}


def read(raw: Any) -> tuple[list[Any] | None, list[str]]:
    problems: list[Problem] = []
    tools = read_tools(raw, problems)
    return tools, [f"{p.code}: {p.message}" for p in problems]


@pytest.mark.parametrize(
    "raw",
    [
        [TOOL],
        TOOL,
        [FUNCTION],
        FUNCTION,
        [{"type": "function", **FUNCTION}],
        [{**BARE, "input_schema": SCHEMA}],
        [{"type": "custom", **BARE, "input_schema": SCHEMA}],
        [{**BARE, "title": "F", "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}}],
        {"tools": [{**BARE, "inputSchema": SCHEMA}], "nextCursor": None},
        [{"toolSpec": {**BARE, "inputSchema": {"json": SCHEMA}}}],
        [{"functionDeclarations": [FUNCTION]}],
        [{**BARE, "parametersJsonSchema": SCHEMA}],
        [{**BARE, "parameters": json.dumps(SCHEMA)}],
        [{"type": "function", "function": json.dumps(FUNCTION)}],
        [{"type": "function", "function": BARE, "parameters": SCHEMA}],
        [{**BARE, "parameters": None, "input_schema": SCHEMA}],
        [{**BARE, "arguments": SCHEMA}],
        {"f": {"description": "설명", "parameters": SCHEMA}},
        {"f": TOOL},
        [json.dumps(TOOL)],
    ],
)
def test_every_form_of_a_tool(raw: Any) -> None:
    for given_raw in (raw, json.dumps(raw)):
        tools, problems = read(given_raw)
        assert problems == []
        assert tools is not None
        (read_tool,) = tools
        assert read_tool["function"] == FUNCTION
        conversation, found = read_row(chat("q", "a", tools=given_raw))
        assert found == []
        assert isinstance(conversation, Conversation)
        assert conversation.tools == [TOOL]


@pytest.mark.parametrize("raw", [None, "", " ", [], "[]", "null", {}, "{}"])
def test_what_says_nothing(raw: Any) -> None:
    assert read(raw) == (None, [])


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("{", "bad-tools: tools: the string is not JSON"),
        (3, "bad-tools: tools: expected a list of tools"),
        ({"f": "g"}, "bad-tools: tools: expected a list of tools"),
        (["f"], "bad-tools: tools[0]: expected"),
        ([TOOL, {"type": "web_search"}], "bad-tools: tools[1]: the type is not function"),
        ([{"type": "function", "function": 3}], "bad-tools: tools[0]: expected"),
        ([{**BARE, "parameters": "글"}], "bad-tools: tools[0]: a string in it is not JSON"),
        ([{**FUNCTION, "input_schema": {}}], "bad-tools: tools[0]: the parameters stand under two"),
        (
            [{**BARE, "inputs": {"sku": {}}}],
            "bad-tools: tools[0]: the parameters stand under inputs",
        ),
        ([{**BARE, "args": {}, "params": [1]}], "bad-tools: tools[0]: the parameters stand under"),
        ([{**FUNCTION, "returns": "text"}], "unread-key: tools[0]: the key returns"),
        ([{**FUNCTION, "outputSchema": SCHEMA}], "unread-key: tools[0]: the key outputSchema"),
    ],
)
def test_what_cannot_be_kept_is_named(raw: Any, problem: str) -> None:
    tools, (found,) = read(raw)
    assert found.startswith(problem)
    assert (tools is None) == problem.startswith("bad")


def test_tools_of_a_row_are_those_of_its_text_or_its_turns_when_it_has_none() -> None:
    text = f"<tools>{json.dumps([TOOL])}</tools>"
    in_text = {"role": "system", "content": text}
    on_turn = {"role": "system", "content": "s", "tools": json.dumps([FUNCTION])}
    for system in (in_text, on_turn):
        for raw in (None, "", [], "[]", "null", [TOOL], json.dumps([FUNCTION])):
            conversation, problems = read_row(chat(system, "q", "a", tools=raw))
            assert problems == []
            assert isinstance(conversation, Conversation)
            assert conversation.tools == [TOOL]
        conversation, (problem,) = read_row(chat(system, "q", "a", tools=[tool("g")]))
        assert problem.code == "unread-key"
        assert problem.severity == "warning"


def test_a_row_without_tools_has_none() -> None:
    assert take_tools({"messages": []}) is None
    assert take_tools({"tools": []}) is None
    assert take_tools({"tools": None, "functions": [FUNCTION]}) == [FUNCTION]


BEDROCK = {"tools": [{"toolSpec": {**BARE, "inputSchema": {"json": SCHEMA}}}], "toolChoice": {}}


@pytest.mark.parametrize(
    "beside",
    [
        {"toolConfig": BEDROCK},
        {"available_tools": [TOOL]},
        {"tool-definitions": json.dumps([FUNCTION])},
        {"tool": FUNCTION},
        {"metadata": {"tools": [TOOL]}},
        {"extra_info": {"functions": [FUNCTION]}},
        {"additional_kwargs": {"toolConfig": BEDROCK}},
    ],
    ids=str,
)
def test_tools_under_another_name_are_the_rows(beside: dict[str, Any]) -> None:
    for row in (chat("q", "a") | beside, chat({"role": "system", "content": "s", **beside}, "a")):
        conversation, problems = read_row(row)
        assert problems == []
        assert isinstance(conversation, Conversation)
        assert conversation.tools == [TOOL]
    conversation, (problem,) = read_row(chat("q", "a", tools=[tool("g")]) | beside)
    assert problem.code == "unread-key"
    assert isinstance(conversation, Conversation)
    assert [one["function"]["name"] for one in conversation.tools or ()] == ["g"]


def test_a_system_prompt_beside_the_row_is_named() -> None:
    _, (problem,) = read_row(chat("q", "a", metadata={"system": "짧게."}))
    assert problem.code == "unread-key"
    assert problem.message.startswith("not read: metadata.system;")
    said = chat({"role": "system", "content": "짧게."}, "q", "a")
    assert read_row(said | {"metadata": {"system": "짧게."}})[1] == []


@pytest.mark.parametrize(
    "beside",
    [{"metadata": {"tools": ["search"]}}, {"metadata": {"apis": 3}}, {"extra": {"functions": []}}],
    ids=str,
)
def test_names_of_tools_are_no_tools(beside: dict[str, Any]) -> None:
    conversation, problems = read_row(chat("q", "a") | beside)
    assert problems == []
    assert isinstance(conversation, Conversation)
    assert conversation.tools is None


@pytest.mark.parametrize("key", ["json_schema", "argsSchema", "input-json-schema", "kwargs"])
def test_a_schema_under_another_key(key: str) -> None:
    tools, problems = read([{**BARE, key: SCHEMA}])
    assert (tools, problems) == ([TOOL], [])


@pytest.mark.parametrize("key", ["desc", "docstring", "description_for_model", "Description"])
def test_a_description_under_another_key(key: str) -> None:
    tools, problems = read([{"function_name": "f", key: "설명", "parameters": SCHEMA}])
    assert (tools, problems) == ([TOOL], [])
    _, problems = read([{**FUNCTION, "desc": "다른 설명"}])
    assert problems == ["unread-key: tools[0]: the key desc is not read; nothing of it is shown."]
    assert read([{**FUNCTION, "desc": "설명"}])[1] == []


@pytest.mark.parametrize(
    "schema", [SCHEMA, {"sku": {"type": "string"}}, [{"name": "sku", "type": "string"}]]
)
def test_parameters_under_a_key_that_nobody_knows_refuse_the_tool(schema: Any) -> None:
    tools, (problem,) = read([{**BARE, "takes": schema}])
    assert tools is None
    assert problem.startswith("bad-tools: tools[0]: what seems to be its parameters stands under")
    assert read([{**BARE, "annotations": {"hint": {"type": 1}}, "takes": "x"}])[1] == []


def test_parameters_of_toolbench_say_by_their_list_whether_they_must_be_given() -> None:
    sku, lot = ({"name": name, "type": "STRING", "default": "x"} for name in ("sku", "lot"))
    described = {"api_name": "f", "api_description": "설명"}
    tools, problems = read(
        [{**described, "required_parameters": [sku], "optional_parameters": [lot]}]
    )
    assert problems == []
    assert tools is not None
    assert tools[0]["function"]["name"] == "f"
    assert list(tools[0]["function"]["parameters"]["properties"]) == ["sku", "lot"]
    assert tools[0]["function"]["parameters"]["required"] == ["sku"]
    _, (problem,) = read([{**described, "required_parameters": {"sku": 1}}])
    assert problem.startswith("bad-tools")


def test_two_tools_of_one_name_that_differ_are_refused() -> None:
    other = {"type": "function", "function": {**FUNCTION, "description": "다른 설명"}}
    _, problems = read_row(chat("q", "a", tools=[TOOL, other]))
    assert [problem.code for problem in problems] == ["bad-tools"]
    assert problems[0].message.startswith("tools[1]: another tool of the row has its name")
    assert read_row(chat("q", "a", tools=[TOOL, TOOL]))[1] == []


_keys = st.sampled_from([*FUNCTION, "type", "function", "tools", "input_schema", "arguments", "x"])


@given(st.recursive(json_values, lambda i: st.lists(i, max_size=2) | st.dictionaries(_keys, i)))
def test_whatever_tools_are_they_are_read_or_have_problems(raw: Any) -> None:
    tools, _ = read(raw)
    assert tools is None or all("function" in each for each in tools)
    read_row(chat("q", "a", tools=raw))


# --- parameters of no JSON Schema -------------------------------------------------------------


def test_xlams_parameters_become_a_json_schema() -> None:
    given_tool = {
        "name": "f",
        "parameters": {
            "sku": {"type": "str", "description": "품번"},
            "n": {"type": "int, optional", "default": 1},
            "sizes": {"type": "List[float]"},
            "pair": {"type": "Tuple[int, str]"},
            "by": {"type": "Union[int, str]"},
            "more": {"type": "Dict[str, int]"},
            "any": {"type": "Any"},
        },
    }
    assert as_json_schema(given_tool)["parameters"] == {
        "type": "object",
        "properties": {
            "sku": {"type": "string", "description": "품번"},
            "n": {"type": "integer", "default": 1},
            "sizes": {"type": "array", "items": {"type": "number"}},
            "pair": {"type": "array"},
            "by": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "more": {"type": "object"},
            "any": {},
        },
        "required": ["sku", "sizes", "pair", "by", "more", "any"],
    }


def test_toolaces_parameters_become_a_json_schema() -> None:
    inner = {"type": "dict", "properties": {"type": {"type": "float"}}}
    listed = {"type": "list", "items": inner}
    given_tool = {"name": "f", "parameters": {"type": "dict", "properties": {"a": listed}}}
    assert as_json_schema({**given_tool, "required": ["a"]}) == {
        "name": "f",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"type": {"type": "number"}}},
                }
            },
            "required": ["a"],
        },
    }


def test_a_json_schema_stays_as_it_is() -> None:
    assert as_json_schema(FUNCTION) == FUNCTION
    assert as_json_schema(TOOL) == TOOL
    assert in_json_schema("글", []) == "글"
    assert in_json_schema(None, []) is None


@pytest.mark.parametrize(
    "kind", ["Callable[[int], int]", "np.ndarray", "int or str", "(", "List[x]"]
)
def test_a_type_that_json_has_not_is_refused(kind: str) -> None:
    problems: list[Problem] = []
    in_json_schema([{"name": "f", "parameters": {"a": {"type": kind}}}], problems)
    assert [problem.code for problem in problems] == ["bad-tools"]
    assert kind not in problems[0].message
