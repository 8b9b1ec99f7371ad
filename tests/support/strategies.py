"""Hypothesis strategies: JSON values, and rows that look like rows and are mostly wrong."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

SECRET = "비밀XYZZY"  # stands in every text of a wild row, and must stand in no message

texts = st.text(max_size=12)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
arguments = st.dictionaries(texts, json_values, max_size=4)

_surrogates = st.text(st.characters(min_codepoint=0xD7FF, max_codepoint=0xE000), max_size=2)
_pieces = st.sampled_from(
    [
        "",
        " ",
        "네",
        "<|im_end|>",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "\n",
        "각",
        '<tool_call>{"name": "f", "arguments": {}}</tool_call>',
        "<tool_call>{'name': 'f'}</tool_call>",
        "<tool_response>1</tool_response>",
        '<tools>[{"name": "f"}]</tools>',
        "<tools>\n{}\n</tools>",
        "\x00",
        "\x1b",
        "\ufeff",
    ]
)
wild_texts = st.builds(
    lambda *parts: SECRET + "".join(parts), _pieces, texts, _pieces, _surrogates | _pieces
)
_junk = st.recursive(
    _scalars | wild_texts | st.just(float("nan")) | st.just(float("inf")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(wild_texts, inner, max_size=3),
    max_leaves=5,
)


def _as_text(value: Any) -> str:
    return json.dumps(value, default=repr)


def _mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Something of the right form, seven times of eight."""
    return st.integers(0, 7).flatmap(lambda n: good if n else _junk)


def _some(needed: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(needed, optional=optional)


_arguments = st.dictionaries(wild_texts, _junk, max_size=3)
_calls = st.lists(
    _mostly(
        _some(
            {
                "function": _mostly(
                    _some(
                        {"name": _mostly(st.sampled_from(["f", "g", "f\n"]))},
                        {"arguments": _mostly(_arguments | _arguments.map(_as_text))},
                    )
                )
            },
            {"type": _mostly(st.just("function")), "id": _junk},
        )
    ),
    max_size=2,
)
_contents = _mostly(
    wild_texts
    | st.none()
    | st.lists(_mostly(_some({"type": st.just("text"), "text": wild_texts}, {})), max_size=2)
)
_roles = ["system", "developer", "user", "assistant", "assistant", "tool"]
_messages = st.lists(
    _mostly(
        _some(
            {"role": _mostly(st.sampled_from(_roles)), "content": _contents},
            {
                "tool_calls": _mostly(_calls),
                "weight": _mostly(st.sampled_from([0, 1])),
                "reasoning_content": _junk,
            },
        )
    ),
    max_size=5,
)
_tools = st.lists(
    _mostly(
        _some(
            {"name": _mostly(st.sampled_from(["f", "g"]))},
            {
                "parameters": _mostly(
                    st.sampled_from([{}, {"type": "object", "required": ["a"]}, {"$ref": "#/x"}])
                ),
                "strict": _junk,
                "description": _mostly(wild_texts),
            },
        )
    ),
    max_size=2,
)
_either = _tools | _tools.map(_as_text)
_turns = st.lists(
    _mostly(
        _some(
            {
                "from": _mostly(
                    st.sampled_from(["system", "human", "gpt", "function_call", "observation"])
                ),
                "value": _contents,
            },
            {},
        )
    ),
    max_size=4,
)
wild_rows = (
    _junk
    | _some({"messages": _mostly(_messages | _messages.map(_as_text))}, {"tools": _mostly(_either)})
    | _some({"conversations": _mostly(_turns)}, {"tools": _mostly(_either), "system": _contents})
    | _some(
        {"instruction": _contents, "output": _contents},
        {"input": _contents, "system": _contents, "history": _mostly(st.lists(_contents))},
    )
    | _some({"prompt": _mostly(_messages) | wild_texts, "completion": _messages | wild_texts}, {})
)
_flags = st.sampled_from([0, 1, True, False, -100, "false", [0, 1], None]) | _junk
# What rows and turns say besides, in the names of many tools.
_beside_rows = st.dictionaries(
    st.sampled_from(
        [
            *("weight", "loss_mask", "train_on_turns", "mask", "mask_history", "skip", "metadata"),
            *("context", "passages", "table", "choices", "options", "A", "B", "answerKey"),
            *("preference", "margin", "chosen_rating", "rejected_rating", "is_correct"),
            *("incorrect_answers", "finish_reason", "status", "toolConfig", "available_tools"),
        ]
    ),
    _flags | st.dictionaries(st.sampled_from(["weight", "split", "tools", "A", "B"]), _flags),
    max_size=4,
)
wild_documents = st.builds(
    lambda row, beside: row | beside,
    _some(
        {"text": _mostly(wild_texts)},
        {"meta": _mostly(_some({"source": wild_texts}, {"pages": _junk, "split": _junk}))},
    ),
    st.dictionaries(st.sampled_from(["id", "label", "weight", "turns"]) | wild_texts, _flags)
    | _beside_rows,
)


def with_columns(rows: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Rows with columns that mean something in some tool."""
    return st.builds(lambda row, b: row | b if isinstance(row, dict) else row, rows, _beside_rows)


_tame_texts = st.sampled_from(["네", "아니요", "<think>음</think>네", "각 1,000원"]).map(
    SECRET.__add__
)
_asked = _tame_texts.map(lambda text: {"role": "user", "content": text})
_said = _tame_texts.map(lambda text: {"role": "assistant", "content": text})
_tame = _said | _tame_texts | st.tuples(_said, _asked, _said).map(list) | _said.map(lambda m: [m])
_answers = _tame | _tame | wild_texts | st.just("") | _messages | _messages.map(_as_text) | _turns
_beside = {"tools": _mostly(_either), "system": _contents}
wild_preferences = (
    _some({"prompt": _mostly(_tame_texts), "chosen": _tame, "rejected": _tame}, _beside)
    | _some(
        {"chosen": _mostly(_answers), "rejected": _mostly(_answers)},
        {
            **_beside,
            "prompt": _mostly(_messages) | wild_texts | _asked.map(lambda m: [m]) | _tame_texts,
            "question": _mostly(wild_texts),
            "messages": _mostly(_messages),
            "conversations": _mostly(_turns),
            "instruction": _contents,
        },
    )
    | _some(
        {"preferred_output": _mostly(_answers), "non_preferred_output": _mostly(_answers)},
        {"input": _mostly(_some({"messages": _messages}, {"tools": _either}))},
    )
    | _some(
        {
            "prompt": _mostly(_messages) | wild_texts | _tame_texts,
            "completion": _mostly(_answers),
            "label": _mostly(st.booleans() | st.sampled_from(["true", "False"])),
        },
        _beside,
    )
    | _some({"kto_tag": _mostly(st.booleans()), "conversations": _mostly(_turns)}, _beside)
    | _some({"kto_tag": _mostly(st.booleans()), "messages": _mostly(_messages)}, _beside)
)
