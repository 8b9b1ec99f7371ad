"""What is no YAML or no recipe is said in words, and YAML's odd forms are read."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.recipe_text import PLAIN, faults_of, read, swap
from support.rows import ROOT

from axtune.config.loader import dump, load
from axtune.config.recipe_file import as_override, as_yaml, read_file, read_value
from axtune.errors import RecipeError


def test_every_key_and_item_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("task: sft\ndata:\n  train:\n    - a\n    - {path: b}\n", encoding="utf-8")
    values, lines = read_file(file)
    assert values == {"task": "sft", "data": {"train": ["a", {"path": "b"}]}}
    assert lines == {
        ("task",): 1,
        ("data",): 2,
        ("data", "train"): 3,
        ("data", "train", 0): 4,
        ("data", "train", 1): 5,
        ("data", "train", 1, "path"): 5,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("null", None),
        ("1e-5", 1e-5),
        ("true", True),
        ("[a, {b: 1}]", ["a", {"b": 1}]),
        ("[1", "[1"),
        ("a: b: c", "a: b: c"),
        ("한빛 상담", "한빛 상담"),
    ],
)
def test_a_value_is_yaml_or_itself(text: str, value: object) -> None:
    read = read_value(text)
    assert (read, type(read)) == (value, type(value))


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc가"), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["lora", "training"]), plain, min_size=1))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    file = tmp_path_factory.getbasetemp() / "written.yaml"
    file.write_text(as_yaml(values), encoding="utf-8")
    assert read_file(file)[0] == values


@pytest.mark.parametrize(
    ("text", "line", "code"),
    [
        (swap("seed: 7", "seed: 7\nseed: 8"), 5, "not-yaml"),
        (swap("  r: 8", "\tr: 8"), 10, "not-yaml"),
        (swap("  r: 8", "  r: *nowhere"), 10, "not-yaml"),
        (swap("  r: 8", "  r: [8"), 10, "not-yaml"),
        (PLAIN + "---\nseed: 8\n", 13, "not-yaml"),
        (PLAIN + "a: \x07\n", 13, "not-yaml"),
        (PLAIN + "a: " + "[" * 400 + "]" * 400 + "\n", 0, "not-yaml"),
        (swap("seed: 7", "seed: " + "9" * 5000), 0, "not-yaml"),
        ("", 1, "not-a-recipe"),
        ("- a\n", 1, "not-a-recipe"),
        (PLAIN.encode("utf-16"), 0, "unreadable"),
        (PLAIN.encode("cp949"), 0, "unreadable"),
    ],
)
def test_each_fault_has_its_line(tmp_path: Path, text: str, line: int, code: str) -> None:
    assert ("recipe.yaml", line, code) in faults_of(tmp_path, text)


def test_unreadable_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="it is a folder"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "line", "said"),
    [
        ("chat.jsonl", '{"messages": []}\n' * 2, 0, "data.train="),
        ("chat.jsonl", '{"messages": []}\n', 1, "data.train="),
        ("compose.yaml", "services:\n  web: {}\n", 1, "begin with one of recipes/"),
        ("recipe.yaml", "# nothing\n", 1, "it is empty"),
        ("recipe.yaml", "just words\n", 1, "it is no mapping"),
        ("recipe.yaml", "a: &a [*a]\n", 1, "begin with one of recipes/"),
        ("recipe.yaml", b"\x89PNG\r\n\x1a\n", 0, "not UTF-8"),
        ("recipe.yaml", b"\0" * 100, 1, "control character"),
        ("recipe.yaml", "a: b\n" * 300_000, 0, "2 MB"),
        ("recipe.yaml", "task: !!python/object/apply:os.system [ls]\n", 1, "task"),
        ("recipe.yaml", PLAIN.replace("  r: 8", "   r: 8\n  x: 3"), 11, "indentation"),
        ("recipe.yaml", PLAIN + "---\nseed: 8\n", 13, "a second document"),
        ("recipe.yaml", PLAIN.replace("seed: 7", "seed: 7: 8"), 4, "a colon too many"),
        ("recipe.yaml", PLAIN.replace("  r: 8", "\tr: 8"), 10, "no tabs"),
        ("recipe.yaml", PLAIN + "seed: 8\n", 13, "the key seed stands there twice"),
    ],
)
def test_what_is_no_recipe_is_said_in_words(
    tmp_path: Path, name: str, content: str | bytes, line: int, said: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError) as caught:
        load(file, check_paths=False)
    assert any(fault.line == line and said in fault.message for fault in caught.value.faults)


def test_aliases_of_aliases_do_not_fill_the_memory(tmp_path: Path) -> None:
    lists = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for n in range(1, 12):
        lists.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    with pytest.raises(RecipeError, match=r"more than 100,000 values; write out its aliases"):
        read(tmp_path, PLAIN + "\n".join(lists) + "\n")


def test_anchors_merges_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeff" + swap("seed: 7", "seed: &n 7\nresume: &t true").replace("r: 8", "r: *n")
    recipe = read(tmp_path, text + "  weight_decay: 0.1\n")
    assert (recipe.seed, recipe.resume, recipe.lora) == (7, True, {"r": 7})
    anchored = swap("  r: 8", "  use_dora: &d true\n  use_rslora: *d")
    assert read(tmp_path, anchored).lora == {"use_dora": True, "use_rslora": True}
    merged = swap("  r: 8", "  <<: {r: 8, lora_alpha: 16}\n  r: 4")
    assert read(tmp_path, merged).lora == {"r": 4, "lora_alpha": 16}
    assert ("recipe.yaml", 10, "unknown-key") in faults_of(
        tmp_path, swap("  r: 8", "  <<: {rr: 8}")
    )


def test_script_line_is_dropped(tmp_path: Path) -> None:
    text = (ROOT / "recipes" / "sft_lora.yaml").read_text(encoding="utf-8")
    assert text.startswith('if __name__ == "__main__"')
    assert read(tmp_path, text).task == "sft"


@pytest.mark.parametrize("ends", ["\r\n", "\r"])
def test_line_ends_of_other_systems(tmp_path: Path, ends: str) -> None:
    assert read(tmp_path, PLAIN.replace("\n", ends)) == read(tmp_path, PLAIN)
    assert faults_of(tmp_path, swap("seed: 7", "seed: x").replace("\n", ends)) == [
        ("recipe.yaml", 4, "bad-value")
    ]


def test_characters_in_two_halves_as_json_writes_them(tmp_path: Path) -> None:
    assert read(tmp_path, PLAIN, r'output_dir="\ud83d\ude00"').output_dir == "\U0001f600"
    assert read(tmp_path, swap("runs/a", r'"\ud83d\ude00"')).output_dir == "\U0001f600"
    assert faults_of(tmp_path, swap("runs/a", r'"\ud83d"')) == [("recipe.yaml", 0, "not-yaml")]
    assert faults_of(tmp_path, PLAIN, "output_dir=\udcff") == [("output_dir=?", 0, "bad-override")]


def test_line_ends_of_yaml_within_texts_come_back(tmp_path: Path) -> None:
    ends = "a\x85b\u2028c\u2029d"
    value = json.dumps({"text": ends, ends: [ends]})
    loaded = read(tmp_path, PLAIN, f"training.trackio_static_space_id={value}")
    assert loaded.training["trackio_static_space_id"] == json.loads(value)
    assert read(tmp_path, dump(loaded)) == loaded


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
@example("1e3")
@example("a: b")
@example("[x]")
@example("it's a 'run'")
@example("null")
@example("\x85")
@example("a: \u2028")
@example("\ufeff[x]")
def test_an_override_is_one_word_of_a_shell_and_read_back(value: str) -> None:
    (word,) = shlex.split(as_override("output_dir", value))
    key, _, text = word.partition("=")
    assert (key, read_value(text)) == ("output_dir", value)
