"""The field's files as they are published, and their own checkers' verdicts as ours.

BFCL's checker comes from the package ``bfcl-eval``, unpacked and not installed:
``pip download --no-deps bfcl-eval`` and unzip the wheel; ``AXTUNE_BFCL`` names the folder. Tests
that need it are skipped without. FunctionChat-Bench's exact match comes from a clone of its
repository (github.com/kakao/FunctionChat-Bench) in ``AXTUNE_FUNCTIONCHAT``.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import (
    BFCL_PARTS,
    FUNCTIONCHAT_PARTS,
    Calls,
    as_items,
    bfcl_checker,
    functionchat_match,
    judge_bfcl,
    judge_functionchat,
    judged,
)
from support.rows import write_jsonl

from axtune.config.recipe import Source
from axtune.data.native_calls import Answer
from axtune.errors import DataError
from axtune.evaluate.benchmarks import (
    Question,
    asked_files,
    bfcl_text,
    is_benchmark,
    read_questions,
    unscored_in_words,
)

# --- Their own checkers ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bfcl() -> Path:
    """The folder of the unpacked package."""
    default = Path(tempfile.gettempdir()) / "bfcl" / "x"
    folder = Path(os.environ.get("AXTUNE_BFCL", default))
    if not (folder / "bfcl_eval").is_dir():
        pytest.skip(f"there is no unpacked bfcl-eval in {folder} (AXTUNE_BFCL)")
    return folder


def test_bfcls_own_checker_says_the_same(bfcl: Path) -> None:
    with bfcl_checker(bfcl) as checker:
        verdicts = list(judge_bfcl(bfcl / "bfcl_eval" / "data", checker, each=3))
    counts = Counter(one.theirs for one in verdicts)
    differences = Counter(one.what for one in verdicts if one.theirs != one.ours)
    assert min(counts.values()) > 5000
    assert differences.total() <= 0.002 * len(verdicts), differences
    assert set(differences) <= BFCL_PARTS


def test_functionchats_own_exact_match_says_the_same(shared: Path) -> None:
    default = Path(tempfile.gettempdir()) / "FunctionChat-Bench"
    folder = Path(os.environ.get("AXTUNE_FUNCTIONCHAT", default))
    if not (folder / "src").is_dir():
        pytest.skip(f"there is no FunctionChat-Bench in {folder} (AXTUNE_FUNCTIONCHAT)")
    files = sorted((shared / "functionchat").glob("*.jsonl"))
    with functionchat_match(folder) as match:
        verdicts = list(judge_functionchat(files, match))
    counts = Counter(one.theirs for one in verdicts)
    assert min(counts.values()) > 500
    assert {one.what for one in verdicts if one.theirs != one.ours} <= FUNCTIONCHAT_PARTS
    assert [one for one in verdicts if one.theirs != one.published] == []


def test_strings_are_as_bfcl_makes_them(bfcl: Path) -> None:
    with bfcl_checker(bfcl):
        theirs = importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker")
    for text in ("April 1, 2024", "it's", "a_b-c.d/e^f*g", "서울 강남구", "\tÉ"):
        assert bfcl_text(text) == theirs.standardize_string(text)


def test_irrelevance_and_relevance_of_bfcl(bfcl: Path) -> None:
    for category, calls_are_right in (
        ("irrelevance", False),
        ("live_irrelevance", False),
        ("live_relevance", True),
    ):
        questions = list(read_questions(bfcl / "bfcl_eval" / "data" / f"BFCL_v4_{category}.json"))
        assert questions
        for question in questions:
            called = [(question.tools[0]["function"]["name"], {})] if question.tools else []
            assert judged(question, called).right == (calls_are_right == bool(called))
            assert judged(question, [], "미안해요").right == (not calls_are_right)


# --- Files of the same form -----------------------------------------------------------------------

FUNCTION = {
    "name": "math.area",
    "description": "Area.",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "float", "description": "Base."},
            "sides": {"type": "tuple", "items": {"type": "integer"}, "description": "Sides."},
            "options": {
                "type": "dict",
                "properties": {"unit": {"type": "string"}},
                "description": "O.",
            },
            "anything": {"type": "any", "description": "A."},
        },
        "required": ["base"],
    },
}
POSSIBLE = {
    "base": [5, 5.5],
    "sides": ["", [1, 2]],
    "options": [{"unit": ["cm", "centimetre", ""]}, ""],
    "anything": [""],
}


def bfcl_files(folder: Path, *, identity: str = "simple_python_0", answered: bool = True) -> Path:
    path = folder / "BFCL_v4_simple_python.json"
    asked = [[{"role": "user", "content": "Area?"}]]
    path.write_text(json.dumps({"id": identity, "question": asked, "function": [FUNCTION]}))
    if answered:
        (folder / "possible_answer").mkdir()
        truth = {"id": identity, "ground_truth": [{"math.area": POSSIBLE}]}
        (folder / "possible_answer" / path.name).write_text(json.dumps(truth))
    return path


def test_a_question_of_bfcl(tmp_path: Path) -> None:
    (question,) = read_questions(bfcl_files(tmp_path))
    assert (question.id, question.category) == ("simple_python_0", "simple_python")
    assert question.messages == [{"role": "user", "content": "Area?"}]
    properties = question.tools[0]["function"]["parameters"]["properties"]
    assert question.tools[0]["function"]["parameters"]["type"] == "object"
    types = {name: schema.get("type") for name, schema in properties.items()}
    assert types == {"base": "number", "sides": "array", "options": "object", "anything": None}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"base": 5}, None),
        ({"base": 5.0}, None),
        ({"base": 5.5, "sides": [1, 2], "options": {"unit": "C.M"}}, None),
        ({"base": 5, "sides": []}, None),
        ({"base": 5, "options": {}}, None),
        ({"base": 5, "anything": ""}, None),
        ({}, "missing-argument"),
        ({"base": 6}, "wrong-value"),
        ({"base": "5"}, "wrong-type"),
        ({"base": True}, "wrong-type"),
        ({"base": 5, "sides": [2, 1]}, "wrong-value"),
        ({"base": 5, "sides": [1.0, 2]}, "wrong-value"),
        ({"base": 5, "options": {"unit": "cm", "more": 1}}, "wrong-value"),
        ({"base": 5, "other": 1}, "unexpected-argument"),
    ],
)
def test_answers_to_a_question_of_bfcl(
    tmp_path: Path, arguments: dict[str, Any], reason: str | None
) -> None:
    (question,) = read_questions(bfcl_files(tmp_path))
    assert judged(question, [("math.area", arguments)]).reason == reason


def test_a_sentence_that_bfcl_asks_again_belongs_together(tmp_path: Path) -> None:
    file = bfcl_files(tmp_path)
    other = tmp_path / "BFCL_v4_irrelevance.json"
    row = json.loads(file.read_text()) | {"id": "irrelevance_0", "function": []}
    another = row | {"id": "irrelevance_1", "question": [[{"role": "user", "content": "길이?"}]]}
    write_jsonl(other, [row, another])
    (area,), (again, length) = read_questions(file), read_questions(other)
    assert area.cluster == again.cluster != length.cluster


def test_answers_may_stand_elsewhere(tmp_path: Path) -> None:
    path = bfcl_files(tmp_path)
    answers = (tmp_path / "possible_answer").rename(tmp_path / "elsewhere") / path.name
    assert [question.id for question in read_questions(path, answers)] == ["simple_python_0"]


@pytest.mark.parametrize(
    ("identity", "answered"),
    [("simple_python_0", False), ("simple_java_0", True), ("multi_turn_base_0", False)],
)
def test_what_cannot_be_scored_is_named(tmp_path: Path, identity: str, answered: bool) -> None:
    path = bfcl_files(tmp_path, identity=identity, answered=answered)
    with pytest.raises(DataError) as refused:
        list(read_questions(path))
    (fault,) = refused.value.faults
    assert (fault.file, fault.line, fault.code) == (str(path), 1, "not-scored")


def bfcl_folder(folder: Path) -> Path:
    """A copy of BFCL: a category that is scored, others, and what they are made of."""
    bfcl_files(folder)
    asked = {"id": "multi_turn_base_0", "question": [[], []], "involved_classes": ["MathAPI"]}
    for name, text in {
        "BFCL_v4_multi_turn_base.json": json.dumps(asked) + "\n" + json.dumps(asked),
        "BFCL_v4_exec_simple.json": json.dumps({"id": "exec_simple_0", "question": [[]]}),
        "BFCL_v4_format_sensitivity.json": json.dumps({"multiple": ["multiple_1"]}, indent=1),
        "possible_answer/BFCL_v4_rest.json": json.dumps({"id": "rest_0", "ground_truth": "{}"}),
        "multi_turn_func_doc/math_api.json": json.dumps({"name": "add"}),
        "memory_prereq_conversation/memory_student.json": json.dumps({"id": "memory_prereq_0"}),
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/*.json"])
def test_a_folder_of_bfcl_leaves_out_what_is_not_scored(tmp_path: Path, form: str) -> None:
    folder = bfcl_folder(tmp_path)
    files, left_out = asked_files([Source(path=form.format(folder))])
    assert files == [folder / "BFCL_v4_simple_python.json"]
    assert left_out == {"multi_turn_base": 2, "exec_simple": 1}
    said = unscored_in_words(left_out)
    assert said.startswith("3 questions of BFCL left out")
    assert said.endswith(": exec_simple 1, multi_turn_base 2.")


def test_a_file_of_bfcl_that_is_named_is_refused_where_it_is_not_scored(tmp_path: Path) -> None:
    file = bfcl_folder(tmp_path) / "BFCL_v4_multi_turn_base.json"
    assert asked_files([Source(path=str(file))]) == ([file], {})
    assert is_benchmark(file)
    with pytest.raises(DataError, match="or the folder") as refused:
        list(read_questions(file))
    assert refused.value.faults[0].code == "not-scored"


def test_folders_of_other_data_keep_folders_of_these_names(tmp_path: Path) -> None:
    file = tmp_path / "possible_answer" / "rows.jsonl"
    file.parent.mkdir()
    file.write_text("{}")
    assert asked_files([Source(path=str(tmp_path))]) == ([file], {})


@pytest.mark.parametrize(
    "row",
    [
        "{",
        "[1]",
        "{}",
        '{"question": [], "function": [], "id": "multiple_0"}',
        '{"question": 1, "function": "비밀", "id": 3}',
        '{"turns": [{}]}',
        '{"turns": 1, "비밀": 1}',
        '{"input_messages": []}',
        '{"function_num": 1, "query": [], "ground_truth": [{}], "acceptable_arguments": []}',
    ],
)
def test_other_files_are_refused(tmp_path: Path, row: str) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(row, "utf-8")
    with pytest.raises(DataError) as refused:
        list(read_questions(path))
    assert "비밀" not in str(refused.value)


# --- FunctionChat-Bench ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def functionchat(shared: Path) -> list[Question]:
    """All questions of the three files."""
    files = sorted((shared / "functionchat").glob("*.jsonl"))
    if not files:
        pytest.skip("there is no FunctionChat-Bench beside the checkout")
    return [question for file in files for question in read_questions(file)]


def ground_truth(question: Question) -> Calls:
    return [
        (call.name, {name: one.values[0] for name, one in call.arguments.properties.items()})
        for call in question.wanted.calls
    ]


def test_functionchats_turns(functionchat: list[Question]) -> None:
    assert len({question.id for question in functionchat}) == len(functionchat)
    wanted = Counter(
        (question.category.rpartition("_")[0], question.wanted.decision)
        for question in functionchat
        if not question.category.startswith("single")
    )
    assert wanted["dialog", "calls"] == 7
    assert wanted["call_decision", "calls"] == 50
    assert wanted["call_decision", "text"] == 253
    assert sum(question.category.startswith("single") for question in functionchat) == 300


def test_questions_of_a_dialog_a_function_or_a_sentence_belong_together(
    functionchat: list[Question],
) -> None:
    clusters = {
        kind: {one.cluster for one in functionchat if one.id.startswith(kind)}
        for kind in ("dialog", "single_call", "call_decision")
    }
    rows = {(one.file, one.line) for one in functionchat if not one.id.startswith("call")}
    assert len(clusters["dialog"] | clusters["single_call"]) == len(rows)
    decisions = [one for one in functionchat if one.id.startswith("call_decision")]
    said = {tuple(m["content"] for m in one.messages if m["role"] == "user") for one in decisions}
    assert len(clusters["call_decision"]) == len(said) < len(decisions)


def test_functionchats_exact_match(functionchat: list[Question]) -> None:
    widened = 0
    for question in functionchat:
        if question.wanted.decision != "calls":
            continue
        right = ground_truth(question)
        assert judged(question, right).right, question.id
        ((name, arguments),) = right
        for argument, one in question.wanted.calls[0].arguments.properties.items():
            for value in one.values[1:]:
                widened += 1
                assert judged(question, [(name, {**arguments, argument: value})]).right
            kept = {key: value for key, value in arguments.items() if key != argument}
            assert judged(question, [(name, kept)]).reason == "missing-argument"
            value = arguments[argument]
            wrong = not value if isinstance(value, bool) else f"{value}?"
            assert not judged(question, [(name, {**arguments, argument: wrong})]).right
            assert not judged(question, [(name, {**arguments, argument: [value]})]).right
            if isinstance(value, str):
                spaced = {**arguments, argument: f" {value.upper()} "}
                assert judged(question, [(name, spaced)]).right
        assert judged(question, [(name, {**arguments, "x": 1})]).reason == "unexpected-argument"
        assert judged(question, [("다른", arguments)]).reason == "wrong-tool"
        assert judged(question, right * 2).reason == "number-of-calls"
        assert judged(question, [], "네").reason == "no-call"
    assert widened > 100


def test_functionchat_is_also_counted_as_it_is_published(tmp_path: Path) -> None:
    """What Kakao's program passes; held against it itself where a clone of it is there."""
    call = {
        "type": "function",
        "function": {"name": "book", "arguments": '{"room": "1층", "n": 2}'},
    }
    row = {
        "dialog_num": 1,
        "tools": [],
        "turns": [
            {"turn_num": 1, "query": [], "type_of_output": "call",
             "ground_truth": {"tool_calls": [call]},
             "acceptable_arguments": '{"room": ["일층"], "n": 3}'},
            {"turn_num": 2, "query": [], "type_of_output": "completion",
             "ground_truth": {"content": "네"}, "acceptable_arguments": None},
        ],
    }  # fmt: skip
    asked, text = list(read_questions(write_jsonl(tmp_path / "dialog.jsonl", [row])))
    assert text.published is None

    def passes(*calls: tuple[str, dict[str, Any]]) -> tuple[bool, bool]:
        assert asked.published is not None
        right = judged(asked, list(calls)).right
        return asked.published(Answer("", as_items(list(calls)))), right

    assert passes(("book", {"room": "1 층", "n": 2})) == (True, True)
    assert passes(("book", {"room": "일층", "n": 3})) == (True, True)
    assert passes(("book", {"room": "1층", "n": 99})) == (True, False)  # beside a number
    assert passes(("book", {"room": "1층"})) == (True, False)
    assert passes(("book", {"room": "1층", "n": 2}), ("book", {})) == (True, False)
    assert passes(("book", {"room": "2층", "n": 2})) == (False, False)
    assert passes(("book", {"room": "1층", "n": 2, "x": 1})) == (False, False)
    assert passes(("look", {"room": "1층", "n": 2})) == (False, False)
    assert passes() == (False, False)


def test_functionchats_texts_are_counted_apart(functionchat: list[Question]) -> None:
    texts = [question for question in functionchat if question.wanted.decision == "text"]
    assert texts
    for question in texts:
        said = judged(question, [], "네, 도와드릴게요.")
        assert (said.decision, said.right, said.reason) == (True, False, "not-judged")
        called = judged(question, [(question.tools[0]["function"]["name"], {})])
        assert (called.decision, called.right, called.reason) == (False, False, "unwanted-call")


def test_acceptable_arguments_in_every_form(tmp_path: Path) -> None:
    def question(acceptable: Any) -> Question:
        call = {"name": "f", "arguments": '{"a": "서울", "b": null}'}
        row = {
            "serial_num": 1,
            "category": "CALL",
            "input_messages": [{"role": "user", "content": "서울 날씨"}],
            "input_tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "type_of_output": "call",
            "ground_truth": {"role": "assistant", "tool_calls": [{"function": call}]},
            "acceptable_arguments": acceptable,
        }
        path = tmp_path / "file.jsonl"
        path.write_text(json.dumps(row), "utf-8")
        return next(read_questions(path))

    for acceptable in ('{"a": ["Seoul", "SEL"]}', {"a": "Seoul"}, '{"a": "Seoul", "z": 1}'):
        assert judged(question(acceptable), [("f", {"a": "seoul", "b": None})]).right
    for acceptable in (None, "Only ground truth is allowed.", '"Seoul"', "[]"):
        assert not judged(question(acceptable), [("f", {"a": "Seoul", "b": None})]).right
        assert judged(question(acceptable), [("f", {"a": "서울"})]).right  # null and absent are one
