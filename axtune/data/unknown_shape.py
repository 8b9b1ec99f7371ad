"""Why a row of no known shape is not read: what it has, and the nearest shape that is read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any

from axtune.data.cells import says, speaker_of
from axtune.data.documents import TEXT
from axtune.data.key_names import named_keys, plain
from axtune.errors import Problem

# What other tools and exports call a list of turns; many of them hold something else elsewhere.
_PERHAPS_TURNS = (
    "data", "dialog", "dialogue", "dialogs", "turns", "utterances", "chat", "chat_messages",
    "thread", "history",
)  # fmt: skip
# Why a row is not read, by a key that it has.
_UNREADABLE = {
    "input_ids": "the row is already tokenised; give it as messages",
    "segments": "segments are texts without roles; give the row messages",
    "completions": "completions judges steps; axtune learns whole answers: messages",
    "prompt": "the prompt has no answer (completion) behind it",
}
_EXPECTED = (
    "expected the keys messages, conversations, instruction and output, prompt and completion, "
    "chosen and rejected, or text"
)
_SHAPED = ("messages", "conversations", "instruction", "output", "prompt", "completion", "response")
# What people call a question and an answer, a text and what is made of it.
_QUESTIONS = (
    "instruction", "prompt", "query", "question", "input", "질문", "문제", "지시", "지시문", "명령",
    "요청", "프롬프트", "사용자", "물음", "발화", "user", "human", "usermessage", "userinput",
    "userprompt", "userquery", "usertext", "q", "ask", "problem", "problemstatement", "task",
    "request", "inst", "instruct", "questiontext", "prompttext", "inputtext", "questionstem",
    "stem", "goal", "utterance", "sqlprompt", "source", "sourcetext", "src", "document", "article",
    "dialogue", "dialog", "sentence", "original", "원문",
)  # fmt: skip
_ANSWERS = (
    "output", "completion", "response", "answer", "답변", "답", "정답", "응답", "대답", "출력",
    "어시스턴트", "챗봇", "assistant", "bot", "gpt", "model", "reply", "a", "ans", "answertext",
    "responsetext", "outputtext", "target", "targettext", "tgt", "summary", "요약", "요약문",
    "highlights", "solution", "generation", "generatedtext", "modeloutput", "modelresponse",
    "assistantresponse", "botresponse", "sql", "translation", "번역", "번역문", "result",
    "bestanswer", "correctanswer", "explanation", "설명", "answers",
)  # fmt: skip
# Two answers of one question.
_TWO = re.compile(
    r"(?:response|answer|output|completion|conversation|reply|humanref|candidate|chosen|text)"
    r"(?:[ab]|[0-2]|[jk]|one|two|good|bad)|accepted|rejected|preferred|dispreferred|winner|loser"
    r"|(?:good|bad|better|worse)(?:response|answer)"
)


def unknown_shape(
    fields: dict[str, Any], shape_of: Callable[[dict[str, Any]], str | None]
) -> Problem:
    """The problem of a row of no known shape.

    Args:
        fields: The row's cells that are not null.
        shape_of: The shape that the keys of a row say.
    """
    why = (
        _misnamed_turns(fields)
        or _misspelt(fields, shape_of)
        or _nested(fields, shape_of)
        or next((why for key, why in _UNREADABLE.items() if says(fields.get(key))), None)
    )
    if _scored(fields.get("completions")):
        why = (
            "completions holds several answers with what each is worth; write a better one as "
            "chosen and a worse one as rejected, behind a prompt"
        )
    near = _nearest(fields, half=why is None) if why in (None, _UNREADABLE["prompt"]) else None
    reasons = "; ".join(filter(None, (why or (None if near else _EXPECTED), near)))
    found = f"found {named_keys(fields)}" if fields else "the row says nothing"
    message = f"no known shape; {reasons}; {found}; see data_templates/README.md."
    return Problem("unknown-shape", message)


def _scored(answers: Any) -> bool:
    """Whether a value is a list of answers that stand beside what judges say of them."""
    return isinstance(answers, list) and any(
        isinstance(answer, dict) and answer.keys() & {"response", "content", "text"}
        for answer in answers
    )


def turns_key(fields: dict[str, Any]) -> str | None:
    """A key of a row that holds a conversation under a name that is not known."""
    found = [key for key in _PERHAPS_TURNS if isinstance(fields.get(key), list)]
    return next((key for key in reversed(found) if _seem_turns(fields[key])), None)


def _seem_turns(turns: list[Any]) -> bool:
    """Whether a list is one of turns, or of what two speakers say in turn."""
    texts = all(isinstance(turn, str) for turn in turns)
    return len(turns) > 1 and (texts or all(speaker_of(turn) is not None for turn in turns))


def _misnamed_turns(fields: dict[str, Any]) -> str | None:
    key = turns_key(fields)
    return f"the key {key} seems to hold a conversation; name it conversations" if key else None


def _misspelt(
    fields: dict[str, Any], shape_of: Callable[[dict[str, Any]], str | None]
) -> str | None:
    keys = {key.strip().lower(): value for key, value in fields.items()}
    if shape_of(keys) or (TEXT in keys and TEXT not in fields):
        return "the keys are those of one but for case or spaces; rename them"
    for key in fields:
        if _TWO.fullmatch(plain(key)):
            continue
        close = difflib.get_close_matches(key.strip().lower(), _SHAPED, 1, 0.86)
        if close and close[0] not in fields and key.strip().lower() != f"{close[0]}s":
            return f"did you mean {close[0]}?"
    return None


def _nested(fields: dict[str, Any], shape_of: Callable[[dict[str, Any]], str | None]) -> str | None:
    """Where the row, or its two halves, lie within objects (requests, LangSmith's runs)."""
    inner = {key: value for key, value in fields.items() if isinstance(value, dict)}
    for key, value in inner.items():
        if plain(key) in _HOLDING and (shape_of(value) or _questions(value)):
            if shape_of(value) and len(inner) == 1:
                return f"the row stands within {key}; write what is in it (jq -c .{key})"
            return (
                f"the question stands within {key}, and the answer elsewhere; write both as the "
                "messages of one conversation"
            )
    return None


_HOLDING = (
    "body", "request", "input", "inputs", "row", "example", "sample", "data", "record", "item",
    "conversation", "payload", "json", "kwargs", "params",
)  # fmt: skip


def _questions(fields: dict[str, Any]) -> list[str]:
    return [key for key in fields if plain(key) in (*_QUESTIONS, "messages")]


def _nearest(fields: dict[str, Any], *, half: bool) -> str | None:
    """The shape that the names of columns are nearest to, and how to become it."""
    by_name = {plain(key): key for key, value in fields.items() if says(value)}
    asked = next((by_name[name] for name in _QUESTIONS if name in by_name), None)
    said = next((by_name[name] for name in _ANSWERS if name in by_name), None)
    two = [key for name, key in by_name.items() if _TWO.fullmatch(name)]
    if len(two) == 2:
        return (
            f"nearest is a pair: write the better one of {two[0]} and {two[1]} as chosen, the "
            f"other as rejected, and {asked or 'what is asked'} as prompt"
        )
    if asked and said:
        renamed = [f"rename {asked} to prompt"] if asked != "prompt" else []
        renamed.append(f"{'' if renamed else 'rename '}{said} to completion")
        return f"nearest is prompt and completion: {', '.join(renamed)}"
    if said and half:
        return f"nearest is prompt and completion: {said} may be the completion; no key is a prompt"
    if asked and half:
        return f"nearest is prompt and completion: {asked} may be the prompt; no key is an answer"
    return None
