"""`axtune verify` and `axtune doctor`: tables or JSON, and exit 1 on a failure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.commands import axtune_in_process
from support.rows import chat, write_jsonl
from support.tiny import LIBRARY_WARNINGS, checkpoint
from transformers import AutoTokenizer

from axtune.checkpoint.locate import Checkpoint
from axtune.verify.certificate import Certificate

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def damaged(base: Checkpoint, tmp_path: Path) -> Path:
    """A checkpoint with the tokenizer that transformers leaves of it."""
    folder = Path(shutil.copytree(base.folder, tmp_path / "damaged"))
    AutoTokenizer.from_pretrained(base.folder).save_pretrained(folder)
    return folder


def test_doctor_exits_1_on_a_failure_and_repairs_it(
    base: Checkpoint, damaged: Path, tmp_path: Path
) -> None:
    assert axtune_in_process("doctor", str(base.folder)).status == 0
    table = axtune_in_process("doctor", str(damaged))
    assert table.status == 1
    assert "cuts text" in table.out
    checks = json.loads(axtune_in_process("doctor", str(damaged), "--json").out)
    assert [check["name"] for check in checks if check["status"] == "fail"] == ["cuts text"]
    sound = tmp_path / "sound"
    repaired = axtune_in_process(
        "doctor", str(damaged), "--base", str(base.folder), "--repair", str(sound)
    )
    assert repaired.status == 0
    assert f"{sound}: the same weights, with the base's own tokenizer" in repaired.out


def test_verify_exits_1_on_a_failure(base: Checkpoint, damaged: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [chat("질문", "답")])
    words = ["--against", str(base.folder), "--data", str(rows), "--json"]
    sound = axtune_in_process("verify", str(base.folder), *words)
    assert sound.status == 0
    assert json.loads(sound.out)["passed"]
    failed = axtune_in_process("verify", str(damaged), *words)
    assert failed.status == 1
    assert not json.loads(failed.out)["passed"]


@pytest.mark.parametrize(
    ("words", "url"),
    [
        ([], None),
        (["--vllm"], "start"),
        (["--vllm", "--json"], "start"),
        (["--vllm", "http://localhost:8000"], "http://localhost:8000"),
        (["--vllm=https://example.com/v1"], "https://example.com/v1"),
    ],
)
@pytest.mark.parametrize("folder_first", [True, False])
def test_vllm_takes_a_url_or_no_value(
    monkeypatch: pytest.MonkeyPatch, words: list[str], url: str | None, folder_first: bool
) -> None:
    asked: list[tuple[str, Any]] = []

    def verify(folder: str, *, vllm: str | None, **_: Any) -> Certificate:
        asked.append((folder, vllm))
        raise SystemExit(0)

    monkeypatch.setattr("axtune.verify.verify.verify", verify)
    axtune_in_process("verify", *(["folder", *words] if folder_first else [*words, "folder"]))
    assert asked == [("folder", url)]


def test_verify_judges_an_export_in_4_bit_by_what_is_asked(
    base: Checkpoint, tmp_path: Path
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [chat("질문", "답"), chat("둘째 질문", "둘째 답")])
    out = str(tmp_path / "out")
    made = axtune_in_process("export", str(base.folder), "--to", "vllm", "--bits", "4", "--fast",
                             "--out", out)  # fmt: skip
    assert made.status == 0, made.err
    words = ["verify", out, "--against", str(base.folder), "--data", str(rows), "--json"]
    passed = axtune_in_process(*words, "--max-kl", "5", "--min-agreement", "0.5")
    assert passed.status == 0, passed.out
    checks = {check["name"]: check for check in json.loads(passed.out)["checks"]
              if check["part"] == "4 bit"}  # fmt: skip
    assert checks["16-bit base"]["figures"]["kl_nats"] > 0
    assert checks["answers"]["figures"]["questions"] == 2
    assert axtune_in_process(*words, "--max-kl", "0").status == 1
