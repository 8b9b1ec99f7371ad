"""What a call's rightness means.

An answer is held against what is wanted (`Wanted`): calls, any call at all, no call, or text. Text
is not judged here. The rules for calls:

- **Calls** are a set: their order says nothing, and each wanted call needs a call of its own. Where
  several fit, the assignment that fits most is taken (a maximum matching, not the first that fits).
- **Arguments**: each has one or more right values. One that may be left out may be absent. Where
  `Rules.defaults` holds, an absent argument that the schema does not require equals its
  ``default``: left out where the default is right, or written out where nothing is wanted. An
  argument that is not wanted makes the call wrong.
- **Values** are compared with their JSON types. A string is no number, true is not 1, null is
  nothing else. 57600 equals 57600.0, unless `Rules.integral_floats` says otherwise. Objects have
  no order, and their properties are arguments again; lists have an order.
- **Strings** are compared as `Rules.text` makes them.

The schema of a tool gives defaults and types, and whether arguments are *valid* is reported beside.
It does not decide what is right: the recorded answer is right also where it breaks its own schema.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from axtune.data.literals import parse_json
from axtune.data.native_calls import HERMES, Answer
from axtune.data.validate import parameters_validator, violations

Reason = Literal[
    "no-call",
    "unread-call",
    "unwanted-call",
    "no-text",
    "not-judged",
    "invalid-json",
    "number-of-calls",
    "wrong-tool",
    "unexpected-argument",
    "missing-argument",
    "wrong-type",
    "wrong-value",
]


def plain_text(text: str) -> str:
    """A string as it is compared where no benchmark says otherwise: NFC, without outer space."""
    return unicodedata.normalize("NFC", text).strip()


@dataclass(frozen=True, slots=True)
class Rules:
    """Where benchmarks differ on what is equal.

    Attributes:
        text: Strings are equal when what this makes of them is.
        defaults: Whether an absent argument that the schema does not require equals its default. A
            benchmark that lists what may be left out does without.
        integral_floats: Whether 5 and 5.0 are equal everywhere, as JSON Schema has it; else only
            where the schema says ``number``.
    """

    text: Callable[[str], str] = plain_text
    defaults: bool = True
    integral_floats: bool = True


@dataclass(frozen=True, slots=True)
class Argument:
    """What an argument, or a property of an object, may be.

    Attributes:
        values: The right values, JSON or `Fields`, also inside of lists; none of them where nothing
            is right.
        optional: Whether it may be left out.
    """

    values: tuple[Any, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Fields:
    """An object whose properties have several right values, or may be left out."""

    properties: Mapping[str, Argument]


@dataclass(frozen=True, slots=True)
class WantedCall:
    """A call that is wanted.

    Attributes:
        name: Of the tool.
        arguments: All that the call may have.
    """

    name: str
    arguments: Fields


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of an answer.

    Attributes:
        decision: ``calls``: those of `calls`; ``any-call``: whichever call; ``no-call``: anything
            but a call; ``text``: a text, which nothing here judges.
        calls: In no order.
    """

    decision: Literal["calls", "any-call", "no-call", "text"]
    calls: tuple[WantedCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is right about an answer.

    Attributes:
        decision: It calls exactly when a call is wanted, and says something where that is a text;
            a call that the server's parser left in the text is none, and no text either.
        tool: The tools that it calls are the wanted ones, each as often as wanted.
        arguments: Every wanted call is there, with right arguments, and there is no other.
        valid_json: The arguments of every call are a JSON object, and no call was left in the text
            because the server's parser could not read it.
        schema_valid: Every call goes to a tool of the row, and keeps to its parameters' schema.
        right: All that was asked for is right; never of an answer that should be text.
        reason: Why it is not right, by the first fault in the order of the attributes; None when
            it is.
    """

    decision: bool
    tool: bool
    arguments: bool
    valid_json: bool
    schema_valid: bool
    right: bool = field(init=False)
    reason: Reason | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "right", self.reason is None)


class _Call(NamedTuple):
    """A call of an answer; arguments are None when they are no JSON object."""

    name: str
    arguments: dict[str, Any] | None


def wanted_of(message: Mapping[str, Any]) -> Wanted:
    """What is wanted where an answer was recorded: its calls, each argument as it is; else text.

    Args:
        message: An assistant's message in OpenAI's form; arguments are an object or its JSON text.

    Raises:
        ValueError: When the arguments of a call are no JSON object.
    """
    calls = []
    for call in message.get("tool_calls") or []:
        function = call["function"]
        given = function["arguments"]
        arguments = parse_json(given) if isinstance(given, str) else given
        if not isinstance(arguments, dict):
            raise ValueError("the arguments of a call are no JSON object")
        calls.append(WantedCall(function["name"], _as_fields(arguments)))
    return Wanted("calls", tuple(calls)) if calls else Wanted("text")


def score(
    answer: Answer, wanted: Wanted, tools: Sequence[Mapping[str, Any]], rules: Rules | None = None
) -> Verdict:
    """Hold an answer against what is wanted.

    Args:
        answer: As the client gets it.
        wanted: What is right.
        tools: Of the row, in OpenAI's form with JSON Schema types.
        rules: What is equal; None for the rules of this module.
    """
    rules = rules or Rules()
    offered = {tool["function"]["name"]: tool for tool in tools}
    calls = [_read(call) for call in answer.tool_calls]
    unread = not calls and HERMES.before(answer.content) != answer.content
    valid_json = not unread and all(call.arguments is not None for call in calls)
    schema_valid = not unread and all(_is_valid(call, offered) for call in calls)

    def verdict(reason: Reason | None, *, decision: bool, tool: bool, arguments: bool) -> Verdict:
        return Verdict(decision, tool, arguments, valid_json, schema_valid, reason)

    if wanted.decision == "no-call":
        reason: Reason | None = "unwanted-call" if calls else None
        return verdict(reason, decision=not calls, tool=not calls, arguments=not calls)
    if wanted.decision == "text":
        reason = _text_fault(answer, unread=unread)
        kept = reason == "not-judged"
        return verdict(reason, decision=kept, tool=kept, arguments=kept)
    if not calls:
        reason = "unread-call" if unread else "no-call"
        return verdict(reason, decision=False, tool=False, arguments=False)
    if wanted.decision == "any-call":
        reason = None if valid_json else "invalid-json"
        return verdict(reason, decision=True, tool=True, arguments=valid_json)
    tool = Counter(call.name for call in calls) == Counter(call.name for call in wanted.calls)
    fault = None if tool else _wrong_tools(calls, wanted)
    fault = fault or _first_fault(calls, wanted.calls, offered, rules)
    reason = fault if valid_json else "invalid-json"
    return verdict(reason, decision=True, tool=tool, arguments=fault is None)


def _text_fault(answer: Answer, *, unread: bool) -> Reason:
    """Why an answer is no text; of one that is, nothing more is said."""
    if answer.tool_calls:
        return "unwanted-call"
    if unread:
        return "unread-call"
    return "not-judged" if answer.content.strip() else "no-text"


def _read(call: Mapping[str, Any]) -> _Call:
    function = call["function"]
    try:
        arguments = parse_json(function["arguments"])
    except (ValueError, TypeError):
        arguments = None
    return _Call(function["name"], arguments if isinstance(arguments, dict) else None)


def _is_valid(call: _Call, offered: Mapping[str, Mapping[str, Any]]) -> bool:
    tool = offered.get(call.name)
    if tool is None or call.arguments is None:
        return False
    if tool["function"].get("parameters") is None:
        return True
    validator = parameters_validator(json.dumps(tool, ensure_ascii=False))
    if validator is None:  # the schema is itself broken, and says nothing
        return True
    try:
        return not violations(validator, call.arguments)
    except (UnicodeEncodeError, RecursionError):
        return False


def _wrong_tools(calls: Sequence[_Call], wanted: Wanted) -> Reason:
    return "wrong-tool" if len(calls) == len(wanted.calls) else "number-of-calls"


# --- Calls and arguments ------------------------------------------------------------------------


def _first_fault(
    calls: Sequence[_Call],
    wanted: Sequence[WantedCall],
    offered: Mapping[str, Mapping[str, Any]],
    rules: Rules,
) -> Reason | None:
    """Why the calls are not the wanted ones; None when they are."""
    if len(calls) != len(wanted):
        return "number-of-calls"
    faults = [[_call_fault(call, one, offered, rules) for call in calls] for one in wanted]
    owner = _matching([[fault is None for fault in row] for row in faults])
    left = [number for number in range(len(wanted)) if number not in owner.values()]
    if not left:
        return None
    # A call of the same tool that is still free says most about what is wrong.
    free = [fault for number, fault in enumerate(faults[left[0]]) if number not in owner]
    return next((fault for fault in free if fault not in (None, "wrong-tool")), "wrong-tool")


def _call_fault(
    call: _Call, wanted: WantedCall, offered: Mapping[str, Mapping[str, Any]], rules: Rules
) -> Reason | None:
    if call.name != wanted.name:
        return "wrong-tool"
    if call.arguments is None:
        return "invalid-json"
    parameters = offered.get(wanted.name, {}).get("function", {}).get("parameters")
    schema = _Schema(parameters, parameters)
    try:
        return _object_fault(call.arguments, wanted.arguments, schema, rules)
    except RecursionError:  # nested in hundreds, as no tool is called
        return "wrong-value"


def _matching(fits: Sequence[Sequence[bool]]) -> dict[int, int]:
    """The row of each column in a maximum matching (Kuhn's augmenting paths)."""
    owner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in seen:
                seen.add(column)
                if column not in owner or place(owner[column], seen):
                    owner[column] = row
                    return True
        return False

    for row in range(len(fits)):
        place(row, set())
    return owner


def _object_fault(
    given: Mapping[str, Any], wanted: Fields, schema: _Schema, rules: Rules
) -> Reason | None:
    """Why an object is not the wanted one; None when it is."""
    for name, value in given.items():
        if name not in wanted.properties and not (
            rules.defaults
            and (default := schema.default(name)) is not _ABSENT
            and _equal(value, default, schema.property(name), rules)
        ):
            return "unexpected-argument"
    for name, argument in wanted.properties.items():
        value = given.get(name, _ABSENT)
        if value is _ABSENT and argument.optional:
            continue
        if value is _ABSENT and rules.defaults:
            value = schema.default(name)
        if value is _ABSENT:
            return "missing-argument"
        inner = schema.property(name)
        if not any(_equal(value, right, inner, rules) for right in argument.values):
            if name not in given:
                return "missing-argument"
            kinds = {_kind(right) for right in argument.values}
            return "wrong-value" if _kind(value) in kinds else "wrong-type"
    return None


def _equal(given: Any, wanted: Any, schema: _Schema, rules: Rules) -> bool:
    """Whether a value is the wanted one: with types, nested by schema."""
    kind = _kind(given)
    if kind != _kind(wanted):
        return False
    if kind == "string":
        return rules.text(given) == rules.text(wanted)
    if kind == "number":
        alike = rules.integral_floats or type(given) is type(wanted) or schema.is_number()
        return alike and bool(given == wanted)
    if kind == "array":
        return len(given) == len(wanted) and all(
            _equal(one, other, schema.item(number), rules)
            for number, (one, other) in enumerate(zip(given, wanted, strict=True))
        )
    if kind == "object":
        return _object_fault(given, _as_fields(wanted), schema, rules) is None
    return bool(given == wanted)


def _as_fields(value: Mapping[str, Any] | Fields) -> Fields:
    if isinstance(value, Fields):
        return value
    return Fields({name: Argument((one,)) for name, one in value.items()})


_KINDS = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    Fields: "object",
}


def _kind(value: Any) -> str:
    return _KINDS[type(value)]


# --- Schemas --------------------------------------------------------------------------------------


class _Absent:
    """No value, where None is one."""


_ABSENT: Final = _Absent()


class _Schema(NamedTuple):
    """A place in a JSON Schema.

    Attributes:
        node: What stands there; anything but an object says nothing.
        root: What ``$ref`` begins at.
    """

    node: Any
    root: Any

    def _branches(self) -> Iterator[dict[str, Any]]:
        """The schema itself and what it is made of."""
        seen: list[int] = []
        waiting = [self.node]
        while waiting:
            node = waiting.pop(0)
            if not isinstance(node, dict) or id(node) in seen:
                continue
            seen.append(id(node))
            yield node
            if isinstance(ref := node.get("$ref"), str):
                waiting.append(self._referred(ref))
            for key in ("allOf", "anyOf", "oneOf"):
                if isinstance(node.get(key), list):
                    waiting += node[key]

    def _referred(self, ref: str) -> Any:
        """What a reference inside of the same schema (``#/$defs/item``) points to."""
        node = self.root
        for key in ref.removeprefix("#").split("/")[1:]:
            key = key.replace("~1", "/").replace("~0", "~")
            node = node.get(key) if isinstance(node, dict) else None
        return node if ref.startswith("#") else None

    def property(self, name: str) -> _Schema:
        """Of a property of the object."""
        for branch in self._branches():
            properties = branch.get("properties")
            if isinstance(properties, dict) and name in properties:
                return _Schema(properties[name], self.root)
        return _Schema(None, self.root)

    def item(self, number: int) -> _Schema:
        """Of an item of the list."""
        for branch in self._branches():
            prefix = branch.get("prefixItems")
            if isinstance(prefix, list) and number < len(prefix):
                return _Schema(prefix[number], self.root)
            if "items" in branch:
                return _Schema(branch["items"], self.root)
        return _Schema(None, self.root)

    def is_number(self) -> bool:
        """Whether it speaks of numbers, whole or not."""
        return any(
            "number" in ([kind] if isinstance(kind, str) else kind)
            for branch in self._branches()
            if isinstance(kind := branch.get("type"), (str, list))
        )

    def default(self, name: str) -> Any:
        """The default of a property that is not required; `_ABSENT` when there is none."""
        for branch in self._branches():
            if isinstance(required := branch.get("required"), list) and name in required:
                return _ABSENT
        for branch in self.property(name)._branches():
            if "default" in branch:
                return branch["default"]
        return _ABSENT
