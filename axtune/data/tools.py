"""The tools of a row, as any common tool writes them, in OpenAI's form.

Read are lists of OpenAI tools (of Chat Completions and of Responses), bare functions, Anthropic's
``input_schema``, MCP's ``inputSchema``, Bedrock's ``toolSpec`` and Gemini's
``functionDeclarations``; one tool alone; tools by their names; and JSON text of each.

What vLLM makes of OpenAI's form is in `axtune.data.conversation`.
"""

from __future__ import annotations

from typing import Any

from axtune.data.literals import parse_json
from axtune.data.parameters import is_optional, object_schema, properties_schema
from axtune.data.unread import unread_key
from axtune.errors import Problem

_SCHEMAS = (
    "parameters",
    "input_schema",
    "inputSchema",
    "parametersJsonSchema",
    "parameters_json_schema",
)
# Where some tools keep the parameters: read when they are a JSON Schema, else refused.
_PERHAPS_SCHEMAS = (
    "arguments", "args", "args_schema", "params", "inputs", "schema", "properties",
    "parameter_definitions", "signature",
)  # fmt: skip
# Known keys of a tool that no model is shown: vLLM drops all but name, description, parameters and
# strict. Others (title, annotations, cache_control, …) say nothing about how to call.
_UNREAD = (
    "returns",
    "return",
    "response",
    "responses",
    "output_schema",
    "outputSchema",
    "output",
    "examples",
    "input_examples",
    "required",
)
_TYPES = (None, "function", "custom")
_OPENAI = {"type", "function"}
_FUNCTION = {"name", "description", "parameters", "strict"}
_EXPECTED = 'expected {"type": "function", "function": {…}}'


def row_tools(row: dict[str, Any]) -> Any:
    """The tools that a row holds, as it holds them; None of a row without."""
    tools = row.get("tools")
    return row.get("functions") if tools is None else tools  # functions: OpenAI's of old


def read_tools(raw: Any, problems: list[Problem]) -> list[Any] | None:
    """Tools of any form, in OpenAI's.

    Args:
        raw: As a row has them.
        problems: Appended to.

    Returns:
        None where nothing is said (no tools, an empty list, ``"[]"``, ``"null"``), and where a tool
        is refused.
    """
    if isinstance(raw, str):
        try:
            raw = parse_json(raw) if raw.strip() else None
        except ValueError:
            message = "tools: the string is not JSON; expected a list of tools."
            problems.append(Problem("bad-tools", message))
            return None
    if not raw:
        return None
    tools = _listed(raw)
    if tools is None:
        problems.append(Problem("bad-tools", "tools: expected a list of tools."))
        return None
    out: list[Any] = []
    refused = False
    for index, tool in enumerate(tools):
        if _is_openai(tool):
            out.append(tool)
            continue
        try:
            read, unread = _read_tool(tool)
        except ValueError as error:
            problems.append(Problem("bad-tools", f"tools[{index}]: {error}."))
            refused = True
            continue
        out.append(read)
        problems += [unread_key(f"tools[{index}]", key) for key in unread]
    return None if refused else out


def _is_openai(tool: Any) -> bool:
    """Whether a tool is wholly of the form that vLLM takes, as most are."""
    if not isinstance(tool, dict) or tool.keys() != _OPENAI or tool["type"] != "function":
        return False
    function = tool["function"]
    return (
        isinstance(function, dict)
        and function.keys() <= _FUNCTION
        and _is_object_schema(function.get("parameters"))
    )


def _is_object_schema(parameters: Any) -> bool:
    if not isinstance(parameters, dict):
        return parameters is None
    return not parameters or parameters.get("type") == "object"


def _listed(raw: Any) -> list[Any] | None:
    """The tools one by one; None of what is no collection of tools."""
    if isinstance(raw, dict):
        if isinstance(raw.get("tools"), list):  # MCP's answer to tools/list
            return _listed(raw["tools"])
        if isinstance(raw.get("name"), str) or raw.keys() & {
            "function",
            "toolSpec",
            "functionDeclarations",
            "function_declarations",
        }:
            return _listed([raw])
        return _by_name(raw)
    if not isinstance(raw, list):
        return None
    tools: list[Any] = []
    for tool in raw:
        if isinstance(tool, dict):
            declared = tool.get("functionDeclarations", tool.get("function_declarations"))
            if isinstance(declared, list):
                tools += declared
                continue
        tools.append(tool)
    return tools


def _by_name(raw: dict[str, Any]) -> list[Any] | None:
    """``{"get_stock": {"description": …, "parameters": …}}``."""
    if not all(
        isinstance(tool, dict)
        and tool.keys() & {"description", "function", *_SCHEMAS}
        and tool.get("name", name) == name
        for name, tool in raw.items()
    ):
        return None
    return [tool if "function" in tool else {"name": name, **tool} for name, tool in raw.items()]


def _read_tool(tool: Any) -> tuple[dict[str, Any], list[str]]:
    """A tool in OpenAI's form, and the keys of it that mean something and are not read.

    Raises:
        ValueError: When it is no tool whose parameters can be told.
    """
    if isinstance(tool, str) and tool.lstrip().startswith("{"):
        tool = _parsed(tool)
    if not isinstance(tool, dict):
        raise ValueError(_EXPECTED)
    if tool.get("type") not in _TYPES:
        raise ValueError('the type is not function; expected "type": "function"')
    flat = {key: value for key, value in tool.items() if key != "type"}
    for key in ("function", "toolSpec"):
        if key in flat:
            inner = flat.pop(key)
            inner = _parsed(inner) if isinstance(inner, str) else inner
            if not isinstance(inner, dict):
                raise ValueError(_EXPECTED)
            flat |= inner
    function = {key: flat[key] for key in ("name", "description", "strict") if key in flat}
    function["parameters"] = _parameters(flat)
    unread = [key for key in _UNREAD if flat.get(key) not in (None, "", [], {})]
    return {"type": "function", "function": function}, unread


def _parameters(flat: dict[str, Any]) -> Any:
    """A tool's JSON Schema, whatever its key; None of a tool that declares nothing.

    ``required`` is taken out where it stands beside the properties.
    """
    given = [_schema(flat[key]) for key in _SCHEMAS if flat.get(key) not in (None, "")]
    if any(schema != given[0] for schema in given[1:]):
        raise ValueError("the parameters stand under two keys; keep parameters")
    if given:
        return object_schema(given[0]) if given[0] is not None else None
    perhaps = [key for key in _PERHAPS_SCHEMAS if flat.get(key) not in (None, "", [], {})]
    if not perhaps:
        return None
    key = perhaps[0]
    try:
        if len(perhaps) == 1:
            required = flat.pop("required") if isinstance(flat.get("required"), list) else None
            return object_schema(_schema(flat[key]), required)
    except ValueError:
        pass
    raise ValueError(
        f"the parameters stand under {key}; write them as parameters, a JSON Schema object"
    )


def _schema(value: Any) -> Any:
    """A schema as it is, out of its JSON text, or out of Bedrock's ``{"json": …}``."""
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, dict) and value.keys() == {"json"}:
        return value["json"]
    return value


def _parsed(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        raise ValueError("a string in it is not JSON") from None


# --- parameters of no JSON Schema -------------------------------------------------------------


def as_json_schema(tool: Any) -> Any:
    """A tool whose parameters have Python's types, with a JSON Schema instead.

    xLAM writes ``{"sku": {"type": "str, optional", "description": …}}``, ToolACE a JSON Schema of
    type ``dict``. What is no such tool comes back as it is, to be refused or read.

    Args:
        tool: A bare function.

    Raises:
        ValueError: When a type is none that JSON has.
    """
    if not isinstance(tool, dict) or not isinstance(tool.get("parameters"), dict):
        return tool
    given = tool["parameters"]
    kind = given.get("type")
    if isinstance(kind, str) and isinstance(given.get("properties"), dict):
        parameters = object_schema(given)
        if isinstance(tool.get("required"), list) and "required" not in parameters:
            parameters = {**parameters, "required": tool["required"]}
            tool = {key: value for key, value in tool.items() if key != "required"}
    elif all(isinstance(value, dict) and "type" in value for value in given.values()):
        required = [name for name, value in given.items() if not is_optional(value)]
        parameters = properties_schema(given, required)
    else:
        return tool
    return {**tool, "parameters": parameters}


def in_json_schema(raw: Any, problems: list[Problem]) -> Any:
    """Tools of xLAM or ToolACE, each as by `as_json_schema`; what is no list as it is."""
    if isinstance(raw, str):
        try:
            raw = parse_json(raw)
        except ValueError:
            return raw
    if not isinstance(raw, list):
        return raw
    out = []
    for index, tool in enumerate(raw):
        try:
            out.append(as_json_schema(tool))
        except ValueError as error:
            problems.append(Problem("bad-tools", f"tools[{index}]: {error}."))
    return out
