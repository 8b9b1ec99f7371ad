"""Damage to JSON files and safetensors headers, drawn at random."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 10**6, 10**12, 10**30, -(10**30), 2**31, 2**63, 0.5, -0.0,
    1e308, float("nan"), float("inf"), float("-inf"), "", "x", "0", "NaN", "../x", "/etc/passwd",
    "a" * 5000, "\0", "\ud800", "가나다", "(", "(.*.*)+x", "**", "*", ".", "model.safetensors",
    "LORA", "llama", "qwen2", "bfloat16", "float99", [], {}, [None], [0], [-1], [10**12], ["x"],
    [[]], [{}], {"": None}, {"a": {"b": {"c": []}}}, {"q_proj": 0}, {"q_proj": "x"}, {"(": 1},
    {"rope_type": "yarn"}, {"rope_type": []}, {"auto_map": {"a": "b"}},
)  # fmt: skip


def damaged_json(text: str, draw: random.Random) -> bytes:
    """A JSON file after one to four edits of its values, or with its bytes damaged."""
    if draw.random() < 0.2:
        return damaged_bytes(text.encode(), draw)
    value = json.loads(text)
    for _ in range(draw.randint(1, 4)):
        value = edited(value, draw)
    try:
        return json.dumps(value, ensure_ascii=draw.random() < 0.5).encode(errors="surrogatepass")
    except RecursionError:
        return b"[" * 100_000


def damaged_bytes(raw: bytes, draw: random.Random) -> bytes:
    """Cut short, with bytes changed, put in, or repeated."""
    place = draw.randrange(len(raw) + 1)
    match draw.randrange(6):
        case 0:
            return raw[:place]
        case 1:
            return raw[:place] + draw.randbytes(draw.randint(1, 8)) + raw[place:]
        case 2:
            return raw[:place] + draw.randbytes(1) + raw[place + 1 :]
        case 3:
            return raw[:place] + draw.choice((b"[", b"{", b'"', b",", b"9" * 5000)) + raw[place:]
        case 4:
            return draw.choice((b"[", b'{"a":')) * draw.choice((1, 100, 50_000))
        case _:
            return raw + raw[place:]


def damaged_header(raw: bytes, draw: random.Random) -> bytes:
    """A safetensors file whose header, its length, or whose bytes are damaged."""
    if draw.random() < 0.1:
        return damaged_bytes(raw, draw)
    end = 8 + int.from_bytes(raw[:8], "little")
    text = damaged_json(raw[8:end].decode(), draw)
    length = len(text)
    if draw.random() < 0.1:
        length = draw.choice((0, 1, length + 1, length - 1, 2**31, 2**63, 2**64 - 1))
    return (max(length, 0)).to_bytes(8, "little") + text + raw[end:]


def edited(value: Any, draw: random.Random) -> Any:
    """One value of a JSON document replaced, taken out, put in or moved."""
    places = list(_places(value))
    if not places:
        return copy.deepcopy(draw.choice(STRANGE))
    holder, key = draw.choice(places)
    match draw.randrange(7):
        case 0 | 1 | 2:
            holder[key] = copy.deepcopy(draw.choice(STRANGE))
        case 3:
            del holder[key]
        case 4:
            holder[key] = draw.choice((str, repr, lambda it: [it], lambda it: {"x": it}))(
                holder[key]
            )
        case 5:
            other, name = draw.choice(places)
            if name in other if isinstance(other, dict) else name < len(other):
                holder[key] = copy.deepcopy(other[name])
        case _:
            if isinstance(holder, dict):
                holder[draw.choice(("", "x", "r", "use_x", "shape", "\ud800"))] = draw.choice(
                    STRANGE
                )
            else:
                holder.append(copy.deepcopy(draw.choice(STRANGE)))
    return value


def _places(value: Any) -> Any:
    """Every value in a document, by what holds it and its key there."""
    if not isinstance(value, (dict, list)):
        return
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])
