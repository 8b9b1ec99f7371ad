"""What makes a run the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny import recipe

from axtune.checkpoint.identity import changes, fork_facts, identity, recipe_facts


def known_by(folder: Path, **changed: Any) -> dict[str, dict[str, Any]]:
    facts: dict[str, Any] = {
        "precision": "fp32",
        "batch": 4,
        "processes": 1,
        "rows": {"a": "1"},
        "base": {"b": "2"},
    }
    facts |= {key: changed.pop(key) for key in list(changed) if key in facts}
    return identity(recipe(folder, **changed), **facts)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"lora": {"r": 8}}, ["lora.r: unset → 8"]),
        ({"training": {"learning_rate": 0.1}}, ["training.learning_rate: 0.005 → 0.1"]),
        ({"training": {"optim": "sgd"}}, ["training.optim: unset → sgd"]),
        ({"seed": 1}, ["seed: 42 → 1"]),
        ({"data": {"max_length": 99}}, ["data.max_length: 256 → 99"]),
        ({"quantization": {"load_in_4bit": True}}, ["quantization.load_in_4bit: unset → True"]),
        ({"rows": {"a": "9"}}, ["data: a has changed"]),
        ({"rows": {"a": "1", "c": "1"}}, ["data: c is new"]),
        ({"base": {}}, ["model: b is gone"]),
        ({"precision": "bf16"}, ["precision: fp32 → bf16"]),
        ({"batch": 8}, ["effective batch: 4 → 8"]),
        ({"training": {"max_steps": 9, "save_total_limit": 1, "logging_steps": 3}}, []),
        ({"training": {"gradient_accumulation_steps": 1}}, []),
        ({"output_dir": "elsewhere", "resume": True, "after": ["merge"]}, []),
        ({"evaluate": {"every": 3, "limit": 5}}, []),
        (
            {"evaluate": {"best": "exact", "data": "moved/a.jsonl"}},
            [
                "evaluate.best: unset → exact",
                "evaluate.data: unset → ['a.jsonl']",
                "evaluate.limit: unset → 100",
                "evaluate.max_new_tokens: unset → 512",
            ],
        ),
    ],
    ids=str,
)
def test_what_changes_a_step_is_named_with_both_values(
    tmp_path: Path, changed: dict[str, Any], said: list[str]
) -> None:
    before = json.loads(json.dumps(known_by(tmp_path)))  # as a checkpoint keeps it
    assert changes(before, known_by(tmp_path, **changed)) == said


def test_another_minor_version_of_a_library_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = known_by(tmp_path)
    for version, said in (("2.99.1+cpu", ["torch: {} → 2.99"]), ("{}.77+cu130", [])):
        now = version.format(before["versions"]["torch"])
        monkeypatch.setattr(
            "axtune.checkpoint.identity.package_version",
            lambda name, now=now: now if name == "torch" else before["versions"][name],
        )
        expected = [line.format(before["versions"]["torch"]) for line in said]
        assert changes(before, known_by(tmp_path)) == expected


def test_folders_may_move(tmp_path: Path) -> None:
    facts = [recipe_facts(recipe(tmp_path, model=f"/{place}/base")) for place in ("a", "b")]
    assert facts[0] == facts[1]
    assert facts[0]["data.train[0].path"] == "rows.jsonl"


def test_a_fork_may_learn_otherwise_on_weights_of_the_same_shape(tmp_path: Path) -> None:
    before = fork_facts(recipe(tmp_path))
    assert before == fork_facts(recipe(tmp_path, seed=1, training={"learning_rate": 1.0}))
    assert before != fork_facts(recipe(tmp_path, lora={"r": 2}))
    pissa = {"init_lora_weights": "pissa"}
    moved = [fork_facts(recipe(tmp_path, lora=pissa, seed=seed)) for seed in (1, 2)]
    assert moved[0] != moved[1]  # the base that they fit is made with the seed


def test_packs_are_made_for_a_number_of_processes(tmp_path: Path) -> None:
    packed: dict[str, Any] = {"train": "rows.jsonl", "packing": True}
    two = known_by(tmp_path, processes=2, data=packed)
    assert changes(two, known_by(tmp_path, data=packed)) == [
        "processes that samples are packed for: 2 → unset"
    ]
    plain = packed | {"packing": False}
    assert not changes(known_by(tmp_path, processes=2, data=plain), known_by(tmp_path, data=plain))
