"""Held-out rows that lie beside the training rows are not among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from axtune.config.paths import held_out, local_files, missing_paths
from axtune.config.splits import keyword, of_split, splits_said, words
from axtune.errors import AxtuneError


def folder_of(folder: Path, names: str) -> list[Path]:
    files = [folder / name for name in names.split()]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return sorted(files)


def test_words_and_splits_of_a_name() -> None:
    assert words("train_sft-00000.jsonl.gz") == {"train", "sft", "jsonl", "gz"}
    assert [keyword(name) for name in ("dev", "eval", "training", "ko")] == [
        *("validation", "test", "train", "ko"),
    ]
    assert splits_said(Path("test/part-1.jsonl")) == {"test"}
    assert splits_said(Path("training/validation.jsonl")) == {"validation"}
    assert splits_said(Path("latest.jsonl")) == frozenset()


@pytest.mark.parametrize(
    ("names", "split", "read", "others"),
    [
        ("train.jsonl test.jsonl dev.jsonl", "train", "train.jsonl", "test validation"),
        ("train.jsonl test.jsonl dev.jsonl", "dev", "dev.jsonl", "test train"),
        ("train.jsonl glossary.csv", "train", "glossary.csv train.jsonl", ""),
        ("a.jsonl b.jsonl", "train", "a.jsonl b.jsonl", ""),
        ("a.jsonl test_ko.jsonl", "train", "a.jsonl", "test"),
        ("train/a.jsonl validation/a.jsonl", "train", "train/a.jsonl", "validation"),
        ("ko/train-0000.parquet ko/eval-0000.parquet", "eval", "ko/eval-0000.parquet", "train"),
        ("part-00000-of-00002.parquet", "train", "part-00000-of-00002.parquet", ""),
        (
            "train_sft-00000-of-00001.parquet test_sft-00000-of-00001.parquet",
            "train",
            "train_sft-00000-of-00001.parquet",
            "test",
        ),
        (
            "train_sft-00000-of-00001.parquet train_gen-00000-of-00001.parquet",
            "train_gen",
            "train_gen-00000-of-00001.parquet",
            "train",
        ),
        ("hard.jsonl easy.jsonl", "hard", "hard.jsonl", "train"),
    ],
)
def test_the_files_of_a_split(
    tmp_path: Path, names: str, split: str, read: str, others: str
) -> None:
    files = folder_of(tmp_path, names)
    chosen, rest = of_split(tmp_path, files, split)
    assert [str(file.relative_to(tmp_path)) for file in chosen] == read.split()
    assert sorted(rest) == others.split()
    assert local_files(str(tmp_path), split) == chosen
    assert held_out(str(tmp_path), split) == rest


@pytest.mark.parametrize(
    ("names", "split", "choices"),
    [("test.jsonl dev.jsonl", "train", "test, validation"), ("a.jsonl", "test", "train")],
)
def test_a_split_that_is_not_there(tmp_path: Path, names: str, split: str, choices: str) -> None:
    folder_of(tmp_path, names)
    with pytest.raises(AxtuneError, match=f"has no split {split}; it has {choices}.") as caught:
        local_files(str(tmp_path), split)
    assert "split: " in caught.value.remedy
    recipe = {"data": {"train": {"path": str(tmp_path), "split": split}}}
    assert [code for _, code, _ in missing_paths(recipe)] == ["bad-path"]


def test_files_and_globs_are_what_they_name(tmp_path: Path) -> None:
    files = folder_of(tmp_path, "train.jsonl test.jsonl")
    assert local_files(str(tmp_path / "test.jsonl")) == [tmp_path / "test.jsonl"]
    assert local_files(str(tmp_path / "*.jsonl")) == files
    assert held_out(str(tmp_path / "*.jsonl")) == held_out(str(files[0])) == {}


CARD = """---
language: ko
configs:
- config_name: default
  data_files:
  - split: train
    path: "data/one-*.jsonl"
  - split: test
    path: [two.jsonl, "**/three.jsonl"]
---
# 자료
"""


def test_a_card_says_which_file_is_of_which_split(tmp_path: Path) -> None:
    folder_of(tmp_path, "data/one-1.jsonl data/one-2.jsonl two.jsonl data/x/three.jsonl four.jsonl")
    (tmp_path / "README.md").write_text(CARD, encoding="utf-8")
    read = [file.name for file in local_files(str(tmp_path))]
    assert read == ["one-1.jsonl", "one-2.jsonl"]
    assert [file.name for file in local_files(str(tmp_path), "test")] == [
        "two.jsonl",
        "three.jsonl",
    ]
    others = {name: [f.name for f in files] for name, files in held_out(str(tmp_path)).items()}
    assert others == {"test": ["two.jsonl", "three.jsonl"], "": ["four.jsonl"]}


@pytest.mark.parametrize(
    "configs",
    [
        "[{config_name: a, data_files: one.jsonl}]",
        "[{config_name: a, data_files: {train: one.jsonl, test: [two.jsonl]}}]",
        "[{config_name: a, data_files: [one.jsonl]}, {config_name: b, data_files: no.jsonl}]",
    ],
)
def test_every_form_of_a_mapping(tmp_path: Path, configs: str) -> None:
    folder_of(tmp_path, "one.jsonl two.jsonl")
    card = tmp_path / "README.md"
    card.write_text(f"---\nconfigs: {configs}\n---\n")
    if "config_name: b" in configs:
        with pytest.raises(AxtuneError, match=r"several subsets, by its README\.md: a, b"):
            local_files(str(tmp_path))
        card.write_text(card.read_text().replace("config_name: a", "default: true"))
    assert [file.name for file in local_files(str(tmp_path))] == ["one.jsonl"]


@pytest.mark.parametrize(
    "card",
    [
        "# 자료\n",
        "---\nlanguage: ko\n---\n",
        "---\nconfigs: [\n---\n",
        "---\nconfigs: 3\n---\n",
        "---\nconfigs: [3, {data_files: [{path: 3}]}]\n---\n",
        "---\nconfigs: [{data_files: elsewhere/*.jsonl}]\n---\n",
    ],
)
def test_a_card_that_maps_nothing_leaves_the_names(tmp_path: Path, card: str) -> None:
    folder_of(tmp_path, "train.jsonl test.jsonl")
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert [file.name for file in local_files(str(tmp_path))] == ["train.jsonl"]
