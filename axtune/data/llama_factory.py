"""What LLaMA-Factory's ``dataset_info.json`` says of a data file, and its rows do not say.

It maps columns and tags to their meaning. axtune takes a key by its name, so that a mapping which
says the same is fine, and another one has to be told of: its rows would be read as something else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from axtune.data.messages import known_role
from axtune.data.prompts import ANSWERS, CONVERSATIONS, QUESTIONS, SYSTEMS

DATASET_INFO = "dataset_info.json"
# Under which names axtune reads what LLaMA-Factory calls so.
_COLUMNS = {
    "prompt": ("instruction", *QUESTIONS),
    "query": ("input",),
    "response": ("output", *ANSWERS),
    "system": SYSTEMS,
    "messages": ("messages", *CONVERSATIONS),
    "tools": ("tools", "functions"),
    "kto_tag": ("kto_tag", "label"),
}
_TAGS = {"role_tag": ("role", "from"), "content_tag": ("content", "value")}
_ROLES = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "tool_call",
    "system_tag": "system",
}


def unread_mapping(file: Path) -> list[str]:
    """What a ``dataset_info.json`` beside a data file means by its keys and axtune does not.

    Args:
        file: The data file.

    Returns:
        Each as ``prompt: title``; none where there is no such file, or it says nothing else.
    """
    out: list[str] = []
    for entry in _entries(file):
        columns, tags = (
            said if isinstance(said := entry.get(key), dict) else {} for key in ("columns", "tags")
        )
        named = {key: name for key, name in (columns | tags).items() if isinstance(name, str)}
        out += [f"{key}: {name}" for key, name in named.items() if not _is_read(key, name)]
        if entry.get("num_samples"):
            out.append(f"num_samples: {entry['num_samples']}")
    return out


def _is_read(key: str, name: str) -> bool:
    if key in _ROLES:
        return known_role(name) == _ROLES[key]
    return name in (_COLUMNS | _TAGS).get(key, (key,))


def _entries(file: Path) -> list[dict[str, Any]]:
    """What the file beside says of a data file; nothing when it is not LLaMA-Factory's."""
    try:
        said = json.loads((file.parent / DATASET_INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    entries = said.values() if isinstance(said, dict) else ()
    return [e for e in entries if isinstance(e, dict) and e.get("file_name") == file.name]
