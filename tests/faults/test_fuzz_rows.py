"""Damaged rows and tokenizer files: refused in a sentence or answered, never a traceback."""

from __future__ import annotations

import copy
import os
import random
import shutil
from pathlib import Path

from support.fuzz import damaged_json, edited
from support.rows import TEMPLATES, read_jsonl
from support.tiny import checkpoint

from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.config.loader import data_options
from axtune.data.pipeline import RowChecker
from axtune.data.rows import Row
from axtune.errors import AxtuneError

CASES = int(os.environ.get("AXTUNE_FUZZ_CASES", "400"))

# What other tools write besides what the templates show.
FURTHER = [
    {"query": "재고는?", "answers": '[{"name": "f", "arguments": {"a": 1}}]',
     "tools": '[{"name": "f", "parameters": {"a": {"type": "int"}}}]'},
    {"system": "SYSTEM: 도우미 {}", "chat": "USER: 안녕?\n\n\nASSISTANT: 네. <|endoftext|>"},
    {"input": [{"role": "user", "content": "안녕?"}],
     "output": [{"type": "message", "role": "assistant",
                 "content": [{"type": "output_text", "text": "네."}]}]},
    {"chosen": "\n\nHuman: 안녕?\n\nAssistant: 네.",
     "rejected": "\n\nHuman: 안녕?\n\nAssistant: 몰라."},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "안녕?"}]},
                  {"role": "assistant", "content": [
                      {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}]}],
     "tools": [{"name": "f", "input_schema": {"type": "object"}}]},
    {"contents": [{"role": "user", "parts": [{"text": "안녕?"}]},
                  {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]}]},
    {"query": "안녕?", "response": "네.", "history": [["하나", "둘"]], "rejected_response": "몰라"},
]  # fmt: skip


def test_damaged_rows_are_faults_or_samples(tiny: AxTokenizer) -> None:
    files = sorted(TEMPLATES.glob("*.jsonl"))
    sound = [*FURTHER, *(row for file in files for row in read_jsonl(file)[:4])]
    checker = RowChecker(tiny, data_options(["rows"], max_length=4096), with_turns=True)
    refused = taken = 0
    for case in range(CASES):
        draw = random.Random(case)
        row = copy.deepcopy(draw.choice(sound))
        for _ in range(draw.randint(1, 4)):
            row = edited(row, draw)
        try:
            (checked,) = checker.check([Row("rows.jsonl", case, row)])
        except Exception as error:
            error.add_note(f"case {case}: {row!r}")
            raise
        assert checked.refused is not bool(checked.samples), f"case {case}: {row!r}"
        refused += checked.refused
        taken += not checked.refused
    print(f"{CASES} damaged rows: {refused} refused, {taken} taken, no traceback")
    assert refused
    assert taken


def test_damaged_tokenizer_files_are_a_sentence_or_a_tokenizer(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "base").folder
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    text = "비밀 57,600원은 어디에 있나요?"
    row = {
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "여기."}]
    }
    options = data_options(["rows"], max_length=256)
    refused = answered = 0
    for case in range(CASES // 4):
        draw = random.Random(case)
        file = folder / draw.choice(
            ("tokenizer_config.json", "tokenizer_config.json", "tokenizer.json")
        )
        sound = (whole / file.name).read_text(encoding="utf-8")
        file.write_bytes(damaged_json(sound, draw))
        try:
            found = load_tokenizer(str(folder), learning=draw.random() < 0.5)
            RowChecker(found, options).check([Row("rows.jsonl", 1, row)])
            answered += 1
        except AxtuneError:
            refused += 1
        except Exception as error:
            error.add_note(f"case {case}: {file.name}")
            raise
        finally:
            shutil.copyfile(whole / file.name, file)
    print(f"{CASES // 4} damaged files: {refused} refused, {answered} answered, no traceback")
    assert refused
    assert answered
