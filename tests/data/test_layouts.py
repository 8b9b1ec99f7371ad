"""What is wrong with a whole file is said once, with its cause."""

from __future__ import annotations

import json

import pytest

from axtune.data.layouts import is_list, wrong_header, wrong_layout

ROW = '{"instruction": "명함은?", "output": "포털입니다."}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ROW, ""),
        (f"{ROW}\n{ROW}", ""),
        ('{"messages": [', ""),
        (f'{{"version": "1", "data": [{ROW}]}}', "under data"),
        (json.dumps({"version": "1", "data": [json.loads(ROW)]}, indent=1), "under data"),
        ('{"a": {"0": "x"}, "b": {"0": "y"}}', "column by column"),
        ('{"a": ["x", "y"], "b": ["z", "w"]}', "column by column"),
        ('{"columns": ["a"], "index": [0], "data": [["x"]]}', "split"),
        (f"{ROW},\n{ROW}", "comma"),
        ("{'a': 'x'}\n", "Python"),
        (json.dumps(ROW), "twice"),
        ('{\n"a": 1\n}\n{\n"a": 2\n}', "several lines"),
        (f'{{"messages": [\n{ROW}', ""),
        ("version https://git-lfs.github.com/spec/v1", "LFS"),
        ("<!DOCTYPE html>", "web page"),
    ],
)
def test_the_cause_of_a_wrong_layout(text: str, said: str) -> None:
    found = wrong_layout(text.encode(), ".jsonl")
    if said and not text.startswith('{"messages'):
        assert found is not None
        assert said in found.problem.message
        assert "명함" not in found.problem.message
    elif found:
        assert text == '{"messages": ['


def test_a_list_in_jsonl_is_told_from_lines_of_lists() -> None:
    assert is_list(f"[{ROW}]".encode(), ".jsonl")
    assert is_list(f"[\n{ROW}\n]".encode(), ".jsonl")
    assert not is_list(f"[{ROW}]\n[{ROW}]".encode(), ".jsonl")
    assert not is_list(ROW.encode(), ".json")


def test_headers() -> None:
    assert wrong_header(["instruction", "output", "", ""], ",") == ""
    assert "semicolons" in wrong_header(["instruction;output"], ",")
    assert "capitals" in wrong_header(["Instruction", " output"], ",")
    assert "same name" in wrong_header(["a", "a"], ",")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [{"role": "user"}], "completion": [{"role": "assistant"}]},
        {"prompt": [{"from": "human"}, {"a": 1}], "chosen": [{"a": 1}, {"b": 1}]},
        {
            "contents": [{"role": "user"}, {"role": "model"}],
            "tools": [{"name": "f"}, {"name": "g"}],
        },
        {"prompt": ["명함은?"], "response": ["포털입니다."]},
        {"conversation": ["명함은?", "포털입니다."]},
        {"a": ["x", "y"], "b": ["x"]},
    ],
)
def test_one_row_of_lists_is_no_table(row: dict[str, object]) -> None:
    assert wrong_layout(json.dumps(row).encode(), ".jsonl") is None
