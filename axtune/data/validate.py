"""What a row must keep to before anything is learned from it.

Something to learn, calls to tools that are there and within their schemas, results behind calls, no
control tokens inside text. Messages name places, never what a row says.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NoReturn

import jsonschema_rs

from axtune.data.conversation import Conversation
from axtune.data.documents import TEXT, DocumentRow
from axtune.data.garbled import is_escaped, is_mojibake, is_no_value, media_placeholder
from axtune.data.markup import foreign_markup
from axtune.data.messages import Message
from axtune.data.parse import AnyRow, PreferenceRow
from axtune.data.unread import reasoning_unseen
from axtune.errors import Problem, Severity

# Conjoining jamo: Hangul in NFD, as macOS file names and some scanners write it.
_NFD_HANGUL = re.compile("[\u1100-\u11ff]")
# Characters of other categories that show nothing: Hangul fillers, a joiner, an empty Braille cell.
_UNSEEN = frozenset("\u115f\u1160\u3164\uffa0\u034f\u2800\ufe0e\ufe0f")
_PROSE = ("system", "developer", "user", "assistant", "document")
_THINK = frozenset(("<think>", "</think>"))
_THOUGHTS = re.compile(
    r"<(think|thinking|thought|thoughts|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE
)


def check(row: AnyRow) -> tuple[AnyRow, list[Problem]]:
    """Hold what a row is to teach against every rule that needs no tokenizer.

    Args:
        row: Normalised; it stays as it is.

    Returns:
        The row without labels on turns that say nothing; and every problem found. A call to a wrong
        tool or with wrong arguments is often what makes an answer the rejected one, so that there
        it is a warning.
    """
    if isinstance(row, DocumentRow):
        message = f"{TEXT}: there is no text to learn; remove the row."
        return row, [Problem("empty-text", message)] if _says_nothing(row.text) else []
    if isinstance(row, Conversation):
        return _checked(row, len(row.messages))
    problems: dict[Problem, None] = {}  # what the answers share is found with each
    checked: dict[str, Conversation] = {}
    for name, conversation in row.answers:
        strict = row.prompt if name == "rejected" else len(conversation.messages)
        checked[name], found = _checked(conversation, strict)
        problems |= dict.fromkeys(found)
    return PreferenceRow(checked.get("chosen"), checked.get("rejected"), row.prompt), list(problems)


def _checked(conversation: Conversation, strict: int) -> tuple[Conversation, list[Problem]]:
    """A conversation and its problems; calls in its first `strict` messages have to be right."""
    problems: list[Problem] = []
    learn = _check_turns(conversation, problems)
    _check_calls(conversation, strict, problems)
    _check_results(conversation, problems)
    return replace(conversation, learn=learn), problems


def text_problems(row: AnyRow, control: re.Pattern[str] | None, *, nfd: bool) -> list[Problem]:
    """What is wrong with the texts themselves: control tokens, lost bytes, markup, NFD Hangul.

    The tokenizer takes a control token written in a text for the real one.

    Args:
        row: Whose text, or contents, calls and tools are searched.
        control: Matches control tokens; None lets them stand. An assistant may write ``<think>``.
        nfd: Whether to report Hangul in conjoining jamo.
    """
    problems = []
    decomposed = False
    names = _tool_names(row)
    for place, role, text in _texts(row):
        if nfd and not decomposed and not text.isascii():
            decomposed = _NFD_HANGUL.search(text) is not None
        if control and "<" in text:
            found = set(control.findall(text))
            if found - _THINK if role == "assistant" else found:
                message = (
                    f"{place} holds a control token inside text; remove it, or set "
                    "data.control_tokens: keep to train on it as vLLM would serve it."
                )
                problems.append(Problem("control-token", message))
        if "\ufffd" in text:
            message = (
                f"{place} holds U+FFFD, which stands for bytes that were lost when the text was "
                "decoded; make the file again from its source, or remove the row."
            )
            problems.append(Problem("replacement-character", message, "warning"))
        if role in _PROSE:
            problems += _garbled(place, role, text)
        if role == "assistant" and (sign := foreign_markup(text, names)):
            message = (
                f"{place} holds {sign}, as other models write a call or an end of turn; to this "
                "model it is text like any other. Write calls as tool_calls, or remove it."
            )
            problems.append(Problem("foreign-markup", message, "warning"))
        elif role == "document" and (sign := foreign_markup(text, names)):
            message = (
                f"{place} holds {sign}, as other models write a call or a turn; as a document it "
                "is learned like any other text. Give conversations as messages."
            )
            problems.append(Problem("foreign-markup", message, "warning"))
    if decomposed:
        message = (
            "Hangul in decomposed form (NFD), rare in pre-training; data.nfc: true converts it."
        )
        problems.append(Problem("nfd", message, "warning"))
    return problems


def _garbled(place: str, role: str, text: str) -> Iterator[Problem]:
    """What is wrong with a text that is not what was written."""
    if is_mojibake(text):
        message = (
            f"{place} seems to have been decoded as another encoding than its own (UTF-8, "
            "UTF-16 or CP949); make the file again from its source, or remove the row."
        )
        yield Problem("mojibake", message, "warning")
    if is_escaped(text):
        message = (
            f"{place} has line ends or letters written as escapes (\\n, \\uXXXX), as text that "
            "was encoded as JSON once too often; decode it, or leave it where that is meant."
        )
        yield Problem("escaped-text", message, "warning")
    if is_no_value(text, role):
        message = (
            f"{place} is, or ends with, what programs write for a value that is not there (nan, "
            "None, null, …); make the file again with empty cells, or leave it where that is meant."
        )
        yield Problem("no-value", message, "warning")
    if role == "user" and (alone := media_placeholder(text)) is not None:
        message = (
            f"{place} has the place of an image, a video or a sound, and the models read text "
            "only; remove the row, or the mark where the text says it all."
        )
        yield Problem("missing-media", message, "error" if alone else "warning")


def _tool_names(row: AnyRow) -> list[str]:
    if isinstance(row, DocumentRow):
        return []
    first = row if isinstance(row, Conversation) else row.learned
    return [tool["function"]["name"] for tool in first.tools or ()]


def _texts(row: AnyRow) -> Iterator[tuple[str, str, str]]:
    """Every text of a row, once, with its place and who says it, calls and tools as JSON."""
    if isinstance(row, DocumentRow):
        yield TEXT, "document", row.text
        return
    if isinstance(row, Conversation):
        parts = [(row, 0)]
    else:  # the second answer stands behind the same prompt
        parts = [(answer, row.prompt if n else 0) for n, (_, answer) in enumerate(row.answers)]
    for conversation, begin in parts:
        said = zip(conversation.places[begin:], conversation.messages[begin:], strict=True)
        for place, message in said:
            yield place, message["role"], message["content"]
            for index, call in enumerate(message.get("tool_calls", ())):
                function = json.dumps(call["function"], ensure_ascii=False)
                yield f"{place}.tool_calls[{index}]", "call", function
    for index, tool in enumerate(parts[0][0].tools or ()):
        yield f"tools[{index}]", "tool", tool.json


def _check_turns(conversation: Conversation, problems: list[Problem]) -> list[int]:
    """There is something to learn, and every assistant turn says something.

    Returns:
        The turns to be learned: of the conversation's, those that say something.
    """
    messages, places = conversation.messages, conversation.places
    assistants = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not assistants:
        problems.append(Problem("no-assistant", "there is no assistant turn to learn from."))
        return []
    learn = conversation.learn
    for index in assistants:
        message = messages[index]
        said = _without_thoughts(message["content"])
        if _says_nothing(said) and not message.get("tool_calls"):
            what = "empty" if said == message["content"] else "a thought and no answer"
            if index == assistants[-1]:
                text = (
                    f"{places[index]}: the last assistant turn is {what}; give it a text or a call."
                )
                problems.append(Problem("empty-assistant", text))
            else:  # a serving engine shows such a turn, so it stays as context
                text = f"{places[index]}: an assistant turn is {what}; it is not labelled."
                problems.append(Problem("empty-assistant", text, "warning"))
                learn = [turn for turn in learn if turn != index]
        if message.get("reasoning_content"):
            problems.append(reasoning_unseen(places[index], "reasoning_content"))
    for index in learn:
        asked = messages[index - 1] if index else {}
        if asked.get("role") == "user" and _says_nothing(asked["content"]):
            text = f"{places[index - 1]}: the question says nothing; give it a text."
            problems.append(Problem("empty-prompt", text))
    if not learn:
        text = "no assistant turn with text is labelled (weight 0 on every one?)."
        problems.append(Problem("nothing-to-learn", text))
    if assistants[-1] != len(messages) - 1:
        text = "the turns after the last assistant turn are left out; nothing in them is labelled."
        problems.append(Problem("trailing-turns", text, "warning"))
    return learn


def _without_thoughts(text: str) -> str:
    """A text without the thoughts in it, also those that are not closed."""
    return _THOUGHTS.sub("", text).rpartition("</think>")[2] if "<" in text else text


def _says_nothing(text: str) -> bool:
    """Whether a text shows nothing: white space and zero-width characters alone."""
    return all(
        letter.isspace() or letter in _UNSEEN or unicodedata.category(letter) == "Cf"
        for letter in text
    )


def _check_calls(conversation: Conversation, strict: int, problems: list[Problem]) -> None:
    """Calls go to the row's own tools and keep to their schemas."""
    tools = {tool["function"]["name"]: tool for tool in conversation.tools or ()}
    bad_schemas: set[str] = set()
    for index, message in enumerate(conversation.messages):
        severity: Severity = "error" if index < strict else "warning"
        for number, call in enumerate(message.get("tool_calls", ())):
            at = f"{conversation.places[index]}.tool_calls[{number}]"
            if not tools:
                text = f"{at}: the row has no tools; a client sends them with each request."
                problems.append(Problem("call-without-tools", text, "warning"))
                continue
            tool = tools.get(call["function"]["name"])
            if tool is None:
                text = f"{at}: it goes to none of the row's {len(tools)} tools."
                problems.append(Problem("unknown-tool", text, severity))
                continue
            if tool["function"]["parameters"] is None:
                continue
            validator = parameters_validator(tool.json)
            if validator is None:
                bad_schemas.add(tool["function"]["name"])
                continue
            for keyword in violations(validator, call["function"]["arguments"]):
                text = f"{at}: the arguments break the tool's JSON Schema (keyword {keyword})."
                problems.append(Problem("schema-violation", text, severity))
    if bad_schemas:
        text = f"{len(bad_schemas)} tools that are called have parameters of no valid JSON Schema."
        problems.append(Problem("bad-schema", text, "warning"))


def _check_results(conversation: Conversation, problems: list[Problem]) -> None:
    """Results follow calls, in their order, since the template shows neither ids nor names.

    Rows that record no calls at all get a warning only.
    """
    recorded = bool(conversation.tools) or any(m.get("tool_calls") for m in conversation.messages)
    calls: list[Message] = []
    waiting = 0
    previous = ""
    for index, message in enumerate(conversation.messages):
        role = message["role"]
        if role == "assistant":
            problems += _unanswered(conversation.places[index], waiting)
            calls = message.get("tool_calls", [])
            waiting = len(calls)
        elif role == "tool":
            if waiting == 0:
                lenient = not recorded and previous in ("assistant", "tool")
                text = f"{conversation.places[index]}: a tool result without a call before it."
                severity: Severity = "warning" if lenient else "error"
                problems.append(Problem("result-without-call", text, severity))
            elif found := _out_of_order(message, calls, len(calls) - waiting):
                code, text = found
                problems.append(Problem(code, f"{conversation.places[index]}: {text}", "warning"))
                calls = []  # said once
            waiting = max(0, waiting - 1)
        else:
            waiting = 0
        previous = role


def _unanswered(place: str, waiting: int) -> Iterator[Problem]:
    """What is wrong with an assistant's turn before which calls wait for their results."""
    if waiting:
        text = (
            f"{place}: {waiting} of the calls before it have no result; the model would learn to "
            "answer without. Add the results, or remove the calls."
        )
        yield Problem("call-without-result", text, "warning")


def _out_of_order(result: Message, calls: list[Message], number: int) -> tuple[str, str] | None:
    """What is wrong with a result that belongs to another call than the one at its number."""
    ids = [call.get("id") for call in calls]
    names = [call["function"]["name"] for call in calls]
    for key, known in (("tool_call_id", ids), ("name", names)):
        given = result.get(key)
        if given is None or None in known or not known:
            continue
        if given not in known:
            return "result-of-no-call", f"its {key} is that of no call before it."
        if given != known[number]:
            return "result-order", (
                "results come in another order than their calls; the template shows them without "
                "ids, so their order is all that the model sees."
            )
        return None
    return None


def violations(validator: Any, value: Any) -> list[str]:
    """The keyword of each rule that a value breaks; names of properties are the row's content."""
    try:
        return [error.kind.name for error in validator.iter_errors(value)]
    except UnicodeEncodeError:
        raise
    except ValueError:  # jsonschema_rs at its own limit, far below Python's
        raise RecursionError from None


@lru_cache(maxsize=4096)
def parameters_validator(tool: str) -> Any:
    """A validator of a tool's parameters, or None when the schema is itself not valid."""
    try:
        return schema_validator(json.loads(tool)["function"]["parameters"])
    except ValueError:
        return None


def schema_validator(schema: Any) -> Any:
    """A validator of a JSON Schema, or None when it is itself not valid."""
    try:
        return jsonschema_rs.validator_for(schema, retriever=_retrieve_nothing)
    except (jsonschema_rs.ValidationError, ValueError):
        return None


def _retrieve_nothing(uri: str) -> NoReturn:
    """A ``$ref`` to a URL or a file of this machine is not followed: data must not cause that."""
    raise ValueError(f"{uri} is not retrieved")
