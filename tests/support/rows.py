"""Rows as tests write them, and what their checks found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.loader import data_options
from axtune.config.recipe import Task
from axtune.data.overlap_gate import overlap_gate
from axtune.data.pipeline import RowChecker
from axtune.data.rows import Row
from axtune.data.samples import IGNORED, Sample
from axtune.data.statistics import RowResult, StatsBuilder

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "data_templates"


def check_rows(
    tokenizer: AxTokenizer,
    rows: Iterable[Any],
    *,
    task: Task | None = None,
    with_turns: bool = False,
    **options: Any,
) -> list[RowResult]:
    """Check parsed rows as one file; the account has to add up, whatever the rows are."""
    data = data_options(["rows"], **{"max_length": 16_384, **options})
    overlaps = overlap_gate(data)
    checker = RowChecker(tokenizer, data, task, with_turns=with_turns, overlaps=overlaps)
    ledger = StatsBuilder()
    checked = checker.check([Row("rows.jsonl", n, row) for n, row in enumerate(rows, 1)])
    for result in checked:
        assert (result.refused or bool(result.dropped)) == (not result.samples)
        ledger.add(result)
    account = ledger.account()
    kept_out = account.rows_refused + sum(account.dropped.values())
    assert account.rows_read == account.rows_used + kept_out == len(checked)
    return checked


def codes(checked: RowResult, severity: str = "error") -> list[str]:
    """The codes of a row's faults."""
    return [fault.code for fault in checked.faults if fault.severity == severity]


def stretches(sample: Sample) -> list[tuple[int, int]]:
    """Where labelled stretches of a sample begin and end: one for each learned turn."""
    assert len(sample.input_ids) == len(sample.labels)
    found, begin = [], None
    for index, (token, label) in enumerate(zip(sample.input_ids, sample.labels, strict=True)):
        assert label in (token, IGNORED)
        if label != IGNORED and begin is None:
            begin = index
        elif label == IGNORED and begin is not None:
            found.append((begin, index))
            begin = None
    return [*found, (begin, len(sample.labels))] if begin is not None else found


def read_jsonl(path: Path) -> list[Any]:
    """Every line of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    """Rows as a JSONL file."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def chat(*turns: Any, **keys: Any) -> dict[str, Any]:
    """A chat row; a text is what the assistant says to a user or a result, else the user's."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        answers = bool(messages) and messages[-1].get("role") in ("user", "tool")
        role = "assistant" if answers else "user"
        messages.append(turn if isinstance(turn, dict) else {"role": role, "content": turn})
    return {"messages": messages, **keys}


def calls(*named: tuple[str, Any]) -> dict[str, Any]:
    """An assistant's message that only calls: names with their arguments, one after another."""
    items = [
        {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(named)
    ]
    return {"role": "assistant", "content": None, "tool_calls": items}


def tool(name: str, parameters: Any = None, **keys: Any) -> dict[str, Any]:
    """A tool in OpenAI's form."""
    function = {"name": name, "description": "설명", "parameters": parameters, **keys}
    return {"type": "function", "function": function}
