"""A turn as any common tool writes it becomes OpenAI messages.

Which keys of a row hold turns is known to `axtune.data.formats`. Here is what a turn is: role and
content, ShareGPT's from and value, Anthropic's and Gemini's parts, the items of OpenAI Responses,
LangChain's messages, and the roles that calls and results have elsewhere.

Every key of a turn that means something in one of these tools is read, or named in a warning;
others (id, source, timestamp, …) are free. Nothing is guessed: what vLLM makes of a message is in
`axtune.data.conversation`.
"""

from __future__ import annotations

from typing import Any

from axtune.data.calls import is_openai
from axtune.data.cells import says
from axtune.data.cut_answers import cut_answer
from axtune.data.key_names import named_keys
from axtune.data.labels import BARE, is_mark, read_label
from axtune.data.messages import (
    CALL_ROLES,
    ROLE_NAMES,
    ROLES,
    SHAREGPT_ROLES,
    Message,
    Placed,
    bad_role,
    known_role,
)
from axtune.data.parts import CALL_PARTS, RESULT_PARTS, PartsReader, is_text_part
from axtune.data.tools import TOOL_KEYS, other_tools
from axtune.data.turn_calls import CALL_KEYS, call_id, read_call_turn, read_calls_beside
from axtune.data.unread import (
    NOTHING,
    REASONING,
    SERVED_REASONING,
    reasoning_unseen,
    report_unread,
    unread_calls,
    unread_key,
)
from axtune.data.verdicts import bad_answer
from axtune.errors import Problem

# Under which keys a turn says who speaks; LangChain's type comes last.
_SPEAKERS = ("role", "from", "speaker", "sender", "type")
_PLAIN = {"role", "content"}
_PLAIN_ROLES = ("user", "assistant", "system", "developer", "tool")
_PLAIN_RESULT = {"role", "content", "tool_call_id", "name"}
_PLAIN_CALLS = {"role", "content", "tool_calls"}

_BARE = BARE | {"weight"}

_CONTENTS = ("content", "value", "text", "message", "parts")
# Read, or said elsewhere: no meaning of a turn is lost with these.
_USED = {
    *_SPEAKERS,
    "name",
    "tool_call_id",
    "call_id",
    "toolCallId",
    "tool_use_id",
    "tools",
    "functions",
    "additional_kwargs",
    "eot",
    "status",
    "id",
    *_CONTENTS,
    *CALL_KEYS,
    *SERVED_REASONING,
    *REASONING,
}


def read_turns(turns: list[Placed], problems: list[Problem]) -> tuple[list[Placed], list[Placed]]:
    """The OpenAI messages of turns.

    Args:
        turns: As a row has them.
        problems: Appended to.

    Returns:
        The messages, not normalised yet; and the tools that turns hold, each with its place.
    """
    out: list[Placed] = []
    tools: list[Placed] = []
    for place, turn in turns:
        if _is_plain(turn) or not isinstance(turn, dict):
            out.append((place, turn))
            continue
        if not _is_bare(turn):
            tools += _tools_of(place, turn)
        messages = _read_turn(place, unwrapped(turn), problems)
        if not _is_bare(turn) and any(map(_is_learned, messages)):
            problems += cut_answer(place, turn)
        if messages and out and _continues(out[-1][1], turn, messages[0][1]):
            first, message = out[-1]
            out[-1] = (first, _joined(place, message, messages[0][1], problems))
        else:
            out += messages
    return out, tools


def _is_bare(turn: Message) -> bool:
    """Whether a turn has a role, a content and calls, and OpenAI's weight at most besides."""
    return turn.keys() <= _BARE and not isinstance(turn.get("content"), list)


def _is_learned(placed: Placed) -> bool:
    _, message = placed
    return bool(message["role"] == "assistant" and message.get("weight") != 0)


def _tools_of(place: str, turn: Message) -> list[Placed]:
    """The tools that a turn holds, each with its place."""
    own = [(f"{place}.{key}", turn[key]) for key in TOOL_KEYS if says(turn.get(key))]
    return own + [(".".join((place, *keys)), value) for keys, value in other_tools(turn)]


def _is_plain(turn: Any) -> bool:
    """Whether a turn is wholly of OpenAI's form, as most are."""
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), (str, type(None))):
        return False
    keys, role = turn.keys(), turn.get("role")
    if keys == _PLAIN:
        return role in _PLAIN_ROLES
    if role == "tool":
        return "content" in keys and keys <= _PLAIN_RESULT
    if role != "assistant" or keys != _PLAIN_CALLS:
        return False
    calls = turn["tool_calls"]
    return isinstance(calls, list) and all(map(is_openai, calls))


def _continues(before: Any, turn: Message, message: Message) -> bool:
    """Whether a turn of nothing but calls is part of the assistant's message before it."""
    return (
        written_role(turn)[1] == "tool_call"
        and isinstance(before, dict)
        and before.get("role") == "assistant"
        and not message["content"]
    )


def _joined(place: str, first: Message, second: Message, problems: list[Problem]) -> Message:
    """An assistant's message with calls that stand in a turn of their own."""
    if first.get("weight") != second.get("weight"):
        text = f"{place}: labelled otherwise than the turn that it belongs to; label both or none."
        problems.append(Problem("bad-weight", text))
    given = first.get("tool_calls") or []
    return {**second, **first, "tool_calls": [*given, *second["tool_calls"]]}


# --- one turn ---------------------------------------------------------------------------------


def unwrapped(turn: Message) -> Message:
    """A turn out of the object that some dumps put around it."""
    if isinstance(turn.get("data"), dict) and "content" not in turn:  # LangChain's messages_to_dict
        return {"type": turn.get("type"), **turn["data"]}
    if isinstance(turn.get("kwargs"), dict) and isinstance(turn.get("id"), list):  # its dumpd
        kind = str(turn["id"][-1:]).strip("[]'").removesuffix("Chunk").removesuffix("Message")
        return {"type": kind, **turn["kwargs"]}
    if isinstance(turn.get("message"), dict) and "role" in turn["message"]:  # OpenAI's choices
        return turn["message"]  # type: ignore[no-any-return]
    if _is_ui_message(turn):  # the AI SDK's: its parts say all, and these say it again
        return {key: turn[key] for key in turn if key not in ("content", "toolInvocations")}
    return turn


def _is_ui_message(turn: Message) -> bool:
    """Whether a turn has the parts of the AI SDK, which have a type each; Gemini's have none."""
    parts = turn.get("parts")
    return (
        isinstance(parts, list)
        and bool(parts)
        and all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts)
    )


def written_role(turn: Message) -> tuple[str, str | None]:
    """The key of a turn's role, and the role that stands there; None of an unknown one."""
    key = next((key for key in _SPEAKERS if turn.get(key) is not None), "role")
    written = turn.get(key)
    return key, known_role(written) if isinstance(written, str) else None


def _read_turn(place: str, turn: Message, problems: list[Problem]) -> list[Placed]:
    """The messages of a turn: one, several where results stand in parts, none where it is broken
    or holds nothing that is shown.
    """
    if turn.get("type") == "reasoning" and "role" not in turn:  # an item of OpenAI Responses
        problems.append(reasoning_unseen(place, "reasoning"))
        return []
    role = _role(place, turn, problems)
    if role is None:
        return []
    if role == "assistant" and turn.get("channel") == "analysis":  # Harmony: the turn is a thought
        problems.append(reasoning_unseen(place, "channel: analysis"))
        return []
    if role == "assistant" and _is_harmony_call(turn):
        problems.append(unread_calls(place, "recipient"))
        return []
    where = _content_key(place, turn, problems)
    said = turn[where] if where == "value" else None
    if isinstance(said, list) and len(said) > 1 and all(isinstance(text, str) for text in said):
        text = (
            f"{place}.value: a list of {len(said)} texts; expected one. Give each a row of its own."
        )
        problems.append(Problem("bad-content", text))
        return []
    message: Message = {"role": "assistant" if role in CALL_ROLES else role}
    bare = _is_bare(turn)
    if not bare:
        report_unread(place, turn, role, where, problems)
    if not bare or "weight" in turn:
        read_label(place, turn, message, problems)
    if not bare and _is_learned((place, message)):
        problems += bad_answer(place, turn)
    for key in SERVED_REASONING:
        if key in turn:
            message[key] = turn[key]
    if isinstance(turn.get("name"), str) and role != "tool_call":
        message["name"] = turn["name"]
    if message["role"] == "tool":
        message |= call_id(turn)
    if role in CALL_ROLES:
        return read_call_turn(place, where, turn, message, problems)
    calls = read_calls_beside(place, turn, problems)
    sharegpt = "from" in turn and "role" not in turn
    if where is None and not calls and (sharegpt or _says_elsewhere(turn)):
        expected = "from and value" if sharegpt else "role and content"
        problems.append(
            Problem("bad-messages", f"{place}: expected keys {expected}. Found {named_keys(turn)}.")
        )
        return []
    content = turn[where] if where else None
    if isinstance(content, dict) and content.get("type") in ("text", *CALL_PARTS, *RESULT_PARTS):
        content = [content]
    if calls:
        message["tool_calls"] = calls
    if isinstance(content, list) and not all(map(is_text_part, content)):
        return PartsReader(place, message, problems).read(content)
    return [(place, {**message, "content": content})]


def _is_harmony_call(turn: Message) -> bool:
    """Whether what a turn says is the arguments of a call, as Harmony writes one."""
    said, to = turn.get("content"), turn.get("recipient")
    called = isinstance(to, str) and to.startswith("functions.")
    return called and (
        isinstance(said, dict) or (isinstance(said, str) and said.lstrip().startswith("{"))
    )


def _role(place: str, turn: Message, problems: list[Problem]) -> str | None:
    """The role of a turn; those of calls are kept."""
    key, role = written_role(turn)
    if role is None:
        if key == "type":
            text = f"{place}: an item of a type that is not read; expected keys role and content."
            problems.append(Problem("bad-messages", text))
        else:
            problem = bad_role(place, turn.get(key), SHAREGPT_ROLES if key == "from" else ROLES)
            if turn.get(key) is None:
                text = f"{problem.message.removesuffix('.')}; found {named_keys(turn)}."
                problem = problem._replace(message=text)
            problems.append(problem)
        return None
    if role == "tool_call":
        return role
    other = turn.get("from")
    if key == "role" and isinstance(other, str) and ROLE_NAMES.get(other.lower(), role) != role:
        problems.append(Problem("bad-role", f"{place}: role and from differ; remove one."))
    return role


def _content_key(place: str, turn: Message, problems: list[Problem]) -> str | None:
    """The key that holds what a turn says; others that say something else are reported."""
    keys = [key for key in _CONTENTS if key in turn]
    if turn.get("type") == "function_call_output":
        keys = ["output"]
    full = [key for key in keys if turn[key] not in (None, "", [])]
    for key in full[1:]:
        if turn[key] != turn[full[0]]:
            problems.append(unread_key(place, key))
    return full[0] if full else keys[0] if keys else None


def _says_elsewhere(turn: Message) -> bool:
    """Whether a turn without content holds something under a key of its own."""
    return any(
        key not in _USED
        and value not in NOTHING
        and not isinstance(value, bool)
        and not is_mark(key)
        for key, value in turn.items()
    )
