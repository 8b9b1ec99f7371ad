"""Recipes: every fault at once, each with its line; overrides; what is dumped is what is read."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.recipe_text import PLAIN, faults_of, read, swap

from axtune.config.faults import bad_value, refused
from axtune.config.loader import data_options, dump, load, located
from axtune.config.recipe import Recipe
from axtune.errors import Fault, RecipeError


def test_plain_recipe(tmp_path: Path) -> None:
    recipe = read(tmp_path, PLAIN)
    assert recipe.seed == 7
    assert [source.path for source in recipe.data.train] == ["data/상담.jsonl"]
    assert recipe.training == {"learning_rate": 2e-4}
    assert isinstance(recipe.training["learning_rate"], float)  # YAML 1.1 would make it a text
    assert recipe.quantization is None


@pytest.mark.parametrize(
    ("text", "line", "code"),
    [
        (swap("seed: 7", "sead: 7"), 4, "unknown-key"),
        (swap("max_length:", "maxlength:"), 8, "unknown-key"),
        (swap("  r: 8", "  rr: 8"), 10, "unknown-key"),
        (swap("learning_rate", "learning_rte"), 12, "unknown-key"),
        (
            PLAIN + "quantization:\n  load_in_4bit: true\n  bnb_4bit_quant_typ: nf4\n",
            15,
            "unknown-key",
        ),
        (swap("data/상담.jsonl", "[a.jsonl,\n    {path: b.jsonl, wieght: 2}]"), 7, "unknown-key"),
        (swap("eval: 0.1", "eval: {pth: a.jsonl}"), 7, "missing-key"),
        (swap("seed: 7", "seed: 일곱"), 4, "bad-value"),
        (swap("seed: 7", "seed: 4294967296"), 4, "bad-value"),
        (swap("seed: 7", "precision: fp8"), 4, "bad-value"),
        (swap("eval: 0.1", "eval: 1.5"), 7, "bad-value"),
        (swap("eval: 0.1", "eval: true"), 7, "bad-value"),
        (swap("eval: 0.1", "eval: .nan"), 7, "bad-value"),
        (swap("max_length: 2048", "max_line_mb: .inf"), 8, "bad-value"),
        (swap("data/상담.jsonl", "{path: a, weight: .inf}"), 6, "bad-value"),
        (swap("data/상담.jsonl", "{path: a, weight: 0}"), 6, "bad-value"),
        (swap("data/상담.jsonl", "[]"), 6, "bad-value"),
        (swap("  r: 8", "  r: 여덟"), 10, "bad-value"),
        (swap("  r: 8", "  use_dora: maybe"), 10, "bad-value"),
        (swap("  r: 8", "  r: !tag 8"), 10, "bad-value"),
        (swap("  r: 8", "  r: 2026-03-14"), 10, "bad-value"),
        (swap("2e-4", "fast"), 12, "bad-value"),
        (swap("  r: 8", "  task_type: X"), 10, "not-here"),
        (swap("learning_rate: 2e-4", "packing: true"), 12, "not-here"),
        (PLAIN + "quantization:\n  load_in_4bit: false\n", 13, "bad-value"),
        (PLAIN + "evaluate:\n  evry: 2\n", 14, "unknown-key"),
        (PLAIN + "evaluate:\n  every: 0\n", 14, "bad-value"),
        (PLAIN + "evaluate:\n  every: true\n", 14, "bad-value"),
        (PLAIN + "evaluate:\n  every: step\n", 14, "bad-value"),
        (PLAIN + "evaluate:\n  best: accuracy\n", 14, "bad-value"),
        (PLAIN + "evaluate:\n  data: []\n", 14, "bad-value"),
    ],
)
def test_each_fault_has_its_line(tmp_path: Path, text: str, line: int, code: str) -> None:
    assert ("recipe.yaml", line, code) in faults_of(tmp_path, text)


def test_all_faults_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = swap("seed: 7", "sead: 7").replace("2048", "길게").replace("  r: 8", "  rr: 8")
    found = faults_of(tmp_path, text, "training.optm=x", "lora")
    assert found == [
        ("lora", 0, "bad-override"),
        ("recipe.yaml", 4, "unknown-key"),
        ("recipe.yaml", 8, "bad-value"),
        ("recipe.yaml", 10, "unknown-key"),
        ("training.optm=x", 0, "unknown-key"),
    ]


def test_missing_paths_are_said_with_every_other_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.jsonl").touch()
    (tmp_path / "empty").mkdir()
    text = """\
task: dpo
model: ./none
output_dir: r
sead: 7
preference: {start_from: runs/none}
data:
  train:
    - here.jsonl
    - none.jsonl
    - {path: "none/*.jsonl", weight: 0}
    - hf:owner/name
    - empty
  eval: {path: gone.jsonl}
"""
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load("recipe.yaml", ["lora.rr=3"])
    found = [(fault.line, fault.code, fault.message) for fault in caught.value.faults]
    assert [(line, code) for line, code, _ in found] == [
        (2, "bad-path"),
        (4, "unknown-key"),
        (5, "bad-path"),
        (9, "bad-path"),
        (10, "bad-value"),
        (10, "bad-path"),
        (12, "bad-path"),
        (13, "bad-path"),
        (0, "unknown-key"),
    ]
    messages = [message for _, code, message in found if code == "bad-path"]
    keys = ["model", "start_from", "data.train.1", "data.train.2.path", "data.train.4"]
    assert [message.partition(":")[0] for message in messages] == [*keys, "data.eval.path"]
    for name, message in zip(
        ("./none", "runs/none", "none.jsonl", "none/*.jsonl", "empty", "gone.jsonl"),
        messages,
        strict=True,
    ):
        assert name in message
        assert f"Paths are relative to the current folder, {tmp_path}." in message


def test_every_path_key_takes_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "kinds.yaml").touch()
    for name in ("a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "base").mkdir()
    text = """\
task: sft
model: ~/base
output_dir: ~/runs/a
start_from: ~/base
data:
  train: [~/a.jsonl, {path: ~/b.jsonl}]
  replay: {train: ~/b.jsonl}
  eval: ~/c.jsonl
  not_in: ~/d.jsonl
  privacy: mask
  privacy_kinds: ~/kinds.yaml
evaluate: {data: [~/d.jsonl]}
"""
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    recipe = load(tmp_path / "recipe.yaml", ["output_dir=~/runs/b", "data.eval=[~/d.jsonl]"])
    assert recipe.output_dir == str(tmp_path / "runs/b")
    assert "~" not in dump(recipe)
    home = str(tmp_path)
    assert recipe.model == recipe.start_from == f"{home}/base"
    assert [source.path for source in recipe.data.sources] == [
        f"{home}/a.jsonl", f"{home}/b.jsonl", f"{home}/b.jsonl"
    ]  # fmt: skip
    assert isinstance(recipe.data.eval, list)
    assert recipe.data.eval[0].path == f"{home}/d.jsonl"
    assert recipe.data.not_in == [f"{home}/d.jsonl"]
    assert recipe.data.privacy_kinds == f"{home}/kinds.yaml"
    assert recipe.evaluate is not None
    assert recipe.evaluate.data == [f"{home}/d.jsonl"]


def test_a_home_folder_of_nobody_is_said_once_of_each_key(tmp_path: Path) -> None:
    nobody = "~nobody-of-this-name/x"
    text = f"task: sft\nmodel: tiny-ax-4.0\noutput_dir: {nobody}\ndata:\n  train: {nobody}\n"
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load(tmp_path / "recipe.yaml")
    assert [(fault.line, fault.code) for fault in caught.value.faults] == [
        (3, "bad-path"),
        (5, "bad-path"),
    ]
    assert all("there is no such user" in fault.message for fault in caught.value.faults)


def test_a_missing_path_of_an_override_points_at_the_override(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(swap("  eval: 0.1\n", ""), encoding="utf-8")
    gone = f"data.train={tmp_path}/none.jsonl"
    with pytest.raises(RecipeError) as caught:
        load(tmp_path / "recipe.yaml", [gone])
    assert [(f.file, f.line, f.code) for f in caught.value.faults] == [(gone, 0, "bad-path")]


def test_misspelt_key_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"lora\.lora_alhpa: .*did you mean lora_alpha\?"):
        read(tmp_path, swap("  r: 8", "  lora_alhpa: 8"))


def test_a_missing_key_is_said_with_every_other(tmp_path: Path) -> None:
    assert faults_of(tmp_path, "task: sft\ndata: {}\n") == [
        ("recipe.yaml", 0, "missing-key"),
        ("recipe.yaml", 0, "missing-key"),
        ("recipe.yaml", 2, "missing-key"),
    ]


@pytest.mark.parametrize(
    ("word", "section", "key", "value"),
    [
        ("lora.r=32", "lora", "r", 32),
        ("--lora.r=32", "lora", "r", 32),
        ("lora.target_modules=[q_proj,v_proj]", "lora", "target_modules", ["q_proj", "v_proj"]),
        ("training.learning_rate=1e-5", "training", "learning_rate", 1e-5),
        ("training.run_name=한빛 상담", "training", "run_name", "한빛 상담"),
        ("training.report_to=", "training", "report_to", None),
        ("quantization.load_in_4bit=true", "quantization", "load_in_4bit", True),
    ],
)
def test_override(tmp_path: Path, word: str, section: str, key: str, value: Any) -> None:
    assert getattr(read(tmp_path, PLAIN, word), section)[key] == value


def test_override_of_data(tmp_path: Path) -> None:
    recipe = read(
        tmp_path, PLAIN, "data.train=[a.jsonl,{path: b.jsonl,weight: 0.5}]", "data.eval=e.jsonl"
    )
    assert [(s.path, s.weight) for s in recipe.data.train] == [("a.jsonl", 1.0), ("b.jsonl", 0.5)]
    assert isinstance(recipe.data.eval, list)
    assert recipe.data.eval[0].path == "e.jsonl"


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("lora.r", "bad-override"),
        ("=3", "bad-override"),
        ("lora..r=3", "bad-override"),
        ("seed.x=3", "bad-override"),
        ("data.train.0.path=x", "bad-override"),
        ("lora.rr=3", "unknown-key"),
        ("no.such.key=1", "unknown-key"),
        ("data.train=[a,{path: b,wieght: 2}]", "unknown-key"),
        ("lora=5", "bad-value"),
        ("seed=[1", "bad-value"),
        ("seed=&a [*a]", "bad-value"),
        ("quantization.load_in_4bit=false", "bad-value"),
    ],
)
def test_a_fault_of_an_override_points_at_the_override(
    tmp_path: Path, word: str, code: str
) -> None:
    assert faults_of(tmp_path, PLAIN, word) == [(word, 0, code)]


def test_a_list_that_is_overridden_leaves_no_lines_behind(tmp_path: Path) -> None:
    text = swap("data/상담.jsonl", "[a.jsonl, {path: b.jsonl, weight: 2}]")
    word = "data.train=[a.jsonl,{path: b.jsonl,weight: 0}]"
    assert faults_of(tmp_path, text, word) == [(word, 0, "bad-value")]


def preference(task: str, *words: str) -> list[str]:
    return [f"task={task}", "data.train=pairs.jsonl", *words]


@pytest.mark.parametrize(
    ("task", "word", "code", "message"),
    [
        ("dpo", "training.betta=0.1", "unknown-key", "did you mean beta?"),
        ("dpo", "training.desirable_weight=1", "unknown-key", "no such key"),
        ("kto", "training.loss_typ=kto", "unknown-key", "did you mean loss_type?"),
        ("orpo", "training.label_smoothing=0.1", "unknown-key", "label_smoothing_factor"),
        ("sft", "training.beta=0.1", "unknown-key", "no such key"),
        ("dpo", "training.precompute_ref_log_probs=true", "not-here", "preference.reference"),
        ("dpo", "training.sync_ref_model=true", "not-here", "model before this run"),
        ("sft", "preference.shared_prefix=true", "conflict", "dpo, kto and orpo"),
        ("dpo", "preference.start_merged=true", "conflict", "start_from"),
        ("sft", "start_merged=true", "conflict", "start_from"),
        ("dpo", "preference.shared_prefx=true", "unknown-key", "did you mean shared_prefix?"),
        ("dpo", "preference.reference=never", "bad-value", "cached"),
    ],
)
def test_keys_of_preference_training(
    tmp_path: Path, task: str, word: str, code: str, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, PLAIN, *preference(task, word))
    (fault,) = caught.value.faults
    assert (fault.file, fault.code) == (word, code)
    assert message in fault.message


def test_data_options_refuse_what_a_recipe_refuses() -> None:
    assert data_options(["a.jsonl"], max_length=100).max_length == 100
    with pytest.raises(RecipeError) as caught:
        data_options(["a.jsonl"], max_length=1)
    assert caught.value.faults == (
        Fault(
            "max_length", 0, "bad-value", "found 1; expected a number greater than or equal to 16."
        ),
    )


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    lambda text: not text.startswith("~")  # the home folder of whoever it names
)


@settings(max_examples=25)
@given(
    model=words,
    path=words,
    weight=st.floats(0.01, 1000),
    fraction=st.none() | st.floats(0.01, 0.99),
    rate=st.floats(min_value=1e-10, allow_infinity=False),
    name=words | st.sampled_from(["null", "yes", "1e3", "0x10", "- a", "a: b", "#", "~", " x "]),
)
def test_what_is_dumped_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    model: str,
    path: str,
    weight: float,
    fraction: float | None,
    rate: float,
    name: str,
) -> None:
    recipe = Recipe.model_validate(
        {
            "task": "sft",
            "model": model,
            "output_dir": name,
            "data": {"train": [{"path": path, "weight": weight}], "eval": fraction},
            "training": {"learning_rate": rate, "run_name": name},
        }
    )
    file = tmp_path_factory.getbasetemp() / "dumped.yaml"
    file.write_text(dump(recipe), encoding="utf-8")
    again = load(file, check_paths=False)
    assert again == recipe
    assert math.isclose(again.training["learning_rate"], rate, rel_tol=0, abs_tol=0)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("training.learning_rate", ("recipe.yaml", 12)),
        ("training.optim", ("training.optim=nope", 0)),
        ("lora.target_modules", ("recipe.yaml", 9)),  # not given: its section
        ("quantization.bnb_4bit_quant_type", ("recipe.yaml", 0)),
    ],
)
def test_what_only_the_libraries_see_is_said_where_it_stands(
    tmp_path: Path, key: str, place: tuple[str, int]
) -> None:
    words = ["training.optim=nope"]
    read(tmp_path, PLAIN, *words)
    other = Fault("rows.jsonl", 3, "bad-row", "something else: of data.")
    with (
        pytest.raises(RecipeError, match=r"cannot be run\.") as caught,
        located(tmp_path / "recipe.yaml", words),
    ):
        raise refused([bad_value(key, "cannot be: it is wrong."), other])
    fault, same = caught.value.faults
    assert (Path(fault.file).name, fault.line) == place
    assert fault.message == f"{key}: cannot be: it is wrong."
    assert same == other


def test_faults_of_training_are_said_at_their_lines(tmp_path: Path) -> None:
    text = PLAIN + "  weight_decay: -1\n  dataloader_prefetch_factor: 2\n  optim: lomo\n"
    assert faults_of(tmp_path, text, "training.max_steps=0") == [
        ("recipe.yaml", 13, "bad-value"),
        ("recipe.yaml", 14, "conflict"),
        ("recipe.yaml", 15, "conflict"),
        ("training.max_steps=0", 0, "bad-value"),
    ]


@pytest.mark.parametrize("value", ["true", "false", "yes", "q.jsonl", "[a, b]", "3"])
@pytest.mark.parametrize(
    ("section", "example"),
    [("evaluate", "{every: epoch}"), ("data", "{train: rows.jsonl}"), ("lora", "{r: 16}"),
     ("training", "{learning_rate: 2.0e-4}"), ("quantization", "{load_in_4bit: true}")],
)  # fmt: skip
def test_a_section_that_is_a_single_value_says_how_it_looks(
    tmp_path: Path, section: str, example: str, value: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, PLAIN, f"{section}={value}")
    (fault,) = [fault for fault in caught.value.faults if fault.code == "bad-value"]
    assert (fault.file, fault.message.partition(":")[0]) == (f"{section}={value}", section)
    assert f"such as {example}" in fault.message
    assert not re.search(r"Config|instance|dictionary", fault.message)


@pytest.mark.parametrize("value", ["3", "[3]", "[null]", "[a.jsonl, true]"])
def test_what_is_no_source_says_how_one_looks(tmp_path: Path, value: str) -> None:
    with pytest.raises(RecipeError, match=r"expected a path, or \{path: rows\.jsonl\}"):
        read(tmp_path, PLAIN, f"data.train={value}")


def test_where_a_run_starts_from_is_read_where_it_stood_once(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    file = tmp_path / "recipe.yaml"
    head = "task: dpo\nmodel: m\noutput_dir: r\ndata: {train: hf:a/b}\n"
    older = f"{head}preference: {{start_from: {start}, start_merged: true, reference: each_step}}\n"
    file.write_text(older, encoding="utf-8")
    read = load(file)
    assert (read.start_from, read.start_merged) == (str(start), True)
    assert read.preference is not None
    assert read.preference.reference == "each_step"
    file.write_text(f"{head}start_from: null\nstart_merged: false\n", encoding="utf-8")
    read = load(file, [f"preference.start_from={start}", "preference.start_merged=false"])
    assert (read.start_from, read.start_merged) == (str(start), False)
    assert load(file, ["preference.start_from=null"]).start_from is None
    with pytest.raises(RecipeError, match=r"unknown-key: preference\.start_from"):
        load(file, [f"start_from={start}", f"preference.start_from={tmp_path}"])
    with pytest.raises(RecipeError, match="start_from=gone: bad-path"):
        load(file, ["preference.start_from=gone"])
