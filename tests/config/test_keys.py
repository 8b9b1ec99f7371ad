"""Keys before they are checked: overrides, sections that are joined, the place of each."""

from __future__ import annotations

from pathlib import Path

from axtune.config.keys import Keys, read_keys


def written(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_an_override_replaces_a_section_and_the_places_below_it(tmp_path: Path) -> None:
    file = written(tmp_path, "a.yaml", "model: m\ndata:\n  train: a.jsonl\n  eval: 0.1\n")
    keys = read_keys(file, ["data={train: b.jsonl}", "lora.r=32"])
    assert keys.values == {"model": "m", "data": {"train": "b.jsonl"}, "lora": {"r": 32}}
    assert keys.fault(("data", "eval"), "x", "y").file == "data={train: b.jsonl}"
    assert keys.fault(("model",), "x", "y").line == 1


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
