"""Recorded conversations become preference pairs, for tests and benchmarks.

    python scripts/make_pairs.py serve_prompts.jsonl pairs.jsonl

Each assistant turn of each conversation gives one pair: chosen is what was recorded, rejected is
wrong in a way that models are wrong in. Which way goes in turn, and no chance is involved, so that
the same conversations always give the same pairs.

- ``wrong_tool``: another tool of the row is called.
- ``wrong_argument``: one argument of the call has another value of the same kind, or one is made up
  where the call has none.
- ``guess``: the turn asks back or declines, and the pair calls a tool with made-up arguments.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_WORD = re.compile(r"[\w.@:/-]+")
_UNKNOWN = "미정"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("conversations", type=Path, help="JSONL with messages and tools")
    parser.add_argument("out", type=Path, help="JSONL to write: prompt, chosen, rejected, tools")
    options = parser.parse_args()
    lines = options.conversations.read_text(encoding="utf-8").splitlines()
    pairs = list(make_pairs(json.loads(line) for line in lines if line.strip()))
    text = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    options.out.write_text(text, encoding="utf-8")
    kinds = [pair["kind"] for pair in pairs]
    counts = ", ".join(f"{kind} {kinds.count(kind)}" for kind in sorted(set(kinds)))
    print(f"{options.out}: {len(pairs)} pairs ({counts})")


def make_pairs(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Preference rows from conversations with tools.

    Args:
        rows: With ``messages`` and ``tools`` in OpenAI's form, optionally an ``id``.

    Yields:
        Rows with ``prompt``, ``chosen``, ``rejected`` (messages), ``tools``, ``kind`` (above),
        ``turn`` (the index of the assistant's message) and ``id``. Turns of rows without tools are
        left out.
    """
    number = 0
    for row in rows:
        tools = row.get("tools") or []
        for turn, message in enumerate(row["messages"]):
            if message["role"] != "assistant" or not tools:
                continue
            prompt = row["messages"][:turn]
            kind, rejected = _reject(prompt, message, tools, number)
            number += 1
            yield {
                "id": f"{row.get('id', '')}:{turn}",
                "kind": kind,
                "turn": turn,
                "prompt": prompt,
                "chosen": [message],
                "rejected": [rejected],
                "tools": tools,
            }


def _reject(
    prompt: list[dict[str, Any]], message: dict[str, Any], tools: list[dict[str, Any]], number: int
) -> tuple[str, dict[str, Any]]:
    """The kind of a wrong answer, and the answer."""
    functions = [tool["function"] for tool in tools]
    said = [m["content"] or "" for m in prompt if m["role"] == "user"]
    words = _WORD.findall(" ".join(said))
    if not message.get("tool_calls"):
        topic = " ".join([*said, message["content"]])
        function = max(functions, key=lambda f: _overlap(topic, json.dumps(f, ensure_ascii=False)))
        return "guess", _call(function["name"], _guess(function, words))
    call = message["tool_calls"][0]["function"]
    arguments = json.loads(call["arguments"])
    others = [function for function in functions if function["name"] != call["name"]]
    if others and number % 2:
        function = others[number // 2 % len(others)]
        return "wrong_tool", _call(function["name"], _guess(function, words))
    if not arguments:
        return "wrong_argument", _call(call["name"], {"query": words[0] if words else _UNKNOWN})
    key = list(arguments)[number // 2 % len(arguments)]
    wrong = {**arguments, key: _other(arguments[key], words)}
    return "wrong_argument", _call(call["name"], wrong)


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    call = {"id": "call_1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _guess(function: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """Arguments for all that a function requires, out of the user's words."""
    parameters = function.get("parameters") or {}
    guessed: dict[str, Any] = {}
    for number, key in enumerate(parameters.get("required") or []):
        schema = (parameters.get("properties") or {}).get(key) or {}
        word = words[number % len(words)] if words else _UNKNOWN
        by_type = {"integer": number + 1, "number": number + 1, "boolean": True}
        by_type |= {"array": [word], "object": {}}
        guessed[key] = (schema.get("enum") or [by_type.get(schema.get("type"), word)])[0]
    return guessed


def _other(value: Any, words: list[str]) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return next((word for word in words if word not in value), _UNKNOWN)
    if isinstance(value, list):
        return value[1:] or [_UNKNOWN]
    return {}


def _overlap(one: str, two: str) -> int:
    """How many pairs of neighbouring letters two texts share."""
    pairs = ({text[i : i + 2] for i in range(len(text) - 1)} for text in (one, two))
    first, second = pairs
    return len(first & second)


if __name__ == "__main__":
    main()
