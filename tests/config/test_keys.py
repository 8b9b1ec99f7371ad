"""Keys before they are checked: overrides, sections that are joined, the place of each."""

from __future__ import annotations

from pathlib import Path

from axtune.config.keys import Keys, read_keys


def written(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_an_override_of_a_section_sets_the_keys_that_it_names(tmp_path: Path) -> None:
    text = "data:\n  train: {path: a.jsonl, weight: 2}\n  eval: 0.1\n"
    text += "training: {lr_scheduler_kwargs: {power: 2}, max_steps: 9}\n"
    word = "data={train: {path: b.jsonl}}"
    kwargs = "training={lr_scheduler_kwargs: {lr_end: 0}}"
    keys = read_keys(written(tmp_path, "a.yaml", text), [word, kwargs, "lora={r: 32}"])
    assert keys.values == {
        "data": {"train": {"path": "b.jsonl"}, "eval": 0.1},  # a source is one value
        "training": {"lr_scheduler_kwargs": {"lr_end": 0}, "max_steps": 9},
        "lora": {"r": 32},
    }
    assert keys.fault(("data", "train", "path"), "x", "y").file == word
    assert keys.fault(("data", "eval"), "x", "y").line == 3
    assert keys.fault(("lora", "r"), "x", "y").file == "lora={r: 32}"


def test_an_override_of_a_stage_sets_the_keys_that_it_names(tmp_path: Path) -> None:
    text = "model: m\nstages:\n  sft: {recipe: a.yaml, lora: {r: 8, bias: none}}\n"
    file = written(tmp_path, "a.yaml", text)
    for words in (
        ["stages.sft={lora: {r: 16}}"],
        ["stages.sft.lora={r: 16}"],
        ["stages={sft: {lora: {r: 16}}}"],
    ):
        stages = {"sft": {"recipe": "a.yaml", "lora": {"r": 16, "bias": "none"}}}
        assert read_keys(file, words).values == {"model": "m", "stages": stages}


def test_an_override_empties_a_section(tmp_path: Path) -> None:
    file = written(tmp_path, "a.yaml", "model: m\nlora:\n  r: 8\nevaluate:\n  every: 2\n")
    keys = read_keys(file, ["lora={}", "evaluate=null"])
    assert keys.values == {"model": "m", "lora": {}, "evaluate": None}
    assert keys.fault(("lora", "r"), "x", "y").file == "lora={}"


def test_what_is_taken_keeps_its_own_place(tmp_path: Path) -> None:
    base = read_keys(written(tmp_path, "a.yaml", "model: m\nlora:\n  r: 8\n  lora_alpha: 16\n"))
    other = read_keys(
        written(tmp_path, "b.yaml", "seed: 1\nstages:\n  sft:\n    lora:\n      r: 64\n")
    )
    base.take(other, (), leaving=("stages",))
    base.take(other, ("stages", "sft"), leaving=())
    assert base.values == {"model": "m", "seed": 1, "lora": {"r": 64, "lora_alpha": 16}}
    places = {
        path: (Path(base.fault(path, "x", "").file).name, base.fault(path, "x", "").line)
        for path in (("seed",), ("lora", "r"), ("lora", "lora_alpha"))
    }
    assert places == {
        ("seed",): ("b.yaml", 1), ("lora", "r"): ("b.yaml", 5),
        ("lora", "lora_alpha"): ("a.yaml", 4),
    }  # fmt: skip


def test_a_section_in_place_of_a_value_is_taken_whole() -> None:
    keys = Keys("a", {"data": {"eval": 0.1}}, {("data", "eval"): ("a", 3)})
    other = Keys("b", {"data": {"eval": {"path": "b.jsonl"}}}, {("data", "eval"): ("b", 5)})
    keys.take(other, (), leaving=())
    assert keys.values["data"]["eval"] == {"path": "b.jsonl"}
    assert keys.fault(("data", "eval"), "x", "").line == 5
