"""The tools of a row, as any common tool writes them, in OpenAI's form.

Read are lists of OpenAI tools (of Chat Completions and of Responses), bare functions, Anthropic's
``input_schema``, MCP's ``inputSchema``, Bedrock's ``toolSpec`` and Gemini's
``functionDeclarations``; one tool alone; tools by their names; and JSON text of each.

What vLLM makes of OpenAI's form is in `axtune.data.conversation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from axtune.data.cells import says, table_tools
from axtune.data.key_names import HOLDERS, plain
from axtune.data.literals import parse_json
from axtune.data.parameters import is_optional, object_schema, properties_schema
from axtune.data.unread import unread_key
from axtune.errors import Problem

# The keys of a row's tools; the others are what people call them, and hold them if they seem to.
TOOL_KEYS = ("tools", "functions")  # functions: OpenAI's of old
_PERHAPS_TOOLS = frozenset(
    (
        *("tool", "function", "toolconfig", "toolconfiguration", "toolschemas", "toolschema"),
        *("toollist", "toolslist", "tooldefinitions", "tooldefs", "toolsdefinition", "toolspecs"),
        *("toolspecifications", "tooldescriptions", "toolset", "toolkit", "toolsjson", "toolbox"),
        *("availabletools", "availablefunctions", "candidatetools", "candidatefunctions"),
        *("functionslist", "functionlist", "functiondefinitions", "functiondeclarations"),
        *("functionschemas", "functionspecs", "functiondescriptions", "functioncatalog"),
        *("apis", "apilist", "apidefinitions", "apidocs", "apispecs", "도구", "도구목록", "함수"),
    )
)
# How keys of a tool are written, in the plain form of `axtune.data.key_names`.
_NAMES = ("name", "toolname", "functionname", "funcname", "apiname", "nameformodel", "이름")
_DESCRIPTIONS = (
    "description", "desc", "functiondescription", "funcdescription", "tooldescription",
    "apidescription", "descriptionformodel", "docstring", "doc", "documentation", "summary",
    "help", "usage", "instructions", "설명",
)  # fmt: skip
_SCHEMAS = ("parameters", "inputschema", "parametersjsonschema")
# Where some tools keep the parameters: read when they are a JSON Schema, else refused.
_PERHAPS_SCHEMAS = (
    "arguments", "args", "argsschema", "params", "inputs", "schema", "properties",
    "parameterdefinitions", "signature", "jsonschema", "argsjsonschema", "argumentsschema",
    "argumentschema", "parameterschema", "parametersschema", "paramsschema", "functionparameters",
    "toolparameters", "inputparameters", "inputparams", "inputjsonschema", "requestschema",
    "input", "kwargs", "매개변수", "인자",
)  # fmt: skip
# Known keys of a tool that no model is shown: vLLM drops all but name, description, parameters and
# strict. Others (title, annotations, cache_control, …) say nothing about how to call.
_UNREAD = (
    "returns", "return", "returntype", "response", "responses", "outputschema", "output",
    "examples", "inputexamples", "required",
)  # fmt: skip
_LISTED = ("requiredparameters", "optionalparameters")  # ToolBench
# What a tool has besides that is no schema, though it is an object.
_NEUTRAL = frozenset(
    (
        *("type", "title", "strict", "annotations", "cachecontrol", "meta", "metadata", "icons"),
        *("execution", "auth", "authentication", "config", "tags", "deferloading", "server"),
        *("allowedcallers", "extra", "extrainfo", *_UNREAD),
    )
)
_TYPES = (None, "function", "custom")
_OPENAI = {"type", "function"}
_FUNCTION = {"name", "description", "parameters", "strict"}
_EXPECTED = 'expected {"type": "function", "function": {…}}'


def take_tools(row: dict[str, Any]) -> Any:
    """Take the tools of a row, or those that stand under another name where it has none.

    Args:
        row: Its cells that say something; what is read is taken out.

    Returns:
        As the row holds them; None of a row without.
    """
    if says(row.get("tools")) or says(row.get("functions")):
        key = next(key for key in TOOL_KEYS if says(row.get(key)))
        return table_tools(row.pop(key))
    for (key, *inside), value in other_tools(row):
        if not inside:
            del row[key]
        return table_tools(value)
    for key in TOOL_KEYS:
        row.pop(key, None)
    return None


def other_tools(holder: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The tools of a row or a turn that stand under another name, or in an object beside it.

    Args:
        holder: The row or the turn.

    Yields:
        The keys at which they stand, and the tools as they are written.
    """
    for key, value in list(holder.items()):
        name = plain(key)
        if name in _PERHAPS_TOOLS and _seem_tools(value):
            yield (key,), value
        elif name in HOLDERS and isinstance(value, dict):
            for inner, tools in value.items():
                if (inner in TOOL_KEYS or plain(inner) in _PERHAPS_TOOLS) and _seem_tools(tools):
                    yield (key, inner), tools


def _seem_tools(value: Any) -> bool:
    """Whether a value declares tools, rather than naming them or being something else."""
    if isinstance(value, str):
        try:
            value = parse_json(value) if value.lstrip()[:1] in ("[", "{") else None
        except ValueError:
            return False
    tools = _listed(value) if value else None
    return bool(tools) and all(isinstance(tool, dict) and _declares(tool) for tool in tools or ())


def _declares(tool: dict[str, Any]) -> bool:
    names = set(map(plain, tool))
    if not names.isdisjoint(("function", "toolspec", "functiondeclarations")):
        return True
    return not names.isdisjoint(_NAMES) and not names.isdisjoint(
        (*_DESCRIPTIONS, *_SCHEMAS, *_PERHAPS_SCHEMAS)
    )


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
        and not {"description", "function", *_SCHEMAS}.isdisjoint(map(plain, tool))
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
    written = {plain(key): key for key in flat}  # how each key is written
    said = {name: flat[key] for name, key in written.items()}
    function: dict[str, Any] = {}
    if (name := _first(said, _NAMES)) is not None:
        function["name"] = said[name]
    if (described := _first(said, _DESCRIPTIONS)) is not None:
        function["description"] = said[described]
    if "strict" in said:
        function["strict"] = said["strict"]
    function["parameters"] = _parameters(said, written)
    left = [key for key in _DESCRIPTIONS if key != described and says(said.get(key))]
    left = [key for key in left if said[key] != function["description"]]
    left += [key for key in _UNREAD if says(said.get(key))]
    return {"type": "function", "function": function}, [written[key] for key in left]


def _first(said: dict[str, Any], names: Iterable[str]) -> str | None:
    """The first of some names that says something, or is there."""
    there = [name for name in names if name in said]
    return next((name for name in there if says(said[name])), there[0] if there else None)


def _parameters(said: dict[str, Any], written: dict[str, str]) -> Any:
    """A tool's JSON Schema, whatever its key; None of a tool that declares nothing.

    ``required`` is taken out where it stands beside the properties.
    """
    given = [_schema(said[key]) for key in _SCHEMAS if said.get(key) not in (None, "")]
    if any(schema != given[0] for schema in given[1:]):
        raise ValueError("the parameters stand under two keys; keep parameters")
    if given:
        return object_schema(given[0]) if given[0] is not None else None
    listed = [said.get(key) for key in _LISTED]
    if any(listed):
        return _listed_parameters(*(items or [] for items in listed))
    perhaps = [key for key in _PERHAPS_SCHEMAS if says(said.get(key))]
    if not perhaps:
        if any(_seems_schema(value) for key, value in said.items() if key not in _NEUTRAL):
            raise ValueError(
                "what seems to be its parameters stands under another key; write them as "
                "parameters, a JSON Schema object"
            )
        return None
    key = perhaps[0]
    try:
        if len(perhaps) == 1:
            required = said.pop("required") if isinstance(said.get("required"), list) else None
            return object_schema(_schema(said[key]), required)
    except ValueError:
        pass
    raise ValueError(
        f"the parameters stand under {written[key]}; write them as parameters, a JSON Schema object"
    )


def _listed_parameters(needed: Any, others: Any) -> Any:
    """The schema of parameters in two lists, of those that must be given and of the others."""
    if not isinstance(needed, list) or not isinstance(others, list):
        raise ValueError("required_parameters and optional_parameters have to be lists")
    required = [item["name"] for item in needed if isinstance(item, dict) and "name" in item]
    return object_schema([*needed, *others], required)


def _seems_schema(value: Any) -> bool:
    """Whether a value that nobody reads describes parameters."""
    if isinstance(value, dict):
        inner = [item for item in value.values() if isinstance(item, dict)]
        return "properties" in value or any("type" in item for item in inner)
    items = value if isinstance(value, list) else []
    return bool(items) and all(isinstance(item, dict) and "name" in item for item in items)


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
