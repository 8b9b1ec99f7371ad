"""A mapping of columns that is not read is said; one that says what is read anyway is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from axtune.config.recipe import Source
from axtune.data.llama_factory import unread_mapping
from axtune.data.sources import unread_files


def entry(folder: Path, said: Any) -> Path:
    """A data file that a ``dataset_info.json`` says something of."""
    file = folder / "rows.jsonl"
    file.touch()
    info = {"other": {"file_name": "other.jsonl", "columns": {"prompt": "x"}}, "my": said}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("said", "unread"),
    [
        (
            {"columns": {"prompt": "output", "response": "instruction"}},
            ["prompt: output", "response: instruction"],
        ),
        ({"columns": {"prompt": "title", "query": "input"}}, ["prompt: title"]),
        ({"columns": {"messages": "dialog"}}, ["messages: dialog"]),
        ({"columns": {"history": "past"}}, ["history: past"]),
        ({"tags": {"role_tag": "who", "user_tag": "고객"}}, ["role_tag: who", "user_tag: 고객"]),
        ({"tags": {"user_tag": "gpt"}}, ["user_tag: gpt"]),
        ({"num_samples": 100}, ["num_samples: 100"]),
    ],
)
def test_what_a_mapping_says_otherwise(tmp_path: Path, said: Any, unread: list[str]) -> None:
    file = entry(tmp_path, {"file_name": "rows.jsonl", **said})
    assert unread_mapping(file)[: len(unread)] == unread
    (fault,) = unread_files(Source(path=str(file)))
    assert (fault.file, fault.code, fault.severity) == (str(file), "unread-mapping", "warning")
    assert unread[0] in fault.message


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"columns": {"prompt": "instruction", "query": "input", "response": "output"}},
        {"columns": {"prompt": "question", "response": "answer", "system": "system_prompt"}},
        {"columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}},
        {
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "tools": "tools", "images": "images"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "observation_tag": "tool",
                "function_tag": "function_call",
                "system_tag": "system",
            },
        },
        {"columns": 3, "tags": ["x"]},
    ],
)
def test_what_is_read_anyway(tmp_path: Path, said: dict[str, Any]) -> None:
    file = entry(tmp_path, {"file_name": "rows.jsonl", **said})
    assert unread_mapping(file) == []
    assert unread_files(Source(path=str(tmp_path))) == []


@pytest.mark.parametrize("text", ["", "[]", '{"features": {}}', "{", '{"my": 3}', "\ufeff{}"])
def test_a_file_of_something_else_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset_info.json").write_text(text, encoding="utf-8")
    assert unread_mapping(tmp_path / "rows.jsonl") == []
