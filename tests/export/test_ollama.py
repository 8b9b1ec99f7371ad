"""Modelfiles: Ollama's template writes what the checkpoint's own writes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.rows import ROOT, calls

from axtune.checkpoint.tokenizer import AxTokenizer, Tool
from axtune.errors import CheckpointError
from axtune.export.ollama import go_template, modelfile


def test_a_modelfile_says_what_ollama_cannot_guess(either_tiny: AxTokenizer) -> None:
    lines = modelfile(either_tiny, "mine.gguf").splitlines()
    assert lines[0] == "FROM ./mine.gguf"
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert f"PARAMETER num_ctx {either_tiny.context}" in lines
    assert "PARAMETER repeat_penalty 1" in lines  # Ollama's own default is above 1
    text = modelfile(either_tiny, "mine.gguf").partition('TEMPLATE """')[2]
    assert text == f'{go_template(either_tiny)}"""\n'


def test_newer_ollamas_do_not_prefer_it_to_the_checkpoints_template(tiny: AxTokenizer) -> None:
    """They look for these words (server/images.go, goTemplateHasToolRoundTrip)."""
    assert '.Role "tool"' not in go_template(tiny)


def test_every_action_is_closed(either_tiny: AxTokenizer) -> None:
    actions = re.findall(r"{{ (.*?) }}", go_template(either_tiny))
    opened = [action for action in actions if action.split()[0] in ("if", "range")]
    assert actions.count("end") == len(opened) > 10


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'<|im_start|><|' + message.role", "loop.index ~ '<|im_start|><|' + message.role"),
        ("<tool_output>", '<tool_output>"""'),  # ends the text of a Modelfile
    ],
)
def test_a_template_that_is_not_turn_by_turn_is_refused(
    old: str, new: str, tiny: AxTokenizer
) -> None:
    assert old in tiny.chat_template
    edited = replace(tiny, chat_template=tiny.chat_template.replace(old, new))
    with pytest.raises(CheckpointError, match="turn by turn"):
        go_template(edited)


TOOLS: list[dict[str, Any]] = [
    {
        "name": "get_weather",
        "description": "도시의 날씨",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": '도시 이름, "서울" 같은'},
                "unit": {"type": "string", "enum": ["섭씨", "화씨"]},
            },
            "required": ["city", "unit"],
        },
    },
    {
        "name": "now",
        "description": "시각",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
    },
]
USER = {"role": "user", "content": "서울 날씨는? {{ .Role }} {"}
SYSTEM = {"role": "system", "content": "한빛 상담원"}
CALL = calls(("get_weather", {"city": "서울", "unit": "섭씨"}), ("now", {}))
RESULTS = [{"role": "tool", "content": '{"기온": 21}'}, {"role": "tool", "content": "12:00"}]
ANSWER = {"role": "assistant", "content": "21도입니다."}
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [USER],
    [SYSTEM, USER],
    [SYSTEM, USER, ANSWER, USER],
    [USER, CALL, *RESULTS],
    [SYSTEM, USER, {**CALL, "content": "잠시만요."}, *RESULTS, ANSWER, USER],
]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="Go's template engine is not here")
def test_ollama_writes_the_checkpoints_prompts(either_tiny: AxTokenizer, tmp_path: Path) -> None:
    """Go's own engine on the template, with Ollama's types."""
    requests, wanted = [], []
    for messages in CONVERSATIONS:
        for tools in (TOOLS, []):
            plain = [{**message, "content": message["content"] or ""} for message in messages]
            request = [{"type": "function", "function": tool} for tool in tools]
            requests.append(json.dumps({"messages": plain, "tools": request}))
            wanted.append(
                either_tiny.render(plain, list(map(Tool, tools)), add_generation_prompt=True)
            )
    (tmp_path / "template").write_text(go_template(either_tiny), encoding="utf-8")
    done = subprocess.run(
        ["go", "run", str(ROOT / "tests" / "ollama_template.go"), str(tmp_path / "template")],
        input="\n".join(requests),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == wanted
