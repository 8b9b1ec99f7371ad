"""What people copy: every recipe runs as it lies, every template is true to its schema."""

from __future__ import annotations

import ast
import csv
import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from support.rows import ROOT, TEMPLATES, check_rows, read_jsonl

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.loader import dump, load
from axtune.config.recipe_file import SCRIPT_KEY
from axtune.config.stages import has_stages, load_stages
from axtune.data.pipeline import check

FILES = sorted((ROOT / "recipes").glob("*.yaml"))
STAGES = [file for file in FILES if has_stages(file)]
RECIPES = [file for file in FILES if file not in STAGES]
DOCUMENTS = TEMPLATES / "security_guide.md"
DATA = sorted(file for file in TEMPLATES.iterdir() if file.suffix in (".jsonl", ".csv"))


def named(file: Path) -> str:
    return file.name


def test_there_are_recipes_and_templates() -> None:
    assert {"sft_lora.yaml", "sft_qlora.yaml"} <= {file.name for file in RECIPES}
    assert [file.name for file in STAGES] == ["domain_adaptation.yaml"]
    assert {"chat.jsonl", "chat_eval.jsonl", "preference.jsonl"} <= {file.name for file in DATA}


@pytest.mark.parametrize("file", RECIPES, ids=named)
def test_a_recipe_loads_and_is_dumped_equal(file: Path, tmp_path: Path) -> None:
    recipe = load(file)
    again = tmp_path / "recipe.yaml"
    again.write_text(dump(recipe), encoding="utf-8")
    assert load(again) == recipe
    assert recipe.model == ("skt/A.X-4.0" if "72b" in file.name else "skt/A.X-4.0-Light")
    assert all((ROOT / source.path).is_file() for source in recipe.data.train)


@pytest.mark.parametrize("file", STAGES, ids=named)
def test_a_recipe_of_stages_loads(file: Path) -> None:
    stages = load_stages(file)
    assert stages.model == "skt/A.X-4.0-Light"
    assert list(stages.recipes) == ["cpt", "sft"]
    assert len({str(recipe.lora) for recipe in stages.recipes.values()}) == 1


@pytest.mark.parametrize("file", FILES, ids=named)
def test_a_recipe_is_a_python_script(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = file.read_text(encoding="utf-8")
    code = compile(text, str(file), "exec")
    started: list[str] = []
    monkeypatch.setattr("axtune.launch.main", started.append)
    exec(code, {"__name__": "__main__", "__file__": str(file)})
    assert started == [str(file)]
    exec(code, {"__name__": "imported", "__file__": str(file)})
    assert len(started) == 1
    assert text.startswith(SCRIPT_KEY)
    assert text.endswith('# """\n')


@pytest.mark.parametrize("file", RECIPES, ids=named)
def test_every_key_of_a_recipe_has_a_comment(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    keys = [line for line in text.splitlines()[1:] if re.match(r"\s*\w+:", line)]
    assert len(keys) > 30
    for line in keys:
        assert re.search(r"\S\s+# \S", line) or line == "data:", line


@pytest.mark.parametrize("file", RECIPES, ids=named)
def test_a_key_that_a_recipe_leaves_out_is_in_the_table_of_keys(file: Path) -> None:
    """A reader meets every key: in the recipe, or in docs/recipes.md with its default."""
    recipe = load(file)
    page = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    left_out = set(type(recipe).model_fields) - recipe.model_fields_set
    left_out |= {
        f"data.{key}" for key in set(type(recipe.data).model_fields) - recipe.data.model_fields_set
    }
    assert all(f"`{key}`" in page for key in left_out)


@pytest.mark.parametrize("file", DATA, ids=named)
def test_templates_check_clean(file: Path, either_tiny: AxTokenizer) -> None:
    account, faults = check(str(file), either_tiny)
    assert faults == []
    assert account.rows_read == account.rows_used > 0
    assert account.lengths["max"] <= load(RECIPES[0]).data.max_length


def test_a_template_that_is_a_document_checks_clean(either_tiny: AxTokenizer) -> None:
    account, faults = check(str(DOCUMENTS), either_tiny)
    assert faults == []
    assert account.rows_used == 1


def rows_of(file: Path) -> list[Any]:
    if file.suffix == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream))
    return read_jsonl(file)


def schema_of(file: Path) -> Any:
    kinds = {"chat_eval": "chat", "hermes": "chat"}
    kinds |= dict.fromkeys(("preference_text", "preference_conversations"), "preference")
    kind = kinds.get(file.stem, file.stem)
    return json.loads((TEMPLATES / "schema" / f"{kind}.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", DATA, ids=named)
def test_templates_obey_their_schema(file: Path) -> None:
    schema = schema_of(file)
    jsonschema_rs.meta.validate(schema)
    validator = jsonschema_rs.validator_for(schema)
    rows = rows_of(file)
    assert rows
    for row in rows:
        validator.validate(row)
        for key in schema["required"]:
            broken = {name: value for name, value in row.items() if name != key}
            assert not validator.is_valid(broken)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "usr", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": "q"}]},
        {"messages": [{"role": "user", "content": 1}, {"role": "assistant", "content": "a"}]},
        {"messages": []},
    ],
)
def test_schema_and_loader_refuse_alike(row: Any, tiny: AxTokenizer) -> None:
    assert not jsonschema_rs.validator_for(schema_of(TEMPLATES / "chat.jsonl")).is_valid(row)
    assert check_rows(tiny, [row])[0].refused


def test_the_examples_of_the_page_are_true(tiny: AxTokenizer) -> None:
    page = (TEMPLATES / "README.md").read_text(encoding="utf-8")
    examples = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    assert len(examples) >= 5
    for row in examples:
        if "role" in row:
            row = {"messages": [{"role": "user", "content": "q"}, row]}
        (checked,) = check_rows(tiny, [row])
        assert not checked.refused, checked.faults
    for name in re.findall(r"`([\w.]+\.(?:jsonl|csv|json))`", page):
        assert list(TEMPLATES.rglob(name)), name


def test_training_and_evaluation_share_no_conversation() -> None:
    train, held_out = (
        {json.dumps(row["messages"], sort_keys=True) for row in read_jsonl(TEMPLATES / name)}
        for name in ("chat.jsonl", "chat_eval.jsonl")
    )
    assert not train & held_out


def test_tools_file_holds_the_tools_of_the_rows() -> None:
    tools = json.loads((TEMPLATES / "tools.json").read_text(encoding="utf-8"))
    names = {tool["function"]["name"] for tool in tools}
    used = {
        tool["function"]["name"]
        for row in read_jsonl(TEMPLATES / "chat.jsonl")
        for tool in row.get("tools") or ()
    }
    assert used <= names


def test_a_page_names_every_code_of_a_row() -> None:
    """Every code that a data room can report stands in docs/data.md's table."""
    codes: set[str] = set()
    rooms = "readers cells formats prompts preferences turns hermes conversation parse validate"
    for room in (*rooms.split(), "documents", "pipeline"):
        tree = ast.parse((ROOT / "axtune" / "data" / f"{room}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Problem", "Fault"):
                words = (a.value for a in node.args if isinstance(a, ast.Constant))
                codes.update(w for w in map(str, words) if re.fullmatch("[a-z][a-z0-9-]*", w))
    codes.discard("warning")
    assert len(codes) > 30
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    assert [code for code in sorted(codes) if f"`{code}`" not in page] == []
