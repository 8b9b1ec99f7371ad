"""The card of an adapter: its example runs as it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support.adapters import adapter_for
from support.tiny import LIBRARY_WARNINGS, recipe

from axtune.checkpoint import locate
from axtune.checkpoint.model_card import model_card
from axtune.checkpoint.run_dir import describe

pytestmark = LIBRARY_WARNINGS


def manifest(folder: Path, model: str = "tiny-ax-4.0", **more: Any) -> dict[str, Any]:
    found = locate.find(model)
    made = describe(recipe(folder, model=model), found, {"counts": {"samples": 3}})
    return {**made, "metrics": {"last_loss": 0.5, "best_step": 1}, **more}


def test_it_says_what_was_trained_on_what(tmp_path: Path) -> None:
    card = model_card(manifest(tmp_path), Path("runs/a/adapter"))
    assert "# LoRA adapter for tiny-ax-4.0" in card
    assert "- last_loss: 0.5000" in card
    assert "best_step" not in card


def test_only_a_model_of_the_hub_is_linked_as_its_base(tmp_path: Path) -> None:
    made = manifest(tmp_path)
    head = YAML(typ="safe").load(model_card(made, Path("a")).split("---")[1])
    assert head == {"library_name": "peft", "tags": ["axtune", "lora", "sft"]}
    made["base"] |= {"name": "skt/A.X-4.0-Light", "commit": "0" * 40}
    head = YAML(typ="safe").load(model_card(made, Path("a")).split("---")[1])
    assert head["base_model"] == "skt/A.X-4.0-Light"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embedded", "folder"])
def test_its_example_runs_as_it_stands(tmp_path: Path, kind: str) -> None:
    model = "tiny-ax-4.0"
    if kind == "folder":
        shutil.copytree(locate.find(model).folder, tmp_path / "models" / "우리 모델")
        model = "models/우리 모델"
    place = "" if kind == "embedded" else str(tmp_path) + "/"
    card = model_card(manifest(tmp_path, place + model), tmp_path / "runs" / "a" / "adapter")
    adapter_for(locate.find(place + model), tmp_path / "runs" / "a" / "adapter")
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = f"{example}print(type(model).__name__)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.startswith("PeftModel")
