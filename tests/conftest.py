"""What several tests share: tokenizers, the recorded data beside the checkout, label stretches."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from axtune.account import Checked, Ledger
from axtune.audit import RowChecker
from axtune.readers import Row
from axtune.recipe import Task, data_options
from axtune.render import IGNORED, Sample
from axtune.tokenizer import AxTokenizer, load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = ROOT / "data_templates"

settings.register_profile(
    "axtune", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("axtune")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes longest, beside which another process does all the others."""
    items.sort(key=lambda item: item.path.name != "test_served.py")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded data beside the checkout; tests that need it are skipped without."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder} with the recorded data")
    return folder


@pytest.fixture(scope="session")
def real_checkpoint(
    shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Builds the folder of a real checkpoint without its weights, for layout ``4.0`` or ``3.1``."""
    built: dict[str, Path] = {}

    def build(layout: str) -> Path:
        if layout not in built:
            folder = tmp_path_factory.mktemp(f"ax-{layout}-light")
            source = shared / "ax-light"
            for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
                shutil.copyfile(source / name, folder / name)
            for kind in ("config", "generation_config"):
                file = source / f"{kind}-ax-{layout}-light.json"
                if file.is_file():
                    shutil.copyfile(file, folder / f"{kind}.json")
            built[layout] = folder
        return built[layout]

    return build


@pytest.fixture(scope="session", params=["4.0", "3.1"])
def real(request: pytest.FixtureRequest, real_checkpoint: Callable[[str], Path]) -> AxTokenizer:
    """The real tokenizer, as both real checkpoints carry it."""
    return load_tokenizer(str(real_checkpoint(request.param)))


@pytest.fixture(scope="session")
def tiny() -> AxTokenizer:
    """The tokenizer of the embedded model in Qwen2 layout."""
    return load_tokenizer("tiny-ax-4.0")


@pytest.fixture(scope="session")
def tiny_31() -> AxTokenizer:
    """The tokenizer of the embedded model in Llama layout."""
    return load_tokenizer("tiny-ax-3.1")


@pytest.fixture(scope="session", params=["4.0", "3.1"])
def either_tiny(
    request: pytest.FixtureRequest, tiny: AxTokenizer, tiny_31: AxTokenizer
) -> AxTokenizer:
    """Both embedded tokenizers in turn."""
    return tiny if request.param == "4.0" else tiny_31


def check_rows(
    tokenizer: AxTokenizer, rows: Iterable[Any], *, task: Task | None = None, **options: Any
) -> list[Checked]:
    """Check parsed rows as one file; the account has to add up, whatever the rows are."""
    data = data_options(["rows"], **{"max_length": 16_384, **options})
    checker = RowChecker(tokenizer, data, task)
    ledger = Ledger()
    checked = checker.check([Row("rows.jsonl", n, row) for n, row in enumerate(rows, 1)])
    for result in checked:
        assert result.refused == (not result.samples)
        ledger.add(result)
    account = ledger.account()
    assert account.rows_read == account.rows_used + account.rows_refused == len(checked)
    return checked


def codes(checked: Checked, severity: str = "error") -> list[str]:
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
