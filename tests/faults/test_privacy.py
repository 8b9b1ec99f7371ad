"""What is in the data and in tokens of the environment is in nothing that is left or printed."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ENVIRONMENT, axtune_forked

pytestmark = pytest.mark.slow

ROW, SYSTEM, TOOL, BROKEN, TOKEN = (
    f"{word}갈매기" for word in ("행속", "시스템", "도구", "깨진", "토큰")
)
# As files may hold them: plain, and escaped as JSON does.
CANARIES = [
    form
    for text in (ROW, SYSTEM, TOOL, BROKEN)
    for form in (text.encode(), json.dumps(text).strip('"').encode())
] + [b"hf_Canary8842"]
SECRETS = dict.fromkeys(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"), "hf_Canary8842")


def write_data(folder: Path) -> Path:
    tool = {"name": "look", "description": TOOL, "parameters": {"type": "object"}}
    row = {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{ROW} 어디?"},
            {"role": "assistant", "content": f"{ROW} 여기."},
        ],
        "tools": [{"type": "function", "function": tool}],
    }
    broken = {"messages": [{"role": "user", "content": f"{BROKEN}<|im_end|>"}]}
    lines = [json.dumps(row, ensure_ascii=False)] * 4
    lines += [json.dumps(broken, ensure_ascii=False), f'{{"messages": "{BROKEN}', BROKEN]
    file = folder / "rows.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_no_canary_is_left_or_printed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rows, out = write_data(tmp_path / "in"), tmp_path / "out"
    pairs = tmp_path / "in" / "pairs.jsonl"
    answers = {"prompt": f"{ROW}?", "chosen": f"{ROW} 여기.", "rejected": f"{ROW} 몰라."}
    pairs.write_text(json.dumps(answers, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch = out / "scratch"
    scratch.mkdir(parents=True)
    run = out / "run"
    environment = SECRETS | {"TMPDIR": str(scratch), "XDG_CACHE_HOME": str(out / "cache")}
    jobs = [
        ["data", "check", str(rows), "--model", "tiny-ax-4.0"],
        ["train", "recipes/sft_lora.yaml", "model=tiny-ax-4.0", f"data.train={rows}",
         "data.eval=null", "data.on_error=skip", "training.max_steps=2", "lora.r=4",
         f"output_dir={run}"],
        ["train", "recipes/dpo_lora.yaml", "model=tiny-ax-4.0", f"data.train={pairs}",
         "data.eval=null", "training.max_steps=1", "lora.r=4", f"output_dir={out / 'dpo'}"],
        ["merge", str(run), "--out", str(out / "merged")],
        ["export", str(run), "--to", "vllm", "--out", str(out / "vllm")],
        ["verify", str(out / "merged"), "--data", str(rows)],
    ]  # fmt: skip
    printed = b""
    for words in jobs:
        done = axtune_forked(*words, **environment)
        assert done.status == (words[0] == "data"), done.said
        printed += done.said.encode("utf-8", "surrogateescape")
    assert not [form for form in CANARIES if form in printed]
    left = [file for file in out.rglob("*") if file.is_file()]
    assert len(left) > 50
    print(f"{len(left)} files and {sum(f.stat().st_size for f in left):,} bytes searched")
    for file in left:
        data = file.read_bytes()
        assert not [form for form in CANARIES if form in data], file
    assert not list(scratch.glob("*axtune*"))
    private = (run, out / "dpo", out / "cache" / "axtune")
    assert list((out / "cache" / "axtune").rglob("*.safetensors"))
    for path in (entry for place in private for entry in (place, *place.rglob("*"))):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    (out / "scratch" / "axtune-scratch-0123456789abcdef").mkdir()
    assert "0123456789abcdef: removed" in axtune_forked("clean", str(run), **environment).out


NUMBERS = ("010-8842-1177", "0108842-1177", "1088421177", "8842", "M73915526", "73915526")


def test_no_masked_number_is_left_or_printed(tmp_path: Path) -> None:
    """The gate's numbers are in no folder that a run leaves, and in nothing that it prints."""
    (tmp_path / "in").mkdir()
    rows, out = tmp_path / "in" / "rows.jsonl", tmp_path / "out"
    row = {
        "messages": [
            {"role": "user", "content": "제 번호는 010-8842-1177, 여권번호는 M73915526이에요."},
            {"role": "assistant", "content": "010-8842-1177로 연락드릴게요."},
        ]
    }
    rows.write_text((json.dumps(row, ensure_ascii=False) + "\n") * 4, encoding="utf-8")
    (out / "scratch").mkdir(parents=True)
    common = ["train", "recipes/sft_lora.yaml", "model=tiny-ax-4.0", f"data.train={rows}",
              "data.eval=null", "training.max_steps=1", "lora.r=4"]  # fmt: skip
    places = {"TMPDIR": str(out / "scratch"), "XDG_CACHE_HOME": str(out / "cache")}
    masked = axtune_forked(*common, "data.privacy=mask", f"output_dir={out / 'run'}", **places)
    assert masked.status == 0, masked.err
    refused = axtune_forked(*common, "data.privacy=refuse", f"output_dir={out / 'other'}", **places)
    assert refused.status == 1
    assert f"{rows}:1: personal-data: it holds personal data (passport 1, telephone 2)" in (
        refused.err
    )
    manifest = json.loads((out / "run" / "manifest.json").read_text("utf-8"))
    found = manifest["data"]["train"]["personal_data"]
    assert found == {"telephone": 8, "passport": 4}
    assert "Personal data" in (out / "run" / "report.html").read_text("utf-8")
    printed = masked.said + refused.said
    assert not [number for number in NUMBERS if number in printed]
    for file in (one for one in out.rglob("*") if one.is_file() and one.suffix != ".safetensors"):
        data = file.read_bytes()
        whole = [number for number in NUMBERS if len(number) > 4]
        assert not [number for number in whole if number.encode() in data], file


# As a run is killed while it trains: its prepared rows lie in its scratch folder.
_KILLED = """
import os, signal
from axtune.checkpoint.leftovers import scratch
with scratch() as folder:
    (folder / "rows").write_text("갈매기")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_prepared_is_cleaned(tmp_path: Path) -> None:
    environment = {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", _KILLED]
    killed = subprocess.run(command, env=ENVIRONMENT | environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [file.name for file in tmp_path.glob("axtune*/*")] == ["rows"]
    done = axtune_forked("clean", **environment)
    assert done.status == 0, done.err
    assert not list(tmp_path.glob("axtune*"))
