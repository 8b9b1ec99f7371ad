"""The sections that pass to a library: its own names, of their own types."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import pytest

from axtune.config.objective import OBJECTIVES
from axtune.config.passthrough import check_passed, nearest, passed_names


def test_passed_names_are_the_libraries_own() -> None:
    from dataclasses import fields

    from peft import LoraConfig

    lora = {f.name for f in fields(LoraConfig) if f.init and not f.name.startswith("_")}
    assert lora - {"auto_mapping", "peft_version"} <= set(passed_names("lora"))  # PEFT sets these
    for task, objective in OBJECTIVES.items():
        config = objective.config
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*trl.experimental.*")
            module = importlib.import_module(config[0])
        known = fields(getattr(module, config[1]))
        names = {f.name for f in known if f.init and not f.name.startswith("_")}
        assert set(passed_names("training", config)) == names, task
    assert "bnb_4bit_quant_type" in passed_names("quantization")


@pytest.mark.parametrize(
    ("section", "given", "task", "code", "said"),
    [
        ("lora", {"lora_alhpa": 8}, "sft", "unknown-key", "did you mean lora_alpha?"),
        ("lora", {"task_type": "CAUSAL_LM"}, "sft", "not-here", "always CAUSAL_LM"),
        ("lora", {"r": "eight"}, "sft", "bad-value", "expected int."),
        ("lora", {"r": True}, "sft", "bad-value", "expected int."),
        ("lora", {"target_modules": [object()]}, "sft", "bad-value", "expected strings"),
        ("quantization", {"load_in_8bit": True}, "sft", "not-here", "load_in_4bit"),
        ("training", {"beta": 0.1}, "sft", "unknown-key", "no such key"),
        ("training", {"max_length": 64}, "sft", "not-here", "data.max_length"),
    ],
)
def test_what_a_library_does_not_take(
    section: str, given: dict[str, Any], task: str, code: str, said: str
) -> None:
    ((key, found, message),) = check_passed(section, given, task)
    assert [key] == list(given)
    assert found == code
    assert said in message


@pytest.mark.parametrize(
    ("section", "given", "task"),
    [
        ("lora", {"r": 8, "use_dora": True, "target_modules": ["q_proj"]}, "sft"),
        ("training", {"learning_rate": 1, "max_steps": 3, "optim": "adamw_torch"}, "sft"),
        ("training", {"beta": 0.1}, "dpo"),
        ("training", {"desirable_weight": 1.5}, "kto"),
        ("training", {"beta": 0.1}, "no-task-at-all"),  # then any task's name will do
        ("quantization", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "sft"),
    ],
)
def test_what_a_library_takes(section: str, given: dict[str, Any], task: str) -> None:
    assert list(check_passed(section, given, task)) == []


def test_a_name_like_no_other_gets_the_whole_list() -> None:
    assert nearest("zzz", ["beta", "alpha"]) == "no such key; known: alpha, beta."
