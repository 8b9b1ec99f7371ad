"""A tool's parameters, however they are written, as a JSON Schema of an object.

Read are JSON Schemas, also with the types of Python, Gorilla and Gemini (``dict``, ``STRING``), and
parameters one by one: by name (``{"city": "string"}``, ``{"city": {"type": "string", "required":
true}}``: xLAM, Cohere, LangChain) or in a list (``[{"name": "city", "type": "string"}]``).
"""

from __future__ import annotations

import ast
from typing import Any

# The types of Python and of Gorilla (BFCL), as xLAM and ToolACE write them.
_JSON_TYPES = {
    "str": "string",
    "string": "string",
    "int": "integer",
    "integer": "integer",
    "float": "number",
    "number": "number",
    "double": "number",
    "bool": "boolean",
    "boolean": "boolean",
    "list": "array",
    "array": "array",
    "tuple": "array",
    "set": "array",
    "dict": "object",
    "object": "object",
    "null": "null",
}
_ANY = ("any", "Any")


_OBJECT = ("object", "dict")
# Keys that only a schema has at its top, and those that a schema of one parameter may have.
_COMBINED = ("$ref", "$defs", "$schema", "anyOf", "oneOf", "allOf", "definitions")
_OF_ONE = frozenset(
    (
        *("type", "description", "title", "default", "enum", "const", "examples", "format"),
        *("items", "properties", "required", "optional", "nullable", *_COMBINED),
    )
)
# What a schema of an object may consist of, without saying that it is one.
_OF_OBJECT = frozenset(
    (
        *("title", "description", "required", "additionalProperties", "unevaluatedProperties"),
        *("patternProperties", "propertyNames", "minProperties", "maxProperties", "strict"),
        *("dependentRequired", "dependentSchemas", "not", "if", "then", "else"),
    )
)
_REFUSED = (
    "the parameters are neither a JSON Schema of an object nor a type for each; write "
    '{"type": "object", "properties": {…}}'
)


def object_schema(given: Any, required: Any = None) -> Any:
    """Parameters as a JSON Schema; what is one already as it is.

    Args:
        given: The parameters, as a tool has them.
        required: The names of those that must be given, where the tool says so elsewhere.

    Raises:
        ValueError: When it is not clear what the parameters are, or a type is none of JSON's.
    """
    if isinstance(given, list):
        given = _by_name(given)
    if not isinstance(given, dict):
        raise ValueError(_REFUSED)
    kind = given.get("type")
    if _is_schema(given):
        return retyped(given) if isinstance(kind, str) and kind != "object" else given
    if isinstance(kind, str):  # of a single value, or of a parameter that is called type
        raise ValueError(_REFUSED)
    named = dict(given)
    if isinstance(given.get("required"), list):
        required = named.pop("required")
    try:
        return properties_schema(named, _required(named) if required is None else required)
    except ValueError:
        if given.keys() <= _OF_OBJECT:
            return given
        raise


def properties_schema(given: dict[str, Any], required: list[str] | None) -> dict[str, Any]:
    """The schema of an object of which each property has a type or a schema.

    Args:
        given: The properties by their names.
        required: The names of those that must be given; None where nothing says so.

    Raises:
        ValueError: When a property has none.
    """
    properties = {name: _property(value) for name, value in given.items()}
    schema = {"type": "object", "properties": properties}
    return schema if required is None else {**schema, "required": required}


def is_optional(value: Any) -> bool:
    """Whether a parameter says that it may be left out."""
    if isinstance(value, str):
        return "optional" in value.lower()
    return "default" in value or "optional" in str(value.get("type")) or bool(value.get("optional"))


def _is_schema(given: dict[str, Any]) -> bool:
    """Whether an object is itself a JSON Schema, and not parameters by their names."""
    kind, properties = given.get("type"), given.get("properties")
    if isinstance(kind, str):
        return kind.lower() in _OBJECT
    if isinstance(kind, list):
        return "object" in kind
    if isinstance(properties, dict) and all(
        isinstance(v, (dict, bool)) for v in properties.values()
    ):
        return True
    return not given or any(key in given for key in _COMBINED)


def _by_name(given: list[Any]) -> dict[str, Any]:
    """Parameters of a list, by their names."""
    if not given:
        raise ValueError(_REFUSED)
    out: dict[str, Any] = {}
    for item in given:
        if not isinstance(item, dict) or not isinstance(name := item.get("name"), str):
            raise ValueError(_REFUSED)
        out[name] = {key: value for key, value in item.items() if key != "name"}
    return out


def _required(given: dict[str, Any]) -> list[str] | None:
    """The parameters that must be given, where any of them says so of itself."""
    said = [v["required"] for v in given.values() if isinstance(v, dict) and "required" in v]
    if any(isinstance(value, bool) for value in said):
        return [n for n, v in given.items() if isinstance(v, dict) and v.get("required") is True]
    if any(isinstance(v, (str, dict)) and is_optional(v) for v in given.values()):
        return [n for n, v in given.items() if isinstance(v, (str, dict)) and not is_optional(v)]
    return None


def _property(value: Any) -> Any:
    """The schema of one parameter."""
    if isinstance(value, str):
        try:
            return retyped({"type": value})
        except ValueError:
            raise ValueError(_REFUSED) from None
    known = isinstance(value, dict) and ("type" in value or (value and value.keys() <= _OF_ONE))
    if not known:
        raise ValueError(_REFUSED)
    return retyped(value)


def retyped(schema: Any) -> Any:
    """A schema with JSON's types for Python's, inside of it too."""
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, str):
            out |= _json_type(value.split(", optional")[0].strip())
        elif key == "properties" and isinstance(value, dict):
            out[key] = {name: retyped(inner) for name, inner in value.items()}
        elif key == "items" and isinstance(value, dict):
            out[key] = retyped(value)
        elif key in ("optional", "required") and isinstance(value, bool):
            continue  # said at the object, as JSON Schema does
        else:
            out[key] = value
    return out


def _json_type(written: str) -> dict[str, Any]:
    """The JSON Schema of a Python type such as ``List[int]``."""
    if written in _ANY:
        return {}
    if written.lower() in _JSON_TYPES:
        return {"type": _JSON_TYPES[written.lower()]}
    try:
        return _annotation(ast.parse(written, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("a parameter has a type that JSON has not") from None


def _annotation(node: ast.expr) -> dict[str, Any]:
    if isinstance(node, ast.Name):
        return _json_type(node.id) if node.id in (*_ANY, *_JSON_TYPES) else _no_type()
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
        return _no_type()
    outer = node.value.id
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if outer in ("Optional",) and len(inner) == 1:
        return _annotation(inner[0])
    if outer == "Union":
        return {"anyOf": [_annotation(choice) for choice in inner]}
    kind = _JSON_TYPES.get(outer.lower())
    if kind == "array" and len(inner) == 1:
        return {"type": "array", "items": _annotation(inner[0])}
    if kind in ("array", "object"):
        return {"type": kind}
    return _no_type()


def _no_type() -> dict[str, Any]:
    raise ValueError("a parameter has a type that JSON has not")
