"""Recipes of any kind: they load, or a RecipeError says in lines of text what is wrong.

``AXTUNE_FUZZ_CASES`` sets how many of each kind are tried.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.rows import ROOT

from axtune.config.loader import dump, load, located
from axtune.config.objective import OBJECTIVES
from axtune.config.passthrough import passed_names
from axtune.config.recipe import Data, PreferenceConfig, Recipe
from axtune.config.stages import has_stages, load_stages
from axtune.errors import RecipeError
from axtune.plan.schedule import batching_of

CASES = int(os.environ.get("AXTUNE_FUZZ_CASES", "40"))
fuzzed = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

FILES = sorted((ROOT / "recipes").glob("*.yaml"))
(STAGES,) = [file for file in FILES if has_stages(file)]
SHIPPED = [file for file in FILES if file != STAGES]
SECTIONS = {
    (): [*Recipe.model_fields],
    ("data",): [*Data.model_fields],
    ("preference",): [*PreferenceConfig.model_fields],
    ("lora",): [*passed_names("lora")],
    ("quantization",): [*passed_names("quantization")],
    ("training",): sorted(
        {name for one in OBJECTIVES.values() for name in passed_names("training", one.config)}
    ),
}
KEYS = [(*section, key) for section, keys in SECTIONS.items() for key in keys]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["no", "1e3", "0x1", "-1", "hf:a/b", "~", "/", "\0", "a" * 300, "{", "*x"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


OF_STAGES = [(), ("cpt",), ("sft",), ("sft", "recipe"), ("sft", "data"), ("sft", "start_from"),
             ("sft", "lora", "r"), ("cpt", "output_dir"), ("../x",)]  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "recipe.yaml"


def refused_or_loaded(file: Path, *overrides: str) -> None:
    """What is loaded can be planned and is written as it is read; what is not has its faults."""
    try:
        loaded = load(file, overrides, check_paths=False)
        with located(file, overrides):
            batching_of(loaded)
    except RecipeError as error:
        said = [str(fault) for fault in error.faults]
    else:
        said = None
    if said is not None:
        assert said
        assert all(line.strip() for line in said)
        return
    file.write_text(dump(loaded), encoding="utf-8")
    assert load(file, check_paths=False) == loaded


def as_yaml(value: Any) -> str:
    """JSON is YAML, but for numbers that are not finite."""
    text = json.dumps(value, ensure_ascii=True)
    return text.replace("-Infinity", "-.inf").replace("Infinity", ".inf").replace("NaN", ".nan")


@fuzzed
@given(changes=st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=3),
       shipped=st.sampled_from(SHIPPED))  # fmt: skip
def test_any_value_at_any_key(
    file: Path, changes: dict[tuple[str, ...], Any], shipped: Path
) -> None:
    file.write_bytes(shipped.read_bytes())
    words = [f"{'.'.join(key)}={as_yaml(value)}" for key, value in changes.items()]
    refused_or_loaded(file, *words)


@fuzzed
@given(override=st.text(max_size=30) | st.from_regex(r"[a-z._]+=.*", fullmatch=True))
def test_any_override(file: Path, override: str) -> None:
    file.write_bytes(SHIPPED[0].read_bytes())
    refused_or_loaded(file, override)


@fuzzed
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(
    "utf-8", errors="surrogatepass")))  # fmt: skip
def test_any_file(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    refused_or_loaded(file)


@fuzzed
@given(tree=st.dictionaries(st.sampled_from([*Recipe.model_fields]) | st.text(max_size=4), values))
def test_any_mapping(file: Path, tree: dict[str, Any]) -> None:
    file.write_text(as_yaml(tree), encoding="utf-8")
    refused_or_loaded(file)


@fuzzed
@given(
    shipped=st.sampled_from(SHIPPED),
    cuts=st.lists(
        st.tuples(
            st.floats(0, 1), st.integers(0, 20),
            st.text(alphabet="\t\n :-#'\"[]{}&*!|>%@`,?~0aé\r\0\ufeff", max_size=6),
        ),
        min_size=1, max_size=4,
    ),
)  # fmt: skip
def test_any_damage_to_a_shipped_recipe(
    file: Path, shipped: Path, cuts: list[tuple[float, int, str]]
) -> None:
    text = shipped.read_text(encoding="utf-8")
    for share, length, put in cuts:
        at = int(share * len(text))
        text = text[:at] + put + text[at + length :]
    file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    refused_or_loaded(file)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped recipe of stages, those of its stages beside it."""
    folder = tmp_path_factory.mktemp("stages")
    for one in FILES:
        shutil.copyfile(one, folder / one.name)
    return folder / STAGES.name


def refused_or_loaded_as_stages(file: Path, *overrides: str) -> None:
    said = ["loaded"]
    try:
        if has_stages(file):
            assert load_stages(file, overrides).recipes
    except RecipeError as error:
        said = [str(fault) for fault in error.faults]
    assert said
    assert all(line.strip() for line in said)


@fuzzed
@given(
    changes=st.dictionaries(
        st.sampled_from([("stages", *key) for key in OF_STAGES]
                        + [("after",), ("evaluate",), ("evaluate", "data"), *KEYS]),
        values, min_size=1, max_size=3,
    )
)  # fmt: skip
def test_any_value_in_stages(staged: Path, changes: dict[tuple[str, ...], Any]) -> None:
    staged.write_bytes(STAGES.read_bytes())
    words = [f"{'.'.join(key)}={as_yaml(value)}" for key, value in changes.items()]
    refused_or_loaded_as_stages(staged, *words)


@fuzzed
@given(tree=st.dictionaries(
    st.sampled_from(["stages", "after", "evaluate", "output_dir", "model", "lora"]), values
))  # fmt: skip
def test_any_mapping_with_stages(staged: Path, tree: dict[str, Any]) -> None:
    staged.write_text(as_yaml({"stages": {"sft": {"recipe": "sft_lora.yaml"}}} | tree), "utf-8")
    refused_or_loaded_as_stages(staged)
